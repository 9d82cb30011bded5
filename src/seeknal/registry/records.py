"""What the registry gives back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from seeknal.feature_group import FeatureGroup
from seeknal.schema import Schema
from seeknal.times import Interval


@dataclass(frozen=True)
class GroupRecord:
    """A registered group."""

    id: int
    group: FeatureGroup
    created_at: int

    @property
    def project(self) -> str:
        """Name of its project."""
        return self.group.project

    @property
    def name(self) -> str:
        """Its name."""
        return self.group.name

    @property
    def label(self) -> str:
        """Project and name."""
        return f"{self.project}/{self.name}"


@dataclass(frozen=True)
class Version:
    """One schema of a group, and the last write made with it."""

    number: int
    schema: Schema
    created_at: int
    snapshot: int
    rows: int
    written_at: int
    is_current: bool


@dataclass(frozen=True)
class Load:
    """A span of a version that was put online, or is to be: then what it gave is None."""

    id: int
    version: int
    target: str
    interval: Interval
    snapshot: int | None
    rows: int | None
    seconds: float | None
    at: int | None


@dataclass(frozen=True)
class TableLookup:
    """The features that an online table takes from one version of a group.

    Args:
        project: Project of the group.
        group: Name of the group.
        version: Number of the version.
        keys: Join keys, as (name in the group, name in a request).
        features: Features, as (name in the group, name in the answer).
    """

    project: str
    group: str
    version: int
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]

    @property
    def space(self) -> str:
        """Where the version's rows are in the online store."""
        return space_of(self.project, self.group, self.version)


def space_of(project: str, group: str, version: int) -> str:
    """Name the place of a version's rows in the online store."""
    return f"{project}/{group}/{version}"


@dataclass(frozen=True)
class OnlineTableRecord:
    """A registered online table; a ttl (microseconds) stands in for the groups' own."""

    project: str
    name: str
    lookups: tuple[TableLookup, ...]
    ttl: int | None
    target: str
    created_at: int

    def __str__(self) -> str:
        parts = [
            f"{', '.join(out for _, out in lookup.features)} of {lookup.group} version {lookup.version}"
            for lookup in self.lookups
        ]
        parts += [] if self.ttl is None else [f"ttl {timedelta(microseconds=self.ttl)}"]
        return "; ".join(parts + ([f"in {self.target}"] if self.target else []))

    @property
    def label(self) -> str:
        """Project and name."""
        return f"{self.project}/{self.name}"
