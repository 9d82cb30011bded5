"""Definitions of feature views: what one model reads. No data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seeknal.define.feature_group import FeatureLookup, check_lookups
from seeknal.define.label import Label
from seeknal.errors import DefinitionError
from seeknal.names import check_features, check_name, check_names, check_text, did_you_mean

if TYPE_CHECKING:
    from seeknal.define.request_feature import RequestFeature


@dataclass(frozen=True)
class ViewDefinition:
    """What one model reads: stored and windowed features, values of the request, features computed from both, and a label.

    Args:
        name: Name of the view, unique in its project.
        lookups: The features of groups, in order.
        request: The types of values that the caller gives with each row, by name. In training they are columns of the spine.
        functions: The request features, computed from looked-up features and request values.
        label: What the model predicts.
        project: Name of the project. None: that of the first lookup's group.
        features: The names of what the model reads, in order. None: request values, looked-up features, computed features.
        defaults: Values in place of null, by the name of a feature, in training and serving alike.
        description: A sentence for readers.
        owner: Who is responsible for the view.
        tags: Words to find it by.

    Raises:
        DefinitionError: A name breaks the rule for names, or an argument has the wrong type.
    """

    name: str
    lookups: Sequence[FeatureLookup]
    request: Mapping[str, str] = field(default_factory=dict)
    functions: Sequence[RequestFeature] = ()
    label: Label | None = None
    project: str | None = None
    features: Sequence[str] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None
    owner: str | None = None
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "name", check_name("feature view", self.name))
        set_(self, "lookups", check_lookups(self.lookups))
        if self.project is not None:
            set_(self, "project", check_name("project", self.project))
        set_(self, "request", dict(_mapping("request", self.request, '{"cart_value": "float64"}')))
        set_(self, "defaults", dict(_mapping("defaults", self.defaults, '{"price": 0.0}')))
        set_(self, "functions", _checked_functions(self.functions))
        set_(self, "features", check_features(self.features))
        if twice := [name for name in self.features or () if (self.features or ()).count(name) > 1]:
            raise DefinitionError(f"features of view {self.name!r} names {twice[0]!r} twice. Name each feature once.")
        if self.label is not None and not isinstance(self.label, Label):
            raise DefinitionError(f"label={self.label!r} of view {self.name!r} should be created with Label(...).")
        for argument in ("description", "owner"):
            if (value := getattr(self, argument)) is not None:
                set_(self, argument, check_text(argument, value))
        set_(self, "tags", check_names("tags", self.tags) if self.tags else ())


def _mapping(argument: str, given: object, example: str) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise DefinitionError(f"{argument}={given!r} is not a mapping. Write {argument}={example}, for example.")
    check_names(argument, list(given), example) if given else None
    return given


def _checked_functions(given: object) -> tuple[RequestFeature, ...]:
    from seeknal.define.request_feature import RequestFeature

    several = tuple(given) if isinstance(given, list | tuple) else (given,)
    for one in several:
        if not isinstance(one, RequestFeature):
            name = getattr(one, "__name__", None)
            raise DefinitionError(
                f"functions has {name or one!r}, which is not a request feature. Put @request_feature(outputs={{...}}) above it."
            )
    return several


def check_known(argument: str, names: Sequence[str], known: Sequence[str], view: str) -> None:
    """Check that a view has the features that an argument names.

    Raises:
        DefinitionError: It has not.
    """
    for name in names:
        if name not in known:
            raise DefinitionError(
                f"{argument} of view {view!r} names {name!r}, which it does not have.{did_you_mean(name, known)}",
                name=name,
            )
