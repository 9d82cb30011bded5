"""Definitions of windowed groups: feature groups whose values are computed from the events of a source. No data, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from types import MappingProxyType

from seeknal.define.aggregations import Aggregation, WindowedFeature, expand, from_json, to_json
from seeknal.define.aggregations.lengths import Length, read_length, show_length
from seeknal.define.columns import check_columns
from seeknal.define.feature_group import Materialization, Named
from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.names import check_name, split_label
from seeknal.values.times import microseconds


@dataclass(frozen=True)
class WindowedGroup:
    """A feature group that is computed: each feature aggregates the events of an entity in a window before the moment.

    It stores no rows. A training set computes the features at each moment of its spine from the events of the source, with its late
    and corrected events. A new definition under the same name is the group's next version.

    Args:
        name: Name of the group, unique in its project.
        entity: The entity that the features describe. Its join keys are columns of the source.
        source: The source of the events: an `EventSource`, a feature group, or the name of one, such as "shop/transactions".
        features: The aggregations, by the names of the features. One with several lengths makes a feature for each, such as spend_7d
            and spend_30d for {"spend": Sum("amount", over=["7d", "30d"])}.
        project: Name of the project. None: that of the source.
        description: A sentence for readers.
        hop: Align the start of each window down to a multiple of this length since 1970 in UTC, offline and online alike. None:
            windows start exactly one length before the moment.

    Raises:
        DefinitionError: A name breaks the rule for names, or an argument has the wrong type.
    """

    name: str
    entity: Entity
    source: Named | str = field(compare=False)
    features: Mapping[str, Aggregation]
    project: str | None = None
    description: str | None = None
    hop: Length | None = None
    origin: str = field(init=False)
    """The name of the source, with its project if that is known: "shop/transactions"."""

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "name", check_name("feature group", self.name))
        if not isinstance(self.entity, Entity):
            raise DefinitionError(f"entity={self.entity!r} of group {self.name!r} should be created with Entity(...).")
        project, name = _source_of(self.source)
        set_(self, "origin", name if project is None else f"{project}/{name}")
        own = project if self.project is None else check_name("project", self.project)
        set_(self, "project", own)
        set_(self, "features", self._checked_features())
        set_(self, "hop", None if self.hop is None else read_length("hop", self.hop))
        names = [feature.name for feature in self.windows]
        if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
            raise DefinitionError(f"Two features of group {self.name!r} are named {repeated[0]!r}. Rename one.")
        check_columns([*self.entity.join_keys, *names])

    def _checked_features(self) -> Mapping[str, Aggregation]:
        if not isinstance(self.features, Mapping) or not self.features:
            raise DefinitionError(
                f"features={self.features!r} of group {self.name!r} is not a mapping with at least one aggregation. Write "
                'features={"spend_7d": Sum("amount", over="7d")}, for example.'
            )
        return MappingProxyType(dict(self.features))

    @cached_property
    def windows(self) -> tuple[WindowedFeature, ...]:
        """The features, one for each length of each aggregation, in order."""
        return tuple(one for name, aggregation in self.features.items() for one in expand(name, aggregation))

    @property
    def hop_length(self) -> int | None:
        """The hop in microseconds."""
        return microseconds(self.hop) if isinstance(self.hop, timedelta) else None

    @property
    def reach(self) -> int | None:
        """How long before a moment the earliest window may start, in microseconds; None: at the first event."""
        return reach_of(self.windows, self.hop_length)

    @property
    def materialization(self) -> Materialization:
        """How its values are kept: they have no ttl, since windows end by themselves."""
        return Materialization()

    @cached_property
    def text(self) -> str:
        """What the values depend on, as JSON: two versions of the group differ if, and only if, their texts do."""
        by_name = {name: to_json(aggregation) for name, aggregation in self.features.items()}
        hop = {} if self.hop_length is None else {"hop": show_length(self.hop_length)}
        return json.dumps({"features": by_name, **hop}, ensure_ascii=False)

    @property
    def described(self) -> list[dict[str, str]]:
        """The features with their aggregations, as text."""
        found = []
        for one in self.windows:
            given = {
                name: value for name, value in to_json(one.aggregation).items() if name not in {"aggregation", "over"}
            }
            length = {} if one.length is None else {"over": show_length(one.length)}
            given |= {"fill": one.aggregation.fill} if "fill" in given else {}
            arguments = ", ".join(f"{name}={value!r}" for name, value in {**given, **length}.items())
            found.append({"feature": one.name, "aggregation": f"{one.aggregation.name}({arguments})"})
        return found

    def is_same_as(self, text: str) -> bool:
        """Return whether the `text` of another definition gives the same values, in whatever order of the features."""
        # As text, because 0, 0.0 and false are equal in Python.
        return _sorted(self.text) == _sorted(text)

    def __hash__(self) -> int:
        return hash((self.project, self.name, self.origin, self.text))


def _sorted(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


def reach_of(windows: Iterable[WindowedFeature], hop: int | None) -> int | None:
    """Return how long before a moment the earliest of some windows may start, in microseconds; None: at the first event."""
    reach = 0
    for one in windows:
        if one.length is None:
            return None
        reach = max(reach, one.length + one.aggregation.shift)
    return reach + (hop or 0)


def features_of(text: str) -> tuple[dict[str, Aggregation], str | None]:
    """Return the features and the hop in the `text` of a definition.

    Raises:
        DefinitionError: A later release of Seeknal has made it.
    """
    found = json.loads(text)
    return {name: from_json(one) for name, one in found["features"].items()}, found.get("hop")


def _source_of(source: object) -> tuple[str | None, str]:
    """Return the project and name of a source; None for the project if only a name is given."""
    if isinstance(source, str):
        project, name = split_label("source", source, None)
        return project, check_name("source", name)
    if isinstance(source, WindowedGroup):
        raise DefinitionError(
            f"source={source.name!r} is a windowed group, which has no events of its own. Name its source, {source.origin!r}."
        )
    if hasattr(source, "name") and hasattr(source, "project"):
        return source.project, source.name
    raise DefinitionError(
        f'source={source!r} is neither an event source nor a feature group. Pass one, or its name: source="shop/transactions".'
    )
