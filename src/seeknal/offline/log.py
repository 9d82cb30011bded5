"""What a table's log says: its commits, its snapshots, and the files each snapshot is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
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
from seeknal.offline.entries import actions_of, entries, entry_of, latest, packed
from seeknal.system.delta_log import newest
from seeknal.values.times import Interval, instant

METADATA = "seeknal"
UNREADABLE = {"deletionVectors", "columnMapping", "typeWidening", "typeWidening-preview"}
"""Features of Delta Lake by which a Parquet file no longer says by itself what its rows are."""
_SHORT = 32
"""A log of fewer entries is read entry by entry: that is quicker than to let deltalake open the table."""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a snapshot; the bounds of its event times are None where unknown."""

    path: str
    size: int
    rows: int
    start: int | None
    end: int | None
    below: int | None = None
    """Only rows with lesser numbers count, of those that other files were put together with to this one; None: all rows."""

    @property
    def key(self) -> tuple[str, int | None]:
        """What tells its rows from those of other files."""
        return self.path, self.below

    @property
    def _last(self) -> int | None:
        """An instant that no row is after: other programs cut the last event time to whole milliseconds."""
        return self.end if self.end is None or self.end % 1000 else self.end + 999

    def overlaps(self, interval: Interval) -> bool:
        """Whether it may hold a row of the span."""
        too_old = interval.start is not None and self._last is not None and self._last < interval.start
        too_new = interval.end is not None and self.start is not None and self.start > interval.end
        return not (too_old or too_new)

    def has_any(self, instants: np.ndarray) -> bool:
        """Whether it may hold a row of some instants, which are sorted."""
        first = 0 if self.start is None else np.searchsorted(instants, self.start)
        end = len(instants) if self._last is None else np.searchsorted(instants, self._last, side="right")
        return bool(first < end)

    def lies_within(self, interval: Interval) -> bool:
        """Whether it holds nothing but rows of the span."""
        after = interval.start is None or (self.start is not None and self.start >= interval.start)
        before = interval.end is None or (self._last is not None and self._last <= interval.end)
        return after and before


@dataclass(frozen=True)
class Commit:
    """What one write did. It travels in the commit itself, so that no crash can part the two."""

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
    """The files that now stand for older snapshots, by number: entities were erased from them."""
    superseded: int = 0
    """How many of the rows written are hidden by others of the same join keys and event time; see `seeknal.write.writing.Written`."""
    merged: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The files that were put together, by the name of the one file that has their rows: older snapshots are read from it."""
    mark: str = ""
    """The fingerprint of the snapshot's files, in hexadecimal; "" if an earlier release made the commit."""

    @cached_property
    def schema(self) -> Schema:
        """The schema of the version."""
        return Schema.loads(self.schema_text)


@dataclass(frozen=True)
class Rows:
    """Stored rows that a query may see: files of one schema, and the spans of event time that count.

    Args:
        paths: The files.
        schema: Their schema.
        count: How many rows they have.
        spans: The spans.
        size: How large they are, in bytes.
        cut: More files, of which only rows with numbers below `below` count.
        below: That number.
        held: What keeps the files.
    """

    paths: tuple[str, ...]
    schema: Schema
    count: int
    spans: tuple[Interval, ...] = (Interval(),)
    size: int = 0
    cut: tuple[str, ...] = ()
    below: int = 0
    held: object = field(default=None, compare=False, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether there are no files."""
        return not (self.paths or self.cut)


_PART, _WORTH_IT = 1_000_000, 4_000_000
"""Rows of the latest part at least, and those of which a group is cut into parts at all."""


@dataclass(frozen=True)
class Snapshot:
    """A table as it stood after one write."""

    root: Path
    number: int
    commit: Commit | None
    files: tuple[DataFile, ...]
    table: DeltaTable | None = field(default=None, compare=False, repr=False)
    """The open table, if it was read from one; a commit takes it on."""
    settings: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    """The properties of the table."""
    mark: bytes | None = None
    """Its fingerprint before its files were put together; None: that of its files."""
    held: object = field(default=None, compare=False, repr=False)
    """What keeps its files for as long as it is there."""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(file.rows for file in self.files)

    @property
    def label(self) -> str:
        """Project and name of the group."""
        return label_of(self.root)

    @property
    def is_whole(self) -> bool:
        """Whether all of its files are still there."""
        return all((self.root / file.path).exists() for file in self.files)

    @property
    def fingerprint(self) -> bytes:
        """What tells its files from those of others."""
        return self.mark or fingerprint_of(self.files)

    def within(self, schema: Schema, *spans: Interval) -> Rows:
        """Give the rows whose event time lies in one of the spans; no span: all rows.

        The largest file comes first: DuckDB takes the others to be as large, and so the rows to be more than a small spine.
        """
        spans = spans or (Interval(),)
        files = [file for file in self.files if any(file.overlaps(interval) for interval in spans)]
        files.sort(key=lambda file: file.rows, reverse=True)
        count, size = sum(file.rows for file in files), sum(file.size for file in files)
        whole, cut = (
            tuple(str(self.root / file.path) for file in files if (file.below is not None) == is_cut)
            for is_cut in (False, True)
        )
        below = max((file.below for file in files if file.below is not None), default=0)
        return Rows(whole, schema, count, spans, size, cut, below, self.held)

    def parts(self, schema: Schema, interval: Interval, first: int) -> list[Rows]:
        """Give the rows of a span in parts, each before the one before it and about as large as all after it together.

        Whoever looks for the last rows at or before some moments finds most of them in the first parts, and need not read the
        others for those. Parts are cut where files begin; where files overlap in time, a part reads some of them in full.

        Args:
            schema: Their schema.
            interval: The span of event time that counts.
            first: The first of the moments, in microseconds since 1970: no part begins later.
        """
        files = sorted(
            (file for file in self.files if file.overlaps(interval)), key=lambda file: file.start or 0, reverse=True
        )
        is_worth_it = sum(file.rows for file in files) >= _WORTH_IT and all(file.start is not None for file in files)
        found, end, rows, seen = [], interval.end, 0, 0
        for file in files if is_worth_it else ():
            start = file.start or 0
            if end is not None and start > end:
                continue  # it begins where the part before does, and so lies in that part
            rows += file.rows
            if rows >= max(seen, _PART) and start < first and (interval.start is None or start > interval.start):
                found.append(self.within(schema, Interval(start, end)))
                end, rows, seen = start - 1, 0, seen + rows
        rest = self.within(schema, Interval(interval.start, end))
        return found if rest.is_empty else [*found, rest]


def fingerprint_of(files: Iterable[DataFile]) -> bytes:
    """Return what tells files from others."""
    return blake2b(" ".join(sorted(file.path for file in files)).encode(), digest_size=16).digest()


def label_of(root: Path) -> str:
    """Return project and name of the group whose table is in a folder."""
    return f"{root.parent.name}/{root.name}"


def read_snapshot(root: Path, number: int | None = None, files: tuple[DataFile, ...] | None = None) -> Snapshot:
    """Read a table's log up to a snapshot, or to its end.

    Args:
        root: The table.
        number: The snapshot; the newest without it.
        files: What stands for the snapshot since entities were erased from it, if any were.

    Raises:
        StoreError: Another program wrote the table in a way that cannot be read here.
    """
    if number is None:
        return _opened(root)
    found = _as_of(root, number)
    return _put_together(found if files is None else replace(found, files=files))


def _opened(root: Path, number: int | None = None) -> Snapshot:
    """Read a snapshot: by its entries, if all are there and these are few, else by deltalake."""
    last = newest(root, entries_only=True) if number is None else number
    if 0 <= last < _SHORT:
        with suppress(StoreError):
            return _by_entries(root, last)
    table = _open(root, number)
    _refuse_features(root, table.protocol().reader_features or ())
    commit = newest_commit(root, table.version())
    times = commit.schema.event_time.name if commit else ""
    files = tuple(_files(root, table, times))
    return Snapshot(root, table.version(), commit, files, table, table.metadata().configuration)


def _as_of(root: Path, number: int) -> Snapshot:
    """Read a snapshot by its number, also if its entry is packed."""
    if number > packed(root):
        try:
            return _opened(root, number)
        except StoreError:
            if number > packed(root):
                raise
    return _by_entries(root, number)


def _by_entries(root: Path, number: int) -> Snapshot:
    """Read a snapshot by all entries up to it."""
    live: dict[str, dict[str, Any]] = {}
    commit: Commit | None = None
    settings: dict[str, str] = {}
    features: list[str] = []
    for n, actions in entries(root, 0, number):
        _apply(actions, live)
        commit = commit_in(actions, n) or commit
        for action in actions:
            settings = (action.get("metaData") or {}).get("configuration", settings)
            features = (action.get("protocol") or {}).get("readerFeatures", features)
    _refuse_features(root, features or ())
    times = commit.schema.event_time.name if commit else ""
    files = tuple(_file_of(root, path, add, times) for path, add in live.items())
    return Snapshot(root, number, commit, files, settings=settings or {})


def _refuse_features(root: Path, features: Iterable[str]) -> None:
    if foreign := UNREADABLE & set(features):
        raise StoreError(
            f"Another program turned on {', '.join(sorted(foreign))} in {root}, which Seeknal cannot read and Delta Lake "
            "cannot turn off. Read the rows with that program, and write them to a new feature group."
        )


def _apply(actions: Iterable[dict[str, Any]], live: dict[str, dict[str, Any]]) -> None:
    """Go on from the files of a snapshot to those of the next."""
    for action in actions:
        if gone := action.get("remove"):
            live.pop(unquote(gone["path"]), None)
        if new := action.get("add"):
            live[unquote(new["path"])] = new


def _file_of(root: Path, path: str, add: Mapping[str, Any], event_time: str) -> DataFile:
    stats = msgspec.json.decode(add.get("stats") or "{}")
    start, end = (stats.get(side, {}).get(event_time) for side in ("minValues", "maxValues"))
    bounds = (None if bound is None else instant(bound) for bound in (start, end))
    return DataFile(path, add["size"], _count(root / path, stats.get("numRecords")), *bounds)


def _count(file: Path, told: int | None) -> int:
    return told if told is not None else int(pq.read_metadata(file).num_rows)


def _put_together(snapshot: Snapshot) -> Snapshot:
    """Read a snapshot from the files that its own were put into later, if any were: of these, the rows that it has.

    Only files of rows that were added, none of which was ever rewritten, are put together so; see `seeknal.offline.layout`.
    So the rows that a snapshot has of them are those with numbers below the first that was written after it.
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
    return DataFile(path, size, sum(file.rows for file in files), start, end, below)


def _merged(root: Path, first: int, last: int) -> dict[str, tuple[str, int]]:
    """Tell into which file, and of what size, files were put together by the last of some entries."""
    into: dict[str, tuple[str, int]] = {}
    for number, actions in entries(root, first, last):
        merged = note.merged if (note := commit_in(actions, number)) else {}
        sizes = {unquote(new["path"]): new["size"] for action in actions if (new := action.get("add"))}
        for path, names in merged.items():
            into |= dict.fromkeys(names, (path, sizes[path]))
    for name, (path, size) in reversed(into.items()):  # what was put together again later comes later
        into[name] = into.get(path, (path, size))
    return into


def newest_commit(root: Path, number: int) -> Commit | None:
    """Return the newest of Seeknal's own commits up to a snapshot; None if there is none."""
    return next(filter(None, (commit_in(actions_of(root, n), n) for n in range(number, -1, -1))), None)


def read_file_lists(root: Path, wanted: Mapping[int, Sequence[DataFile] | None]) -> Iterator[Snapshot]:
    """Give several snapshots by one pass through the log: only paths and sizes of their files, and nothing else.

    Args:
        root: The table.
        wanted: Their numbers, each with what stands for it since entities were erased from it, if any were.
    """
    last = max(wanted, default=-1)
    into = _merged(root, 0, latest(root)) if wanted else {}
    live: dict[str, dict[str, Any]] = {}
    for number, actions in entries(root, 0, last):
        _apply(actions, live)
        if number not in wanted:
            continue
        files = wanted[number]
        sizes = (
            {file.path: file.size for file in files}
            if files is not None
            else {p: new["size"] for p, new in live.items()}
        )
        now: dict[str, int] = dict(into.get(path, (path, size)) for path, size in sizes.items())
        yield Snapshot(root, number, None, tuple(DataFile(path, size, 0, None, None) for path, size in now.items()))


def read_commits(root: Path, after: int) -> list[Commit]:
    """List what was written after a snapshot, oldest first."""
    found = (commit_in(actions, number) for number, actions in entries(root, after + 1, latest(root)))
    return [commit for commit in found if commit]


def mentioned_files(root: Path) -> set[str]:
    """Give the names of all files that any commit ever added."""
    found: set[str] = set()
    for number, actions in entries(root, 0, latest(root)):
        found |= {unquote(action["add"]["path"]) for action in actions if "add" in action}
        if commit := commit_in(actions, number):
            found |= {file.path for files in commit.rewritten.values() for file in files}
    return found


def _open(root: Path, number: int | None = None) -> DeltaTable:
    try:
        return DeltaTable(root, version=number)
    except DeltaError as error:
        raise StoreError(f"The offline table {root} cannot be read: {error}") from error


def mark_of(root: Path, number: int) -> bytes | None:
    """Return the fingerprint that Seeknal noted of a snapshot's files; None if there is none."""
    entry = entry_of(root, number)
    try:
        found = entry.stat()
    except OSError:
        return _marked(root, number)
    return _marked(root, number, found.st_ino, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _marked(root: Path, number: int, *_state: int) -> bytes | None:
    commit = commit_in(actions_of(root, number), number)
    return bytes.fromhex(commit.mark) if commit and commit.mark else None


def noted(root: Path, number: int) -> str | None:
    """Return what Seeknal noted about a snapshot, as text; None if another program made it."""
    return note_in(actions_of(root, number))


def note_in(actions: Iterable[dict[str, Any]]) -> str | None:
    """Return Seeknal's note among the actions of one entry; None if another program made it."""
    return next(filter(None, (action.get("commitInfo", {}).get(METADATA) for action in actions)), None)


def commit_in(actions: Iterable[dict[str, Any]], number: int) -> Commit | None:
    """Read Seeknal's note among the actions of the entry of a number; None if another program made it."""
    stored = note_in(actions)
    return msgspec.convert({**msgspec.json.decode(stored), "snapshot": number}, Commit) if stored else None


def _files(root: Path, table: DeltaTable, event_time: str) -> Iterator[DataFile]:
    adds = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
    bounds = [f"{side}.{event_time}" for side in ("min", "max")]
    starts, ends = (
        adds[name].cast(pa.int64()).to_pylist() if name in adds.column_names else [None] * len(adds) for name in bounds
    )
    columns = (adds[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    for encoded, size, rows, start, end in zip(*columns, starts, ends, strict=True):
        path = unquote(encoded)  # as deltalake gives it, but does not take it
        yield DataFile(path, size, _count(root / path, rows), start, end)
