"""What a version of a feature view is, as the registry keeps it, and how two versions differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from seeknal.define.aggregations.as_json import value_from_json, value_to_json
from seeknal.errors import DefinitionError
from seeknal.registry.records import PinnedLookup

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.define.request_feature import RequestFeature
    from seeknal.request.recipe import Recipe


@dataclass(frozen=True)
class FunctionContent:
    """A request feature, as `RequestFeature.to_json` writes it."""

    function: str
    mode: str
    inputs: tuple[str, ...]
    outputs: dict[str, str]
    code: str


@dataclass(frozen=True)
class LabelContent:
    """The label of a view.

    Args:
        lookup: The windowed group that computes it, whose moments are `ahead` of those of the rows.
        column: The name of the label's column.
        type: The type of the computed value.
        is_any: Whether the label is whether the computed value is true, or more than 0.
        unfinished: "drop" or "null"; see `Label`.
        text: The label in words. Views of early releases have none.
    """

    lookup: PinnedLookup
    column: str
    type: str
    is_any: bool = False
    unfinished: str = "drop"
    text: str = ""


@dataclass(frozen=True)
class ViewContent:
    """What a version of a feature view is.

    Args:
        lookups: The lookups with the versions of their groups. One that is not pinned follows its group to later versions, as long as
            those have the same features in the same types.
        types: The types of the looked-up features, by their names in the view.
        request: The types of the request values, by name.
        functions: The request features.
        features: The names of what the model reads, in order.
        defaults: Values in place of null, by name.
        label: The label; None: there is none.
    """

    lookups: tuple[PinnedLookup, ...]
    types: dict[str, str]
    request: dict[str, str] = field(default_factory=dict)
    functions: tuple[FunctionContent, ...] = ()
    features: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    label: LabelContent | None = None

    @staticmethod
    def loads(text: str) -> ViewContent:
        """Return the content in a text."""
        return msgspec.json.decode(text, type=ViewContent)

    def dumps(self) -> str:
        """Return the content as text."""
        return msgspec.json.encode(self).decode()

    @property
    def meaning(self) -> str:
        """What a version's values depend on: two definitions are the same version if these are equal.

        The version of a group that the view follows is not part of it: the view has the same features in the same types in each.
        """
        lookups = tuple(one if one.pinned else replace(one, version=0) for one in self.lookups)
        label = self.label and replace(self.label, text="")
        return replace(self, lookups=lookups, label=label).dumps()

    @property
    def kinds(self) -> dict[str, str]:
        """The types of request values, looked-up and computed features, as text, by name."""
        return {
            **self.types,
            **self.request,
            **{out: kind for one in self.functions for out, kind in one.outputs.items()},
        }

    @property
    def is_plain(self) -> bool:
        """Whether it only looks up stored and windowed features, so that its answers are those of its online table."""
        looked_up = tuple(self.types)
        return not (self.request or self.functions or self.defaults) and self.features == looked_up

    @property
    def default_values(self) -> dict[str, Any]:
        """The defaults as Python values."""
        return {name: _from_json(value) for name, value in self.defaults.items()}

    def loaded(self) -> list[RequestFeature]:
        """Return the functions, imported.

        Raises:
            DefinitionError: A module cannot be imported, or the code of a function has changed since it was registered.
        """
        if not self.functions:
            return []
        from seeknal.define.request_feature import load

        return [load(msgspec.to_builtins(one)) for one in self.functions]

    def recipe(
        self,
        kinds: Mapping[str, pa.DataType],
        functions: list[RequestFeature] | None = None,
        pii: Collection[str] = (),
    ) -> Recipe:
        """Return the recipe that makes the model's features of looked-up features and request values.

        Args:
            kinds: The types of the looked-up features.
            functions: The functions, if the caller has them. None: they are imported.
            pii: The keys whose values errors must not show.

        Raises:
            DefinitionError: The code of a function has changed since it was registered, or what a function needs is missing.
        """
        from seeknal.request.recipe import Recipe
        from seeknal.values import types

        return Recipe(
            {name: kinds[name] for name in self.types},
            {name: types.parse(kind) for name, kind in self.request.items()},
            self.loaded() if functions is None else functions,
            features=self.features,
            defaults=self.default_values,
            pii=pii,
        )

    def changes(self, other: ViewContent) -> list[str]:
        """Return what another version changed, one sentence each; empty if nothing."""
        return [
            *_lookups(self, other),
            *_each("request value", self.request, other.request),
            *_each("function", _described(self), _described(other)),
            *_each("default of", self.default_values, other.default_values),
            *_label(self.label, other.label),
            *([] if self.features == other.features else [_order(self.features, other.features)]),
        ]


def defaults_to_json(defaults: Mapping[str, pa.Scalar]) -> dict[str, Any]:
    """Return defaults as the registry keeps them.

    Raises:
        DefinitionError: Python has no such time, or it has nanoseconds.
    """
    found = {}
    for name, value in defaults.items():
        try:
            found[name] = _to_json(value)
        except (ValueError, OverflowError, StopIteration) as error:
            raise DefinitionError(f"The default of {name!r} cannot be kept: {error}", name=name) from None
    return found


def _to_json(value: pa.Scalar) -> Any:
    import pyarrow as pa

    if not value.is_valid:
        return None
    if isinstance(value, pa.ListScalar):
        return {"list": [_to_json(one) for one in value.values]}
    if isinstance(value, pa.StructScalar):
        return {"struct": {name: _to_json(one) for name, one in value.items()}}
    # Arrow cuts a time of day to microseconds, and makes other times those of pandas, of which Python's functions cut the rest.
    if getattr(value.type, "unit", "") == "ns" and value.value % 1000:
        raise ValueError("it has nanoseconds. Write it in whole microseconds.")
    return value_to_json(value.as_py())


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and "list" in value:
        return [_from_json(one) for one in value["list"]]
    if isinstance(value, dict) and "struct" in value:
        return {name: _from_json(one) for name, one in value["struct"].items()}
    return value_from_json(value)


def _lookups(old: ViewContent, new: ViewContent) -> list[str]:
    return _each("feature", _origins(old), _origins(new))


def _origins(content: ViewContent) -> dict[str, str]:
    """Return where each looked-up feature comes from, by its name in the view."""
    found = {}
    for one in content.lookups:
        version = f" version {one.version}" if one.pinned else ""
        keys = "".join(f", {own} as {out}" for own, out in one.keys if own != out)
        for own, out in one.features:
            found[out] = f"{one.project}/{one.group}{version} {own}: {content.types[out]}{keys}"
    return found


def _described(content: ViewContent) -> dict[str, str]:
    return {
        one.function: f"{one.mode}, {', '.join(f'{name}: {kind}' for name, kind in one.outputs.items())}, of "
        f"{', '.join(one.inputs)}, code {one.code[:8]}"
        for one in content.functions
    }


def _each(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    names = [*old, *(name for name in new if name not in old)]
    found = []
    for name in names:
        if name not in new:
            found.append(f"{what} {name} removed")
        elif name not in old:
            found.append(f"{what} {name} added ({new[name]})")
        elif old[name] != new[name]:
            found.append(f"{what} {name} changed ({old[name]} -> {new[name]})")
    return found


def _label(old: LabelContent | None, new: LabelContent | None) -> list[str]:
    if old is None or new is None:
        return [] if old == new else ["label removed" if new is None else f"label {new.column} added"]
    if replace(old, text="") == replace(new, text=""):
        return []
    name = f"label {old.column} changed" if old.column == new.column else f"label {old.column} is now {new.column}"
    return [f"{name} ({old.text} -> {new.text})" if old.text and new.text else name]


def _order(old: tuple[str, ...], new: tuple[str, ...]) -> str:
    if sorted(old) == sorted(new):
        return f"the order of the features changed to {', '.join(new)}"
    return f"the model reads {', '.join(new)} instead of {', '.join(old)}"
