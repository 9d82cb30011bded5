"""What a table's log says: its commits, its snapshots, and the files each snapshot is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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

from seeknal.deltalog import newest
from seeknal.errors import StoreError
from seeknal.schema import Schema
from seeknal.times import Interval

METADATA = "seeknal"
UNREADABLE = {"deletionVectors", "columnMapping", "typeWidening", "typeWidening-preview"}
"""Features of Delta Lake by which a Parquet file no longer says by itself what its rows are."""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a snapshot; the bounds of its event times are None where unknown."""

    path: str
    size: int
    rows: int
    start: int | None
    end: int | None

    @property
    def _last(self) -> int | None:
        """An instant that no row is after: other programs cut the last event time to whole milliseconds."""
        return self.end if self.end is None or self.end % 1000 else self.end + 999

    def overlaps(self, span: Interval) -> bool:
        """Whether it may hold a row of the span."""
        too_old = span.start is not None and self._last is not None and self._last < span.start
        too_new = span.end is not None and self.start is not None and self.start > span.end
        return not (too_old or too_new)

    def has_any(self, instants: np.ndarray) -> bool:
        """Whether it may hold a row of some instants, which are sorted."""
        first = 0 if self.start is None else np.searchsorted(instants, self.start)
        end = len(instants) if self._last is None else np.searchsorted(instants, self._last, side="right")
        return bool(first < end)

    def lies_within(self, span: Interval) -> bool:
        """Whether it holds nothing but rows of the span."""
        after = span.start is None or (self.start is not None and self.start >= span.start)
        before = span.end is None or (self._last is not None and self._last <= span.end)
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
    """How many of the rows written are hidden by others of the same join keys and event time; see `seeknal.writing.Written`."""

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
    """

    paths: tuple[str, ...]
    schema: Schema
    count: int
    spans: tuple[Interval, ...] = (Interval(),)
    size: int = 0


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
    """The open table that it was read from; a commit takes it on."""

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
        return blake2b(" ".join(sorted(file.path for file in self.files)).encode(), digest_size=16).digest()

    def within(self, schema: Schema, *spans: Interval) -> Rows:
        """Give the rows whose event time lies in one of the spans; no span: all rows.

        The largest file comes first: DuckDB takes the others to be as large, and so the rows to be more than a small spine.
        """
        spans = spans or (Interval(),)
        files = [file for file in self.files if any(file.overlaps(span) for span in spans)]
        files.sort(key=lambda file: file.rows, reverse=True)
        paths, count = tuple(str(self.root / file.path) for file in files), sum(file.rows for file in files)
        return Rows(paths, schema, count, spans, sum(file.size for file in files))

    def parts(self, schema: Schema, span: Interval, first: int) -> list[Rows]:
        """Give the rows of a span in parts, each before the one before it and about as large as all after it together.

        Whoever looks for the last rows at or before some moments finds most of them in the first parts, and need not read the
        others for those. Parts are cut where files begin; where files overlap in time, a part reads some of them in full.

        Args:
            schema: Their schema.
            span: The span of event time that counts.
            first: The first of the moments, in microseconds since 1970: no part begins later.
        """
        files = sorted(
            (file for file in self.files if file.overlaps(span)), key=lambda file: file.start or 0, reverse=True
        )
        is_worth_it = sum(file.rows for file in files) >= _WORTH_IT and all(file.start is not None for file in files)
        found, end, rows, seen = [], span.end, 0, 0
        for file in files if is_worth_it else ():
            start = file.start or 0
            if end is not None and start > end:
                continue  # it begins where the part before does, and so lies in that part
            rows += file.rows
            if rows >= max(seen, _PART) and start < first and (span.start is None or start > span.start):
                found.append(self.within(schema, Interval(start, end)))
                end, rows, seen = start - 1, 0, seen + rows
        rest = self.within(schema, Interval(span.start, end))
        return [*found, rest] if rest.paths else found


def label_of(root: Path) -> str:
    """Return project and name of the group whose table is in a folder."""
    return f"{root.parent.name}/{root.name}"


def read_snapshot(root: Path, number: int | None = None) -> Snapshot:
    """Read a table's log up to a snapshot, or to its end.

    Raises:
        StoreError: Another program wrote the table in a way that cannot be read here.
    """
    table = _open(root, number)
    if foreign := UNREADABLE & set(table.protocol().reader_features or ()):
        raise StoreError(
            f"Another program turned on {', '.join(sorted(foreign))} in {root}, which Seeknal cannot read and Delta Lake "
            "cannot turn off. Read the rows with that program, and write them to a new feature group."
        )
    commit = newest_commit(root, table.version())
    times = commit.schema.event_time.name if commit else ""
    return Snapshot(root, table.version(), commit, tuple(_files(root, table, times)), table)


def newest_commit(root: Path, number: int) -> Commit | None:
    """Return the newest of Seeknal's own commits up to a snapshot; None if there is none."""
    return next(filter(None, (_commit(root, n) for n in range(number, -1, -1))), None)


def read_file_lists(root: Path, numbers: Collection[int]) -> Iterator[Snapshot]:
    """Give several snapshots by one pass through the log: only paths and sizes of their files, and nothing else."""
    live: dict[str, DataFile] = {}
    for number in range(max(numbers, default=-1) + 1):
        for action in actions_of(root, number):
            if gone := action.get("remove"):
                live.pop(unquote(gone["path"]), None)
            if new := action.get("add"):
                path = unquote(new["path"])
                live[path] = DataFile(path, new["size"], 0, None, None)
        if number in numbers:
            yield Snapshot(root, number, None, tuple(live.values()))


def read_commits(root: Path, after: int) -> list[Commit]:
    """List what was written after a snapshot, oldest first."""
    return [commit for n in range(after + 1, latest(root) + 1) if (commit := _commit(root, n))]


def mentioned_files(root: Path) -> set[str]:
    """Give the names of all files that any commit ever added."""
    entries = (root / "_delta_log").glob("*.json")
    added = {unquote(action["add"]["path"]) for entry in entries for action in _read(entry) if "add" in action}
    rewritten = [files for commit in read_commits(root, -1) for files in commit.rewritten.values()]
    return added | {file.path for files in rewritten for file in files}


def latest(root: Path) -> int:
    """Give the number of the newest snapshot: that of the last entry of the log, none of which is ever removed.

    Raises:
        StoreError: There is no log.
    """
    if (number := newest(root, entries_only=True)) < 0:
        raise StoreError(f"The offline table {root} cannot be read: it has no log.")
    return number


def exists(root: Path) -> bool:
    """Tell whether there is a log."""
    return has_entry(root, 0)


def has_entry(root: Path, number: int) -> bool:
    """Tell whether the log has an entry of that number."""
    return _entry(root, number).exists()


def _entry(root: Path, number: int) -> Path:
    return root / "_delta_log" / f"{number:020}.json"


def _open(root: Path, number: int | None = None) -> DeltaTable:
    try:
        return DeltaTable(root, version=number)
    except DeltaError as error:
        raise StoreError(f"The offline table {root} cannot be read: {error}") from error


def noted(root: Path, number: int) -> str | None:
    """Return what Seeknal noted about a snapshot, as text; None if another program made it."""
    return note_in(actions_of(root, number))


def note_in(actions: Iterable[dict[str, Any]]) -> str | None:
    """Return Seeknal's note among the actions of one entry; None if another program made it."""
    return next(filter(None, (action.get("commitInfo", {}).get(METADATA) for action in actions)), None)


def _commit(root: Path, number: int) -> Commit | None:
    """Read what Seeknal noted about a snapshot; None if another program made it."""
    stored = noted(root, number)
    return msgspec.convert({**msgspec.json.decode(stored), "snapshot": number}, Commit) if stored else None


def actions_of(root: Path, number: int) -> Iterator[dict[str, Any]]:
    """Read an entry of the log: a line of JSON for each action."""
    return _read(_entry(root, number))


def _read(entry: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from map(msgspec.json.decode, entry.read_bytes().splitlines())
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"The log entry {entry} cannot be read: {error}") from error


def _files(root: Path, table: DeltaTable, event_time: str) -> Iterator[DataFile]:
    adds = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
    bounds = [f"{side}.{event_time}" for side in ("min", "max")]
    starts, ends = (
        adds[name].cast(pa.int64()).to_pylist() if name in adds.column_names else [None] * len(adds) for name in bounds
    )
    columns = (adds[name].to_pylist() for name in ("path", "size_bytes", "num_records"))
    for encoded, size, rows, start, end in zip(*columns, starts, ends, strict=True):
        path = unquote(encoded)  # as deltalake gives it, but does not take it
        count = rows if rows is not None else pq.read_metadata(root / path).num_rows
        yield DataFile(path, size, count, start, end)
