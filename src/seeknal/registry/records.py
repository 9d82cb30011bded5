"""What the registry gives back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from seeknal.define.feature_group import FeatureGroup
from seeknal.system.redis_url import shown
from seeknal.values.display import Shown
from seeknal.values.times import Interval, moment_of

if TYPE_CHECKING:
    from seeknal.define.schema import Schema
    from seeknal.offline import DataFile

WRITES = ("overwrite", "append", "merge")
"""The modes of snapshots that a caller's rows made; others only arrange what is there."""
NEW_ROWS = (*WRITES, "adopt")
"""The modes of snapshots with new rows, those that another program wrote included."""


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
class Version(Shown):
    """One schema of a group, and the last write made with it."""

    number: int
    schema_text: str = field(repr=False)
    created_at: int
    snapshot: int
    rows: int
    written_at: int
    is_current: bool
    files: tuple[DataFile, ...] | None = field(default=None, repr=False)
    """What stands for the snapshot since entities were erased from it; None: what it was made of."""

    _moments = {"created_at": "created", "written_at": "written"}  # noqa: RUF012 - a ClassVar of its base

    @property
    def created(self) -> datetime:
        """When it was first written, in UTC."""
        return moment_of(self.created_at)

    @property
    def written(self) -> datetime:
        """When it was last written, in UTC."""
        return moment_of(self.written_at)

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Name, type and role of each column, without loading Arrow."""
        if not self.schema_text.startswith("{"):  # as it was written at first
            return self.schema.describe()
        return [(name, kind, role) for name, kind, role in json.loads(self.schema_text)["columns"]]

    @cached_property
    def schema(self) -> Schema:
        """The schema, which takes Arrow."""
        from seeknal.define.schema import Schema

        return Schema.loads(self.schema_text)


@dataclass(frozen=True)
class SnapshotRecord:
    """One write to a group."""

    number: int
    version: int
    mode: str
    written: int
    rows: int
    next_row_id: int
    at: int
    files: tuple[DataFile, ...] | None
    """What stands for it since entities were erased from it; None: what it was made of."""


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
        pinned: Whether it stays at the version, because the caller named one. Otherwise it moves on with the group. None:
            the table was made before this was noted; see `seeknal.load.feeds`.
        whole: Whether it takes all features of a version, whichever these are: in the table that loads make by themselves.
    """

    project: str
    group: str
    version: int
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    pinned: bool | None = None
    whole: bool = False

    @property
    def space(self) -> str:
        """Where the version's rows are in the online store."""
        return space_of(self.project, self.group, self.version)

    def is_of(self, record: GroupRecord) -> bool:
        """Tell whether it takes features from a group."""
        return (self.project, self.group) == (record.project, record.name)


@dataclass(frozen=True)
class Pin:
    """What a training set read of one group.

    Args:
        project: Project of the group.
        group: Name of the group.
        version: Number of the version.
        snapshot: Number of the snapshot.
        keys: Join keys, as (name in the group, name in the spine).
        features: Features, as (name in the group, name in the answer).
        ttl: How long its values were good for, in microseconds.
    """

    project: str
    group: str
    version: int
    snapshot: int
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    ttl: int | None


@dataclass(frozen=True)
class Question:
    """What is asked of some lookups.

    Args:
        kind: "spine" (what was known at its moments), "history" or "latest".
        interval: Only rows with an event time within it can be seen.
        date_col: Column of the spine with the moments.
        keep: Columns of the spine to keep beside keys and moment. None: all.
        moment: What counts as now, for "latest".
    """

    kind: str
    span: Interval = field(default_factory=Interval)
    date_col: str = ""
    keep: tuple[str, ...] | None = None
    moment: int = 0


@dataclass(frozen=True)
class TrainingSetRecord:
    """A saved training set.

    Args:
        project: Name of its project.
        name: Its name.
        pins: What it read.
        question: What was asked.
        rows: How many rows the answer has.
        content_hash: Hash of the answer.
        has_rows: Whether the answer was kept.
        created_at: When it was saved.
        folder: Where its spine and rows are, in the home's `datasets`.
    """

    project: str
    name: str
    pins: tuple[Pin, ...]
    question: Question
    rows: int
    content_hash: str
    has_rows: bool
    created_at: int
    folder: str

    @property
    def label(self) -> str:
        """Project and name."""
        return f"{self.project}/{self.name}"


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
            f"{' (pinned)' if lookup.pinned else ''}"
            for lookup in self.lookups
        ]
        parts += [] if self.ttl is None else [f"ttl {timedelta(microseconds=self.ttl)}"]
        return "; ".join(parts + ([f"in {shown(self.target)}"] if self.target else []))

    @property
    def label(self) -> str:
        """Project and name."""
        return f"{self.project}/{self.name}"


@dataclass(frozen=True)
class TokenRecord:
    """A token that was given out; what it is made of is known to its holder only.

    Args:
        id: What it begins with, in the open.
        name: Its name.
        project: Name of the project it opens, or "*".
        rights: What it may do there.
        digest: SHA-256 of the token, in hexadecimal.
        created_at: When it was made.
        revoked_at: When it was revoked.
    """

    id: str
    name: str
    project: str
    rights: tuple[str, ...]
    digest: str
    created_at: int
    revoked_at: int | None
