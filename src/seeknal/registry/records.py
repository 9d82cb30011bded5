"""The records that the registry returns. Their times are in microseconds since 1970, in UTC."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from seeknal.define.event_group import EventGroup
from seeknal.define.feature_group import FeatureGroup, FeatureLookup
from seeknal.define.windowed_group import WindowedGroup
from seeknal.system.urls import shown
from seeknal.values.display import Shown
from seeknal.values.times import Interval, moment_of

if TYPE_CHECKING:
    from seeknal.define.schema import Schema
    from seeknal.offline import DataFile
    from seeknal.online import Codec
    from seeknal.registry.view_content import ViewContent

WRITES = ("overwrite", "append", "merge")
"""The modes of snapshots that write a caller's rows; the other modes only rearrange stored rows."""
NEW_ROWS = (*WRITES, "adopt")
"""The modes of snapshots with new rows, including rows that another program wrote."""


@dataclass(frozen=True)
class GroupRecord:
    """A registered group: one whose rows are stored, as those of a feature group or an event source, or a windowed group."""

    id: int
    group: FeatureGroup | WindowedGroup
    created_at: int

    @property
    def windowed(self) -> WindowedGroup | None:
        """The definition of a windowed group; None for a group whose rows are stored."""
        return self.group if isinstance(self.group, WindowedGroup) else None

    def ttl_in(self, table: OnlineTableRecord, own: int | None) -> int | None:
        """Return how long the rows of the group are valid in a table, in microseconds; None: forever. Windows end by themselves.

        Args:
            table: The table. Its ttl, if it has one, overrides the group's.
            own: The group's ttl.
        """
        if self.windowed:
            return None
        return own if table.ttl is None else table.ttl

    @property
    def kind(self) -> str:
        """What kind of group it is, in words."""
        return "windowed group" if self.windowed else "feature group" if self.event_id is None else "event source"

    @property
    def event_id(self) -> tuple[str, ...] | None:
        """The columns that identify an event of an event source; None for other groups."""
        return self.group.event_id if isinstance(self.group, EventGroup) else None

    @property
    def stream(self) -> str:
        """The stream of the push log that belongs to it, and to no later group of its name."""
        return f"{self.id}.{self.created_at}"

    @property
    def project(self) -> str:
        """Name of the project."""
        return self.group.project or ""  # a registered group has one

    @property
    def name(self) -> str:
        """Name of the group."""
        return self.group.name

    @property
    def label(self) -> str:
        """Project and name."""
        return f"{self.project}/{self.name}"


@dataclass(frozen=True)
class Version(Shown):
    """One schema of a group, and the last write that was made with it."""

    number: int
    schema_text: str = field(repr=False)
    created_at: int
    snapshot: int
    rows: int
    written_at: int
    is_current: bool
    files: tuple[DataFile, ...] | None = field(default=None, repr=False)
    """The files that replaced those of the snapshot when entities were erased from it; None: it has its own."""

    _moments = {"created_at": "created", "written_at": "written"}  # noqa: RUF012 - a ClassVar in the base class

    @property
    def created(self) -> datetime:
        """When the version was first written, in UTC."""
        return moment_of(self.created_at)

    @property
    def written(self) -> datetime:
        """When the version was last written, in UTC."""
        return moment_of(self.written_at)

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """Name, type and role of each column, without loading Arrow."""
        if not self.schema_text.startswith("{"):  # early releases wrote the Arrow schema alone
            return self.schema.describe()
        return [(name, kind, role) for name, kind, role in json.loads(self.schema_text)["columns"]]

    @cached_property
    def schema(self) -> Schema:
        """The schema; this loads Arrow."""
        from seeknal.define.schema import Schema

        return Schema.loads(self.schema_text)

    @cached_property
    def codec(self) -> Codec:
        """The encoding of its entities in the online store; this loads Arrow."""
        from seeknal.online import Codec

        return Codec(self.schema)


@dataclass(frozen=True)
class DefinitionRecord:
    """One version of the definition of a windowed group. Its text is that of `WindowedGroup.text`."""

    number: int
    text: str
    created_at: int
    is_current: bool


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
    """The files that replaced its own when entities were erased from it; None: it has its own."""


@dataclass(frozen=True)
class Load:
    """An interval of a version that was requested for an online store. `snapshot`, `rows`, `seconds` and `at` are None until it is loaded."""

    id: int
    version: int
    target: str
    interval: Interval
    snapshot: int | None
    rows: int | None
    seconds: float | None
    at: int | None


@dataclass(frozen=True)
class GroupState:
    """What the registry knew of a group at one moment.

    Args:
        record: The group.
        versions: Its versions, oldest first.
        last_snapshot: Number of its newest snapshot; -1 if there is none.
        loads: The loads of all its versions, oldest first.
        tables: The online tables that use it, ordered by project and name.
        erased: When an entity was last erased from it, in microseconds since 1970; 0 if none was.
        snapshots: The writes to it, oldest first, from the snapshot on that the caller requested; empty without such a request.
        windowed: The windowed groups that are computed from it.
        table: The identity of its offline table, read before the rest; "" if there was none, or if the caller did not request it.
    """

    record: GroupRecord
    versions: tuple[Version, ...]
    last_snapshot: int
    loads: tuple[Load, ...]
    tables: tuple[OnlineTableRecord, ...]
    erased: int
    snapshots: tuple[SnapshotRecord, ...] = ()
    windowed: tuple[GroupRecord, ...] = ()
    table: str = ""

    @property
    def current(self) -> Version | None:
        """The current version; None if nothing was written to the group yet."""
        return next((version for version in self.versions if version.is_current), None)


@dataclass(frozen=True)
class PinnedLookup:
    """A lookup that is bound to a version of its group: what an online table serves, or what a training set read.

    Args:
        project: Project of the group.
        group: Name of the group.
        version: Number of the version.
        keys: Join keys, as (name in the group, name in a spine or request).
        features: Features, as (name in the group, name in the result).
        pinned: For an online table, whether it stays at the version, because the caller named one. Otherwise it follows the
            group to later versions. None: the table was created before this was recorded; see `seeknal.load.feeds`.
        whole: For an online table, whether it takes all features of each version that it moves to. The table that loads
            create automatically does.
        snapshot: For a training set, the number of the snapshot that it read. None: the version's last one.
        ttl: For a training set, how long the group's values were valid, in microseconds; None: forever.
        ahead: How long after each moment it is read, in microseconds: the window of a label ends then.
    """

    project: str
    group: str
    version: int
    keys: tuple[tuple[str, str], ...]
    features: tuple[tuple[str, str], ...]
    pinned: bool | None = None
    whole: bool = False
    snapshot: int | None = None
    ttl: int | None = None
    ahead: int = 0

    @property
    def space(self) -> str:
        """The space of the version's rows in the online store."""
        return space_of(self.project, self.group, self.version)

    @property
    def lookup(self) -> FeatureLookup:
        """The lookup of these features of this version, under these names."""
        names = [own for own, _ in self.features]
        rename = dict((*self.keys, *self.features))
        return FeatureLookup(f"{self.project}/{self.group}", names, rename=rename, version=self.version)

    def is_of(self, record: GroupRecord) -> bool:
        """Return whether it takes features from a group."""
        return (self.project, self.group) == (record.project, record.name)


@dataclass(frozen=True)
class Question:
    """A request for the features of some lookups.

    Args:
        kind: "spine" (the features known at the moments of a spine), "history" or "latest".
        span: The interval of event time; only rows within it are visible.
        date_col: Column of the spine with the moments.
        keep: Columns of the spine to keep besides keys and moment. None: all.
        moment: The time that counts as now, for "latest".
    """

    kind: str
    span: Interval = field(default_factory=Interval)
    date_col: str = ""
    keep: tuple[str, ...] | None = None
    moment: int = 0


@dataclass(frozen=True)
class ViewUse:
    """What a version of a feature view made of a training set.

    Args:
        name: The view.
        version: The number of its version.
        split: The split, as `seeknal.define.splits` writes it; None: the rows are in one part.
        until: The time up to which the events of the label are complete, in microseconds since 1970; None: there is no label.
        unfinished: How many rows have a label's window that ends later.
        kind: The kind of frame that the spine was.
    """

    name: str
    version: int
    split: dict[str, object] | None = None
    until: int | None = None
    unfinished: int = 0
    kind: str = "pandas"


@dataclass(frozen=True)
class TrainingSetRecord:
    """A saved training set.

    Args:
        project: Name of its project.
        name: Its name.
        pins: What it read from each group.
        question: The request.
        rows: How many rows the result has.
        content_hash: Hash of the result.
        has_rows: Whether the rows of the result were kept.
        created_at: When it was saved.
        folder: The folder with its spine and rows, in the home's `datasets`.
        view: The version of a feature view that it belongs to, and what that view made of it; None: it belongs to none.
    """

    project: str
    name: str
    pins: tuple[PinnedLookup, ...]
    question: Question
    rows: int
    content_hash: str
    has_rows: bool
    created_at: int
    folder: str
    view: ViewUse | None = None

    @property
    def label(self) -> str:
        """Project and name."""
        return f"{self.project}/{self.name}"


def space_of(project: str, group: str, version: int) -> str:
    """Return the name of the space with a version's rows in the online store."""
    return f"{project}/{group}/{version}"


@dataclass(frozen=True)
class OnlineTableRecord:
    """A registered online table.

    Args:
        project: Name of its project.
        name: Its name. A table that serves a version of a feature view is named after both: "next_basket@3".
        lookups: What it serves of each group.
        ttl: How long stored values are valid, in microseconds, in place of the groups' ttl; None: the groups' applies.
        target: The name of its online store.
        created_at: When it was registered.
        view: The number of the version of the feature view that it serves; None: it serves none.
        log: The share of its answers that are logged; None: none.
    """

    project: str
    name: str
    lookups: tuple[PinnedLookup, ...]
    ttl: int | None
    target: str
    created_at: int
    view: int | None = None
    log: float | None = None

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
class ViewRecord(Shown):
    """One version of a feature view, with what is said about the view itself.

    Args:
        project: Name of its project.
        name: Name of the view.
        number: Number of the version.
        text: What the version is, as `seeknal.registry.view_content` writes it.
        created_at: When it was registered.
        retired_at: When it was retired; None: it was not.
        description: A sentence for readers.
        owner: Who is responsible for the view.
        tags: Words to find it by.
    """

    project: str
    name: str
    number: int
    text: str = field(repr=False)
    created_at: int
    retired_at: int | None = None
    description: str | None = None
    owner: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Project, name and version, as in "shop/next_basket@3"."""
        return f"{self.project}/{self.name}@{self.number}"

    @property
    def table(self) -> str:
        """The name of the online table that serves the version."""
        return f"{self.name}@{self.number}"

    @property
    def log(self) -> str:
        """The name of the event source with the logged answers of the version."""
        return f"{self.name}_v{self.number}_log"

    @property
    def log_description(self) -> str:
        """The description of that event source, which tells it from another group of its name."""
        return f"The logged answers of the feature view {self.label}."

    @cached_property
    def content(self) -> ViewContent:
        """What the version is."""
        from seeknal.registry.view_content import ViewContent

        return ViewContent.loads(self.text)


@dataclass(frozen=True)
class ModelRecord(Shown):
    """A model that registered itself with the training set of a feature view.

    Args:
        project: Name of the view's project.
        view: Name of the view.
        name: Name of the model.
        version: Number of the version of the view.
        training_set: Name of the training set.
        uri: Where the model is, such as "models:/next_basket/4"; None: not said.
        created_at: When it was registered.
    """

    project: str
    view: str
    name: str
    version: int
    training_set: str
    uri: str | None
    created_at: int


@dataclass(frozen=True)
class TokenRecord:
    """An issued token. Its secret is known to its holder only.

    Args:
        id: The public part of the token, by which the server finds it.
        name: Its name.
        project: Name of the project that it gives access to; "*" for all.
        rights: The rights that it grants there; see `seeknal.registry.tokens.RIGHTS`.
        digest: SHA-256 of the token, in hexadecimal.
        created_at: When it was created.
        revoked_at: When it was revoked; None: it is valid.
    """

    id: str
    name: str
    project: str
    rights: tuple[str, ...]
    digest: str
    created_at: int
    revoked_at: int | None
