"""Reading a table's log: its commits, its snapshots, and the files of each snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from seeknal.define.schema import Schema
from seeknal.errors import StoreError
from seeknal.offline.entries import actions_of, check_table, entries, entry_of, latest, one_table, packed
from seeknal.system.delta_log import newest
from seeknal.system.retry import Conflict
from seeknal.system.stored_paths import StoredPath, backing_of, is_shared, plain, readable
from seeknal.values.times import Interval, instant

METADATA = "seeknal"
UNREADABLE = {"deletionVectors", "columnMapping", "typeWidening", "typeWidening-preview"}
"""Delta Lake features under which the rows can no longer be read from the Parquet files alone."""
_SHORT = 32
"""A log with fewer entries than this is replayed entry by entry, which is faster than opening the table with deltalake."""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a snapshot; the bounds of its event times, in microseconds since 1970, are None where unknown."""

    path: str
    size: int
    rows: int
    start: int | None
    end: int | None
    below: int | None = None
    """Only rows with lower numbers belong to the snapshot, since later files may have been compacted into this one; None: all do."""

    @property
    def key(self) -> tuple[str, int | None]:
        """The identity of its rows: files with equal keys have the same rows."""
        return self.path, self.below

    @property
    def _last(self) -> int | None:
        """An upper bound of the event times: other programs truncate the greatest one to whole milliseconds in the log."""
        return self.end if self.end is None or self.end % 1000 else self.end + 999

    def overlaps(self, interval: Interval) -> bool:
        """Return whether the file may hold a row of the interval."""
        too_old = interval.start is not None and self._last is not None and self._last < interval.start
        too_new = interval.end is not None and self.start is not None and self.start > interval.end
        return not (too_old or too_new)

    def has_any(self, instants: np.ndarray) -> bool:
        """Return whether the file may hold a row at one of the instants, which must be sorted."""
        first = 0 if self.start is None else np.searchsorted(instants, self.start)
        end = len(instants) if self._last is None else np.searchsorted(instants, self._last, side="right")
        return bool(first < end)

    def lies_within(self, interval: Interval) -> bool:
        """Return whether the file is known to hold only rows of the interval."""
        after = interval.start is None or (self.start is not None and self.start >= interval.start)
        before = interval.end is None or (self._last is not None and self._last <= interval.end)
        return after and before


@dataclass(frozen=True)
class Commit:
    """The note of one write, stored in the Delta commit itself, so that a crash cannot separate the two."""

    snapshot: int
    version: int
    schema_text: str
    mode: str
    interval: Interval
    written: int
    rows: int
    newest: int | None
    next_row_id: int
    at: int
    rewritten: Mapping[str, Sequence[DataFile]] = field(default_factory=dict)
    """For each older snapshot from whose files this commit erased entities, by its number: the files that replace them."""
    superseded: int = 0
    """Number of written rows that others with the same join keys and event time supersede; see `seeknal.write.writing.Written`."""
    merged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """For each file made by a compaction, by its name: the names of the files that it replaces when older snapshots are read."""
    mark: str = ""
    """The fingerprint of the snapshot's files, in hexadecimal; "" if an earlier release made the commit."""
    hidden: int = 0
    """Number of stored rows of a source that do not count, beside `rows`; see `seeknal.offline.events`."""
    token: str = ""
    """In an object store, what tells this commit from one of another writer with the same content, if the answer to it is lost."""

    @cached_property
    def schema(self) -> Schema:
        """The schema of the version."""
        return Schema.loads(self.schema_text)


@dataclass(frozen=True)
class Rows:
    """The stored rows that a query may see: files of one schema, and intervals of event time.

    Args:
        paths: The files of which all rows belong to the snapshot.
        schema: The schema of all files.
        count: How many rows of the snapshot are in the files, inside the intervals or not.
        spans: The intervals that a row's event time must lie in.
        size: The size of all files, in bytes.
        cut: More files, of which only the rows with numbers below `below` belong to the snapshot.
        below: That number, exclusive.
        has_hidden: Whether some rows of a source do not count, which have negative numbers; see `seeknal.offline.events`.
        held: The lock that protects the files from removal.
    """

    paths: tuple[StoredPath, ...]
    schema: Schema
    count: int
    spans: tuple[Interval, ...] = (Interval(),)
    size: int = 0
    cut: tuple[StoredPath, ...] = ()
    below: int = 0
    has_hidden: bool = False
    held: object = field(default=None, compare=False, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether there are no files."""
        return not (self.paths or self.cut)


_PART, _WORTH_IT = 1_000_000, 4_000_000
"""Minimum number of rows of the latest part, and of a group for it to be cut into parts at all."""


@dataclass(frozen=True)
class Snapshot:
    """A table as it stood after one commit."""

    root: StoredPath
    number: int
    commit: Commit | None
    files: tuple[DataFile, ...]
    table: DeltaTable | None = field(default=None, compare=False, repr=False)
    """The open Delta table that it was read from, which a commit reuses; None if the log was replayed."""
    settings: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """The properties of the table."""
    mark: bytes | None = None
    """The fingerprint that it had before its files were compacted away; None: compute it from `files`."""
    held: object = field(default=None, compare=False, repr=False)
    """The lock that protects its files from removal while this object exists."""
    identity: str = field(default="", compare=False, repr=False)
    """The identity of its table; see `seeknal.offline.entries.table_id`."""

    @property
    def rows(self) -> int:
        """The number of its rows, without hidden ones."""
        return sum(file.rows for file in self.files) - (self.commit.hidden if self.commit else 0)

    @property
    def has_hidden(self) -> bool:
        """Whether some of its stored rows do not count."""
        return bool(self.commit and self.commit.hidden)

    @property
    def label(self) -> str:
        """Project and name of the group, as "project/name"."""
        return label_of(self.root)

    @property
    def is_whole(self) -> bool:
        """Whether all of its files still exist."""
        return not backing_of(self.root).missing(self.root, [file.path for file in self.files])

    @property
    def fingerprint(self) -> bytes:
        """A hash that identifies its set of files."""
        return self.mark or fingerprint_of(self.files)

    def within(self, schema: Schema, *spans: Interval) -> Rows:
        """Return the rows whose event time lies in one of the intervals; without intervals, all rows.

        The largest file comes first, because DuckDB estimates the size of the others from it. It then knows that the rows outnumber
        a small spine.
        """
        spans = spans or (Interval(),)
        files = [file for file in self.files if any(file.overlaps(interval) for interval in spans)]
        files.sort(key=lambda file: file.rows, reverse=True)
        count, size = sum(file.rows for file in files), sum(file.size for file in files)
        whole, cut = (
            tuple(self.root / file.path for file in files if (file.below is not None) == is_cut)
            for is_cut in (False, True)
        )
        # All files with a bound have the same one: the next row number after the snapshot.
        below = max((file.below for file in files if file.below is not None), default=0)
        return Rows(whole, schema, count, spans, size, cut, below, self.has_hidden, self.held)

    def parts(self, schema: Schema, interval: Interval, first: int) -> list[Rows]:
        """Cut the rows of an interval into parts, the latest first, each about as large as all those after it in time together.

        A search for the last row at or before each moment finds most of its rows in the first parts, and reads the others only for
        moments that are still open. Parts are cut where files begin; where files overlap in time, a part reads some of them in full.

        For example, with eight monthly files of a million rows each, January to August, and moments from mid-August on:

            part   months              rows
            1      August              1 million
            2      July                1 million
            3      May and June        2 million
            4      January to April    4 million

        Args:
            schema: The schema of the rows.
            interval: The interval of event time that counts.
            first: The first of the moments, in microseconds since 1970: no cut is made at or after it.
        """
        files = sorted(
            (file for file in self.files if file.overlaps(interval)), key=lambda file: file.start or 0, reverse=True
        )
        # A file without bounds could have rows at any time, so then nothing can be cut.
        is_worth_it = sum(file.rows for file in files) >= _WORTH_IT and all(file.start is not None for file in files)
        found, end, rows, seen = [], interval.end, 0, 0
        for file in files if is_worth_it else ():
            start = file.start or 0
            if end is not None and start > end:
                continue  # it begins at the same time as the part cut last, and so belongs to that part
            rows += file.rows
            if rows >= max(seen, _PART) and start < first and (interval.start is None or start > interval.start):
                found.append(self.within(schema, Interval(start, end)))
                end, rows, seen = start - 1, 0, seen + rows
        rest = self.within(schema, Interval(interval.start, end))
        return found if rest.is_empty else [*found, rest]


def fingerprint_of(files: Iterable[DataFile]) -> bytes:
    """Return a hash of the paths of the files, in any order."""
    # Each file has a random name, which never refers to other contents.
    return blake2b(" ".join(sorted(file.path for file in files)).encode(), digest_size=16).digest()


def label_of(root: StoredPath) -> str:
    """Return project and name of the group whose table is in a folder, as "project/name"."""
    return backing_of(root).label(root)


def read_snapshot(root: StoredPath, number: int | None = None, files: tuple[DataFile, ...] | None = None) -> Snapshot:
    """Read a snapshot from the log of a table.

    Args:
        root: The folder of the table.
        number: The number of the snapshot; None: the newest.
        files: The files that replace those of the snapshot since entities were erased from it; None if none were.

    Raises:
        Conflict: The table was deleted meanwhile.
        StoreError: The log cannot be read, or another program turned on a feature of Delta Lake that Seeknal cannot read.
    """
    with one_table(root) as identity:
        # A deletion removes the first entry first. The others may still be read, and log entries are kept in memory.
        if not identity and is_shared(root):
            raise Conflict(f"The table {root} was deleted meanwhile, or is just being made.")
        if number is None:
            found = _opened(root)
        else:
            found = _as_of(root, number)
            found = _put_together(found if files is None else replace(found, files=files))
    # The entries could come from two tables, of which one was deleted and one created while they were read.
    check_table(root, identity)
    return replace(found, identity=identity)


def _opened(root: StoredPath, number: int | None = None) -> Snapshot:
    """Read a snapshot: by replaying the log if it is short and complete, else with deltalake."""
    last = newest(root, entries_only=True) if number is None else number
    if 0 <= last < _SHORT:
        with suppress(StoreError):  # if an entry is missing, deltalake may still start from a checkpoint
            return _by_entries(root, last)
    try:
        address, options = backing_of(root).address(root)
        table = DeltaTable(address, version=number, storage_options=options)
        _refuse_features(root, table.protocol().reader_features or ())
        commit = newest_commit(root, table.version())
        times = commit.schema.event_time.name if commit else ""
        files = tuple(_files(root, table, times))
        return Snapshot(root, table.version(), commit, files, table, table.metadata().configuration)
    except DeltaError as error:
        raise StoreError(f"The offline table {root} cannot be read: {plain(error)}") from error


def _as_of(root: StoredPath, number: int) -> Snapshot:
    """Read a snapshot by its number, whether its entry is packed or not."""
    if number > packed(root):
        try:
            return _opened(root, number)
        except StoreError:
            if number > packed(root):  # otherwise another process packed the entry meanwhile, and the pack has it
                raise
    return _by_entries(root, number)


def _by_entries(root: StoredPath, number: int) -> Snapshot:
    """Read a snapshot by replaying all entries up to it, packed ones included."""
    live: dict[str, dict[str, Any]] = {}
    commit: Commit | None = None
    settings: dict[str, str] = {}
    features: list[str] = []
    for entry, actions in entries(root, 0, number):
        _apply(actions, live)
        commit = commit_in(actions, entry) or commit  # an entry of another program has no note
        for action in actions:
            settings = (action.get("metaData") or {}).get("configuration", settings)
            features = (action.get("protocol") or {}).get("readerFeatures", features)
    _refuse_features(root, features or ())
    times = commit.schema.event_time.name if commit else ""
    files = tuple(_file_of(root, path, add, times) for path, add in live.items())
    return Snapshot(root, number, commit, files, settings=settings or {})


def _refuse_features(root: StoredPath, features: Iterable[str]) -> None:
    if foreign := UNREADABLE & set(features):
        raise StoreError(
            f"Another program turned on {', '.join(sorted(foreign))} in {root}, which Seeknal cannot read and Delta Lake "
            "cannot turn off. Read the rows with that program, and write them to a new feature group."
        )


def _apply(actions: Iterable[dict[str, Any]], live: dict[str, dict[str, Any]]) -> None:
    """Apply the actions of one entry to the files of a snapshot, in place; `live` has an add action by the path of each file."""
    for action in actions:
        if gone := action.get("remove"):
            live.pop(unquote(gone["path"]), None)
        if new := action.get("add"):
            live[unquote(new["path"])] = new


def _file_of(root: StoredPath, path: str, add: Mapping[str, Any], event_time: str) -> DataFile:
    stats = msgspec.json.decode(add.get("stats") or "{}")
    start, end = (stats.get(side, {}).get(event_time) for side in ("minValues", "maxValues"))
    bounds = (None if bound is None else instant(bound) for bound in (start, end))
    return DataFile(path, add["size"], _count(root / path, stats.get("numRecords")), *bounds)


def _count(file: StoredPath, recorded: int | None) -> int:
    # Other programs may commit a file without its row count.
    return recorded if recorded is not None else int(pq.read_metadata(readable([file], [])[0]).num_rows)


def _put_together(snapshot: Snapshot) -> Snapshot:
    """Replace files of a snapshot that were compacted away by the compacted file, restricted to the snapshot's rows.

    Only files that hold nothing but added rows are compacted in this way (see `seeknal.offline.files`), so of the compacted file the
    snapshot has the rows with numbers below its `next_row_id`. For example, for snapshot 2:

        commit   files                       rows        next_row_id
        1        adds a                      0 to 9      10
        2        adds b                      10 to 14    15
        3        adds c                      15 to 19    20
        4        compacts a, b and c to d    0 to 19     20

    Its files a and b are replaced by d with `below=15`, which leaves out the rows of c. The fingerprint stays that of a and b.
    """
    into = _merged(snapshot.root, snapshot.number + 1, latest(snapshot.root))
    if snapshot.commit is None or not any(file.path in into for file in snapshot.files):
        return snapshot
    groups: dict[tuple[str, int], list[DataFile]] = {}
    for file in snapshot.files:
        groups.setdefault(into.get(file.path, (file.path, file.size)), []).append(file)
    below = snapshot.commit.next_row_id
    files = tuple(
        some[0] if some[0].path == path else _joined(path, size, below, some) for (path, size), some in groups.items()
    )
    return replace(snapshot, files=files, mark=snapshot.fingerprint)


def _joined(path: str, size: int, below: int, files: Sequence[DataFile]) -> DataFile:
    starts, ends = [file.start for file in files], [file.end for file in files]
    start = None if None in starts else min(start for start in starts if start is not None)
    end = None if None in ends else max(end for end in ends if end is not None)
    # The row count is that of the snapshot, which is less than the file's. The size is that of the file, which is read in full.
    return DataFile(path, size, sum(file.rows for file in files), start, end, below)


def _merged(root: StoredPath, first: int, last: int) -> dict[str, tuple[str, int]]:
    """Return, by name of a file that was compacted away, path and size of the file that has its rows after the entry `last`."""
    into: dict[str, tuple[str, int]] = {}
    for number, actions in entries(root, first, last):
        merged = note.merged if (note := commit_in(actions, number)) else {}
        sizes = {unquote(new["path"]): new["size"] for action in actions if (new := action.get("add"))}
        for path, names in merged.items():
            into |= dict.fromkeys(names, (path, sizes[path]))
    # A compacted file may be compacted again, by a later entry. Going backwards, that later step is already resolved.
    for name, (path, size) in reversed(into.items()):
        into[name] = into.get(path, (path, size))
    return into


def newest_commit(root: StoredPath, number: int) -> Commit | None:
    """Return Seeknal's newest commit with at most this number; None if there is none."""
    return next(filter(None, (commit_in(actions_of(root, n), n) for n in range(number, -1, -1))), None)


def read_file_lists(root: StoredPath, wanted: Mapping[int, Sequence[DataFile] | None]) -> Iterator[Snapshot]:
    """Yield several snapshots in one pass through the log, with only the paths and sizes of their files.

    Args:
        root: The folder of the table.
        wanted: The numbers of the snapshots, each with the files that replace its own since entities were erased from it; None if
            none were.
    """
    last = max(wanted, default=-1)
    into = _merged(root, 0, latest(root)) if wanted else {}
    live: dict[str, dict[str, Any]] = {}
    for number, actions in entries(root, 0, last):
        _apply(actions, live)
        if number not in wanted:
            continue
        files = wanted[number]
        # Files that a later commit compacted away are named by the file that has their rows now.
        sizes = (
            {file.path: file.size for file in files}
            if files is not None
            else {p: new["size"] for p, new in live.items()}
        )
        now: dict[str, int] = dict(into.get(path, (path, size)) for path, size in sizes.items())
        yield Snapshot(root, number, None, tuple(DataFile(path, size, 0, None, None) for path, size in now.items()))


def read_commits(root: StoredPath, after: int) -> list[Commit]:
    """List Seeknal's commits after a snapshot, oldest first."""
    found = (commit_in(actions, number) for number, actions in entries(root, after + 1, latest(root)))
    return [commit for commit in found if commit]


def mentioned_files(root: StoredPath, last: int | None = None) -> set[str]:
    """Return the names of all files that any commit ever added, up to a snapshot; None: the newest."""
    found: set[str] = set()
    for number, actions in entries(root, 0, latest(root) if last is None else last):
        found |= {unquote(action["add"]["path"]) for action in actions if "add" in action}
        if commit := commit_in(actions, number):
            found |= {file.path for files in commit.rewritten.values() for file in files}
    return found


def mark_of(root: StoredPath, number: int) -> bytes | None:
    """Return the fingerprint that Seeknal noted in a snapshot's commit; None if there is none."""
    entry = entry_of(root, number)
    try:
        found = entry.stat()
    except OSError:
        return _marked(root, number)
    # Inode and time are in the cache key, so that a table that was deleted and made again at the same path is read again.
    return _marked(root, number, found.st_ino, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _marked(root: StoredPath, number: int, *_state: int) -> bytes | None:
    commit = commit_in(actions_of(root, number), number)
    return bytes.fromhex(commit.mark) if commit and commit.mark else None


def noted(root: StoredPath, number: int) -> str | None:
    """Return Seeknal's note in the log entry of a snapshot, as JSON text; None if another program made the commit."""
    return note_in(actions_of(root, number))


def note_in(actions: Iterable[dict[str, Any]]) -> str | None:
    """Return Seeknal's note among the actions of a log entry, as JSON text; None if another program made the commit."""
    return next(filter(None, (action.get("commitInfo", {}).get(METADATA) for action in actions)), None)


def commit_in(actions: Iterable[dict[str, Any]], number: int) -> Commit | None:
    """Return Seeknal's note among the actions of the log entry of this number; None if another program made the commit."""
    stored = note_in(actions)
    # The note has no number: it is that of the entry.
    return msgspec.convert({**msgspec.json.decode(stored), "snapshot": number}, Commit) if stored else None


def _files(root: StoredPath, table: DeltaTable, event_time: str) -> Iterator[DataFile]:
    adds = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
    bounds = [f"{side}.{event_time}" for side in ("min", "max")]
    starts, ends = (
        adds[name].cast(pa.int64()).to_pylist() if name in adds.column_names else [None] * len(adds) for name in bounds
    )
    columns = (adds[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    for encoded, size, rows, start, end in zip(*columns, starts, ends, strict=True):
        path = unquote(encoded)  # deltalake returns paths URL-encoded, but its actions take them decoded
        yield DataFile(path, size, _count(root / path, rows), start, end)
