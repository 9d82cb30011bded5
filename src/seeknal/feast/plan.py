"""What becomes of each object of a Feast repository: a group, a request feature, a view, or a reason why it is left out."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from seeknal.define.feature_group import FeatureGroup, FeatureLookup, Materialization
from seeknal.entity import Entity
from seeknal.errors import SeeknalError
from seeknal.feast.code import Module, NotPortableError, add_function
from seeknal.feast.described import Described, Key, OnDemand, Part, Service, View, read_schema
from seeknal.feast.rows import Rows, rows_of
from seeknal.names import check_name, quoted

_INSTEAD = {
    "stream feature view": "Push its rows to a group with seeknal.FeatureGroupDuckDB(...).push, and make it a windowed group if it aggregates.",
    "label view": "Write its rows to a group, and name it as the label of a view: FeatureView(label=Label(...)).",
    "saved dataset": "Make it again from a view, with FeatureView.training_set(...).",
    "validation reference": "FeatureView.check(...) looks for leaks; the ranges of values are not checked.",
    "permission": "seeknal token create gives rights to read, push and administer by project.",
}


@dataclass(frozen=True)
class LeftOut:
    """An object that is not imported.

    Args:
        kind: What it is in Feast.
        name: Its name.
        reason: Why it is left out.
        instead: What to do.
    """

    kind: str
    name: str
    reason: str
    instead: str


@dataclass(frozen=True)
class PlannedGroup:
    """A feature view that becomes a feature group with the same rows."""

    view: View
    group: FeatureGroup
    rows: Rows

    @property
    def label(self) -> str:
        """The group's project and name."""
        return f"{self.group.project}/{self.group.name}"


@dataclass(frozen=True)
class PlannedFunction:
    """An on-demand feature view that becomes a request feature.

    Args:
        view: The on-demand feature view.
        function: The name of Feast's function.
        kinds: The types of the inputs by name: features in the types of the files, request values as declared.
        request: The types of the request values among them.
        outputs: The types of what it computes.
        long_names: Inputs by their name of the form "view__feature", as far as the code uses it. Feast gives both.
    """

    view: OnDemand
    function: str
    kinds: Mapping[str, pa.DataType]
    request: Mapping[str, pa.DataType]
    outputs: Mapping[str, pa.DataType]
    long_names: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name of the request feature in the written module. The function of Feast keeps its own."""
        return f"{self.view.name}_feature"


@dataclass(frozen=True)
class PlannedView:
    """A feature service that becomes a feature view.

    Args:
        service: The service.
        lookups: What it reads of the groups, with the inputs of functions.
        functions: Its functions.
        features: The features of the service, in order.
        full_names: Whether features are named "view__feature", as Feast does on request. It has to if two have the same name.
    """

    service: Service
    lookups: tuple[FeatureLookup, ...]
    functions: tuple[PlannedFunction, ...]
    features: tuple[str, ...]
    full_names: bool

    @property
    def request(self) -> dict[str, pa.DataType]:
        """The types of the request values of its functions."""
        return {name: kind for one in self.functions for name, kind in one.request.items()}


@dataclass
class Plan:
    """What becomes of a repository."""

    project: str
    groups: dict[str, PlannedGroup] = field(default_factory=dict)
    functions: dict[str, PlannedFunction] = field(default_factory=dict)
    views: dict[str, PlannedView] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    module: Module = field(default_factory=Module)


def make(described: Described, repo: Path, project: str, data: Mapping[str, str]) -> Plan:
    """Return what becomes of each object of a repository.

    Args:
        described: The repository.
        repo: Its folder, for the code of functions.
        project: The project of Seeknal.
        data: Files to read in place of the sources of views, by the name of the view.

    Raises:
        DefinitionError: The name of the project breaks the rule for names.
    """
    plan = Plan(check_name("project", project))
    keys = {one.name: one for one in described.entities}
    for view in described.views:
        instead = f"Export its rows, and pass --data {view.name}=FILE.parquet."
        with _left_out_if_it_fails(plan, "feature view", view.name, instead):
            plan.groups[view.name] = _group(plan, view, keys, data.get(view.name))
    instead = "Write a request feature: @request_feature above a function of a module, with the inputs as parameters."
    for one in described.on_demand:
        with _left_out_if_it_fails(plan, "on-demand feature view", one.name, instead):
            plan.functions[one.name] = _function(plan, one, repo)
    for service in described.services:
        with _left_out_if_it_fails(
            plan, "feature service", service.name, "Make a view of what was imported, with FeatureView(...)."
        ):
            plan.views[service.name] = _view(plan, service)
    for other in described.others:
        reason = "Seeknal has no counterpart of it"
        plan.left_out.append(LeftOut(other.kind, other.name, reason, _INSTEAD.get(other.kind, "")))
    return plan


@contextmanager
def _left_out_if_it_fails(plan: Plan, kind: str, name: str, instead: str) -> Iterator[None]:
    try:
        yield
    except NotPortableError as error:
        plan.left_out.append(LeftOut(kind, name, str(error), error.instead or instead))
    except SeeknalError as error:
        plan.left_out.append(LeftOut(kind, name, str(error), instead))


def _group(plan: Plan, view: View, known: Mapping[str, Key], file: str | None) -> PlannedGroup:
    if view.is_computed and file is None:
        raise NotPortableError(f"Feast computes it ({view.kind}), so its source has other rows")
    keys = [known[name] for name in view.entities if name in known]
    if not keys:
        raise NotPortableError(
            "it has no entity, and a group is looked up by a key",
            "Write its rows with a column that has the same value in each, and make it the key of an entity.",
        )
    names = tuple(one.join_key for one in keys)
    rows = rows_of(view, names, file)
    entity = Entity("_".join(one.name for one in keys), names, keys[0].description if len(keys) == 1 else None)
    assert view.source is not None  # noqa: S101 - rows_of checked it
    dated = Materialization(
        view.source.event_time,
        view.source.created_time,
        timedelta(seconds=view.ttl_seconds) if view.ttl_seconds else None,
    )
    return PlannedGroup(view, FeatureGroup(view.name, entity, dated, plan.project, view.description), rows)


def _function(plan: Plan, one: OnDemand, repo: Path) -> PlannedFunction:
    if one.mode not in ("pandas", "python"):
        raise NotPortableError(f"its mode is {one.mode}, and only pandas and python are plain functions")
    if one.aggregates:
        raise NotPortableError("Feast aggregates for it, which is a windowed group in Seeknal")
    if missing := [inputs.view for inputs in one.inputs if inputs.view not in plan.groups]:
        raise NotPortableError(f"its input {quoted(missing)} is not imported")
    taken = [(name, plan.groups[inputs.view].rows.kinds[name]) for inputs in one.inputs for name in inputs.features]
    request, outputs = read_schema(one.request), read_schema(one.outputs)
    names = [name for name, _ in taken] + list(request)
    if twice := {name for name in names if names.count(name) > 1}:
        raise NotPortableError(f"two of its inputs are named {quoted(sorted(twice))}")
    if odd := [name for name in [one.name, *names] if not name.isidentifier() or keyword.iskeyword(name)]:
        raise NotPortableError(f"{quoted(odd)} cannot be the name of a parameter or function of Python")
    if unknown := [name for name, kind in (request | outputs).items() if pa.types.is_null(kind)]:
        raise NotPortableError(f"the type of {quoted(unknown)} has no counterpart in Arrow")
    long_names = {f"{inputs.view}__{name}": name for inputs in one.inputs for name in inputs.features}
    used = {long: name for long, name in long_names.items() if long in one.code}
    function = add_function(one.code, repo, plan.module)
    return PlannedFunction(one, function, dict(taken) | request, request, outputs, used)


def _view(plan: Plan, service: Service) -> PlannedView:
    if missing := [
        part.view for part in service.parts if part.view not in plan.groups and part.view not in plan.functions
    ]:
        raise NotPortableError(f"it reads {quoted(missing)}, which is not imported")
    stored = [part for part in service.parts if part.view in plan.groups]
    functions = tuple(plan.functions[part.view] for part in service.parts if part.view in plan.functions)
    names = [name for part in service.parts for name in part.features]
    full_names = len(set(names)) < len(names)
    if full_names and functions:
        raise NotPortableError("two of its features have the same name, so the inputs of its functions are not clear")
    if renamed := [part.view for part in service.parts if part.view in plan.functions and part.alias]:
        raise NotPortableError(f"it reads {quoted(renamed)} by another name")
    parts = {(part.view, part.alias, tuple(part.keys.items())): dict.fromkeys(part.features) for part in stored}
    for one in functions:
        for inputs in one.view.inputs:
            parts.setdefault((inputs.view, None, ()), {}).update(dict.fromkeys(inputs.features))
    lookups = tuple(
        _lookup(plan, Part(view, alias, tuple(names), dict(keys)), full_names)
        for (view, alias, keys), names in parts.items()
    )
    if not lookups:
        raise NotPortableError("it reads no stored feature, and a view looks up at least one")
    return PlannedView(service, lookups, functions, tuple(_shown(service, full_names)), full_names)


def _lookup(plan: Plan, part: Part, full_names: bool) -> FeatureLookup:
    prefix = f"{part.shown}__" if full_names else None
    return FeatureLookup(plan.groups[part.view].label, list(part.features), prefix, dict(part.keys) or None)


def _shown(service: Service, full_names: bool) -> Iterator[str]:
    for part in service.parts:
        yield from (f"{part.shown}__{name}" if full_names else name for name in part.features)
