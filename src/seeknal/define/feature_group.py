"""Definitions of feature groups, and of lookups that select features from them. No data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Protocol

from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.names import check_features, check_name, check_names, check_text
from seeknal.values.arguments import check_flag
from seeknal.values.times import LONGEST_SPAN, microseconds


@dataclass(frozen=True)
class Materialization:
    """How a group's rows are dated and stored.

    Args:
        event_time_col: Column with the time at which a row's values became true. Required to write the group.
        created_time_col: Column with the time at which a row was recorded. Of the rows of one entity with the same
            event time, the latest created time wins. It hides nothing: a row recorded late is visible from its event
            time on.
        ttl: How long a value is valid, counted from its event time, inclusive. None: forever.
        offline: Store the rows offline. Always true: online values are loaded from there and verified against it.
        online: Load the newest row of each entity into the online store after every write.

    Raises:
        DefinitionError: The name of a column is not text, the ttl is not a positive timedelta, it is longer than 3,660,000 days,
            `offline` is false, or `online` is neither True nor False.
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
        for argument in ("event_time_col", "created_time_col"):
            if (name := getattr(self, argument)) is not None:
                check_text(argument, name)
        check_ttl(self.ttl)
        # The class is frozen, and the checked flag can be another object: NumPy's True becomes Python's.
        object.__setattr__(self, "online", check_flag("online", self.online))
        if not check_flag("offline", self.offline):
            raise DefinitionError(
                "Materialization(offline=False) is not supported: online values are loaded from the offline table "
                "and verified against it. Leave offline=True."
            )


def check_ttl(ttl: object) -> None:
    """Check that a ttl is None or a positive timedelta of at most 3,660,000 days.

    Raises:
        DefinitionError: It is not.
    """
    if ttl is not None and not (isinstance(ttl, timedelta) and ttl > timedelta(0)):
        raise DefinitionError(f"ttl={ttl!r} is not a positive timedelta. Write ttl=timedelta(days=30), for example.")
    if ttl is not None and ttl > LONGEST_SPAN:
        raise DefinitionError(
            f"ttl={ttl!r} is longer than 3,660,000 days. Leave it out: without a ttl, values are valid forever."
        )


@dataclass(frozen=True)
class FeatureGroup:
    """A set of features of one entity that are written together.

    Args:
        name: Name of the group, unique in its project.
        entity: The entity that the features describe.
        materialization: How rows are dated and stored.
        project: Name of the project.
        description: A sentence for readers.

    Raises:
        DefinitionError: A name breaks the rule for names, or an argument has the wrong type.
    """

    name: str
    entity: Entity
    materialization: Materialization = field(default_factory=Materialization)
    project: str = "default"
    description: str | None = None

    def __post_init__(self) -> None:
        # The class is frozen, and the checked name can be another object: an enum of text becomes plain text.
        object.__setattr__(self, "name", check_name("feature group", self.name))
        object.__setattr__(self, "project", check_name("project", self.project))
        for argument, kind in (("entity", Entity), ("materialization", Materialization)):
            if not isinstance(value := getattr(self, argument), kind):
                raise DefinitionError(
                    f"{argument}={value!r} of group {self.name!r} should be created with {kind.__name__}(...)."
                )

    def completed(self, known: FeatureGroup) -> FeatureGroup:
        """Return this group with what it leaves out filled in from the registered one.

        That is its description, and the description and the `pii_keys` of its entity.
        """
        entity, before = self.entity, known.entity
        description, pii_keys = entity.description or before.description, entity.pii_keys or before.pii_keys
        return replace(
            self,
            entity=Entity.stored(entity.name, entity.join_keys, description, pii_keys),
            description=known.description if self.description is None else self.description,
        )

    @staticmethod
    def check(given: object) -> FeatureGroup:
        """Check that an argument is a feature group, and return it.

        Raises:
            DefinitionError: It is not.
        """
        if not isinstance(given, FeatureGroup):
            raise DefinitionError(
                f"group={given!r} is not a FeatureGroup. Pass store.groups.get(NAME).group for a registered one, "
                "FeatureGroup(NAME, entity, materialization) for a new one, or the definition of a FeatureGroupDuckDB."
            )
        return given

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that identify what a row is about."""
        return self.entity.join_keys

    @property
    def event_time_col(self) -> str:
        """The name of the event time column.

        Raises:
            DefinitionError: The group has no event time.
        """
        if self.materialization.event_time_col:
            return self.materialization.event_time_col
        raise DefinitionError(
            f"Group {self.name!r} has no event time, so its training sets could not leave out rows of the future. Write "
            'materialization=Materialization(event_time_col="timestamp"), with the name of the column that has the time at '
            "which each row became true."
        )


class Named(Protocol):
    """An object that identifies a feature group by name and project."""

    @property
    def name(self) -> str:
        """The group's name."""

    @property
    def project(self) -> str | None:
        """The name of the group's project; None for a windowed group whose source is named without one."""


@dataclass(frozen=True)
class FeatureLookup:
    """The features to select from a group, and their names in the result.

    Args:
        source: The group, or its name: "spend", or "shop/spend" where several projects have a group of that name.
        features: Names of the features to select, in order. None: all of them.
        prefix: Prefix for the name of each feature.
        rename: New names by old name, used instead of the prefix. For a join key, the name of the spine's column: with
            rename={"airport": "origin"}, the weather is looked up at the origin.
        version: Number of the version to read, as of its last write. None: the current version.

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
        object.__setattr__(self, "features", check_features(self.features))
        if self.prefix is not None:
            object.__setattr__(self, "prefix", check_text("prefix", self.prefix))
        if self.rename is not None:
            object.__setattr__(self, "rename", _renames(self.rename))
        if self.version is not None and (
            not isinstance(self.version, int) or isinstance(self.version, bool)
        ):  # True is an int
            raise DefinitionError(f"version={self.version!r} is not a whole number. Write version=1, for example.")

    @property
    def project(self) -> str | None:
        """The name of the group's project, or None if the source is a name without a project."""
        if isinstance(self.source, str):
            return self.source.rpartition("/")[0] or None
        return self.source.project

    @property
    def name(self) -> str:
        """The group's name."""
        return self.source.rpartition("/")[2] if isinstance(self.source, str) else self.source.name

    def output_name(self, feature: str) -> str:
        """Return the name of a feature in the result."""
        return (self.rename or {}).get(feature, f"{self.prefix or ''}{feature}")


def _renames(rename: object) -> dict[str, str]:
    example = "{'old': 'new'}"
    if not isinstance(rename, Mapping):
        raise DefinitionError(f"rename={rename!r} is not a mapping. Write rename={example}, for example.")
    old, new = (check_names("rename", names, example) for names in (list(rename), rename.values()))
    return dict(zip(old, new, strict=True))


def check_lookups(lookups: object) -> tuple[FeatureLookup, ...]:
    """Return one lookup, or a list of lookups, as a tuple.

    Raises:
        DefinitionError: It is neither, or the list is empty.
    """
    given = lookups if isinstance(lookups, list | tuple) else [lookups]
    wrong = [one for one in given if not isinstance(one, FeatureLookup)]
    if wrong or not given:
        instead = f", not {type(wrong[0]).__name__}" if wrong else ""
        raise DefinitionError(
            f"lookups takes a list with at least one FeatureLookup{instead}. Write [FeatureLookup(source=group)]."
        )
    return tuple(given)
