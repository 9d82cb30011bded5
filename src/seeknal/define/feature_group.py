"""Definitions: what a feature group is and which of its features somebody asks for. No data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.names import check_name
from seeknal.values.times import microseconds


@dataclass(frozen=True)
class Materialization:
    """How a group's rows are dated and kept.

    Args:
        event_time_col: Column with the moment at which a row's values became true. A group cannot be written without.
        created_time_col: Column with the moment at which a row was recorded; of rows with one event time, the
            latest wins. It hides nothing: a row recorded late is visible from its event time on.
        ttl: How long a value is good for, counted from its event time, inclusive. None: for ever.
        offline: Keep the rows offline. Always true: online values are loaded from there and proved against it.
        online: Load the newest row of each entity into the online store after every write.

    Raises:
        DefinitionError: The ttl is no positive timedelta, or offline is off.
    """

    event_time_col: str | None = None
    created_time_col: str | None = None
    ttl: timedelta | None = None
    offline: bool = True
    online: bool = False

    @property
    def lifetime(self) -> int | None:
        """The ttl in microseconds."""
        return None if self.ttl is None else microseconds(self.ttl)

    def __post_init__(self) -> None:
        check_ttl(self.ttl)
        if not self.offline:
            raise DefinitionError(
                "Materialization(offline=False) is not supported: online values are loaded from the offline table "
                "and proved against it. Leave offline=True."
            )


_LONGEST_TTL = timedelta(days=3_660_000)
"""Ten thousand years."""


def check_ttl(ttl: object) -> None:
    """Refuse what is no positive span of time.

    Raises:
        DefinitionError: It is none.
    """
    if ttl is not None and not (isinstance(ttl, timedelta) and ttl > timedelta(0)):
        raise DefinitionError(f"ttl={ttl!r} is no positive timedelta. Write ttl=timedelta(days=30), say.")
    if ttl is not None and ttl > _LONGEST_TTL:
        raise DefinitionError(f"ttl={ttl!r} is longer than all of time. Leave it out: values are then good for ever.")


@dataclass(frozen=True)
class FeatureGroup:
    """Features of one entity that are written together.

    Args:
        name: Name of the group, unique in its project.
        entity: What the features describe.
        materialization: How rows are dated and kept.
        project: Name of the project.
        description: A sentence for people.

    Raises:
        DefinitionError: A name breaks the rule.
    """

    name: str
    entity: Entity
    materialization: Materialization = field(default_factory=Materialization)
    project: str = "default"
    description: str | None = None

    def __post_init__(self) -> None:
        check_name("feature group", self.name)
        check_name("project", self.project)
        for argument, kind in (("entity", Entity), ("materialization", Materialization)):
            if not isinstance(value := getattr(self, argument), kind):
                raise DefinitionError(
                    f"{argument}={value!r} of group {self.name!r} should be made with {kind.__name__}(...)."
                )

    @property
    def event_time_col(self) -> str:
        """The event time column.

        Raises:
            DefinitionError: The group has none.
        """
        if self.materialization.event_time_col:
            return self.materialization.event_time_col
        raise DefinitionError(
            f"Group {self.name!r} has no event time, so nobody could tell what was known when, and training sets would "
            'look into the future. Write materialization=Materialization(event_time_col="timestamp"), with the column '
            "that says when each row became true."
        )


class Named(Protocol):
    """Anything that says which group it is."""

    @property
    def name(self) -> str:
        """The group's name."""

    @property
    def project(self) -> str:
        """Its project's name."""


@dataclass(frozen=True)
class FeatureLookup:
    """Which features of a group are wanted, and what they are to be called.

    Args:
        source: The group, or its name ("spend"; "shop/spend" where two projects have one).
        features: Names of the features wanted, in order. None: all of them.
        prefix: Put before each feature's name.
        rename: New names by old name, in place of the prefix. For a join key, the name that the
            spine gives it: with rename={"airport": "origin"} weather is looked up at the origin.
        version: Number of the version to read, as it stands since its last write. None: the current one.

    Raises:
        DefinitionError: An argument has the wrong form.
    """

    source: Named | str
    features: Sequence[str] | None = None
    prefix: str | None = None
    rename: Mapping[str, str] | None = None
    version: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) and not (hasattr(self.source, "name") and hasattr(self.source, "project")):
            raise DefinitionError(f"source={self.source!r} is neither a feature group nor the name of one.")
        if isinstance(self.features, str) or (self.features is not None and not self.features):
            raise DefinitionError(f"features={self.features!r} is no list of names. Leave it out to get all features.")
        if self.version is not None and not isinstance(self.version, int):
            raise DefinitionError(f"version={self.version!r} is no number. Write version=1, say.")

    @property
    def project(self) -> str | None:
        """The project, if it is said."""
        if isinstance(self.source, str):
            return self.source.rpartition("/")[0] or None
        return self.source.project

    @property
    def name(self) -> str:
        """The group's name."""
        return self.source.rpartition("/")[2] if isinstance(self.source, str) else self.source.name

    def output_name(self, feature: str) -> str:
        """Give the name a feature has in the result."""
        return (self.rename or {}).get(feature, f"{self.prefix or ''}{feature}")


def check_lookups(lookups: object) -> tuple[FeatureLookup, ...]:
    """Return one lookup, or a list of them, as a tuple.

    Raises:
        DefinitionError: It is neither.
    """
    given = lookups if isinstance(lookups, list | tuple) else [lookups]
    wrong = [one for one in given if not isinstance(one, FeatureLookup)]
    if wrong or not given:
        instead = f", not {type(wrong[0]).__name__}" if wrong else ""
        raise DefinitionError(
            f"lookups takes a list with at least one FeatureLookup{instead}. Write [FeatureLookup(source=group)]."
        )
    return tuple(given)
