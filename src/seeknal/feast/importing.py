"""Carries out a plan: writes the rows of groups and the module of request features, and registers views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from seeknal.define.feature_view import ViewDefinition
from seeknal.define.request_feature import RequestFeature
from seeknal.errors import DefinitionError, SeeknalError
from seeknal.feast import written
from seeknal.feast.plan import LeftOut, Plan, PlannedGroup, PlannedView
from seeknal.home.store import FeatureStore
from seeknal.names import quoted
from seeknal.registry import ViewRecord
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.types import as_text


@dataclass
class Imported:
    """What an import made.

    Args:
        groups: The rows written to each group, by the name of the feature view of Feast.
        views: The views, by the name of the feature service.
        left_out: What was not imported.
        functions: The written module; None if there are no functions.
    """

    groups: dict[str, int] = field(default_factory=dict)
    views: dict[str, ViewRecord] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    functions: Path | None = None


def carry_out(
    plan: Plan, store: FeatureStore, module: Path, *, replace_rows: bool = False, on_progress: OnProgress = no_progress
) -> Imported:
    """Import what a plan names.

    Args:
        plan: The plan.
        store: The store.
        module: The file for the request features.
        replace_rows: Whether groups that exist get the rows of Feast as their next snapshot.
        on_progress: Called with each step.

    Raises:
        DefinitionError: A group exists, or the module has another content. Nothing is stored then.
        StoreError: The module cannot be written.
    """
    exists = [one.label for one in plan.groups.values() if store.groups.find(one.group.name, project=plan.project)]
    if exists and not replace_rows:
        raise DefinitionError(
            f"{quoted(exists)} exists already. Pass --project with another project, or --replace to replace its rows.",
            groups=exists,
        )
    made = Imported(left_out=list(plan.left_out))
    functions: Mapping[str, RequestFeature] = {}
    if plan.functions:
        written.write(module, written.text_of(plan.project, plan.functions.values(), plan.module))
        functions, made.functions = written.load(module), module
    for name, group in plan.groups.items():
        on_progress(f"Writing {group.label}")
        try:
            made.groups[name] = _write(store, group)
        except SeeknalError as error:
            made.left_out.append(
                LeftOut("feature view", name, str(error), f"Change its rows, and pass --data {name}=FILE.parquet.")
            )
    for name, view in plan.views.items():
        on_progress(f"Registering {plan.project}/{name}")
        try:
            made.views[name] = store.views.register(definition_of(plan, view, functions))
        except SeeknalError as error:
            made.left_out.append(
                LeftOut(
                    "feature service",
                    name,
                    str(error),
                    f"Change that in Feast, run feast apply, remove {module}, and import again.",
                )
            )
    used = {one.view.name for name in made.views for one in plan.views[name].functions}
    for name in sorted(plan.functions.keys() - used):
        made.left_out.append(
            LeftOut(
                "on-demand feature view",
                name,
                f"no imported feature service reads it; its request feature is in {module}",
                "Name it in a view, with FeatureView(..., functions=[...]).",
            )
        )
    return made


def _write(store: FeatureStore, one: PlannedGroup) -> int:
    return store.groups.write(one.group, one.rows.read(), features=list(one.view.types)).rows


def definition_of(plan: Plan, view: PlannedView, functions: Mapping[str, RequestFeature]) -> ViewDefinition:
    """Return the definition of a feature view for a feature service."""
    service = view.service
    definition = ViewDefinition(
        service.name,
        view.lookups,
        request={name: as_text(kind) for name, kind in view.request.items()},
        functions=[functions[one.name] for one in view.functions],
        project=plan.project,
        features=view.features,
        description=service.description,
        owner=service.owner,
    )
    tags = [f"{name}={value}" if value else name for name, value in service.tags.items()]
    return replace(definition, tags=tags) if tags else definition
