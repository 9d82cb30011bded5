"""Local copies of the objects of an object store, which never change: what was read once is read from the disk the next time.

A copy of a Parquet file may lack the columns that no query has read yet: the file has its full size, and holes in place of those
columns. So a first read fetches no more than it needs, and DuckDB reads the copy like any other file. What is never left out is all
that is not in the chunk of a column: footer, page indexes and bloom filters.

    <folder>/<boot>/<hash of the name>.json            which columns a copy has, and the name of its file
    <folder>/<boot>/<hash of the name>.<random>        the copy

- The note is written, by a rename, after the columns are in the copy. So a process that is killed leaves a copy without a note, or a
  note that tells of fewer columns than there are. After a crash of the machine, notes could tell of what never reached the disk, so
  each boot of the machine begins anew.
- A column is only ever written with its own bytes, so several processes may add columns to one copy at the same time.
- A reader makes a hard link to a copy, so that a copy that another process removes to make room stays until it is read.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Protocol
from weakref import WeakSet, finalize

import msgspec

from seeknal.errors import StoreError
from seeknal.system import folders
from seeknal.system.locks import locked_cached_property, try_exclusive_lock

_TAIL = 2**16
"""The bytes at the end of a file that are read first: mostly, they hold the whole footer."""
_SMALL = 2**20
"""A smaller file is fetched as a whole."""
_GAP = 2**18
"""Two parts with fewer bytes between them are fetched in one request."""
_SLACK = 100
"""Bytes after a chunk that are fetched too: some writers leave out the header of the dictionary when they note a chunk's size."""
_ABANDONED = 3600
"""Seconds after which a copy without a note is removed, because its process was killed."""
_PIECE = 2**22


class Source(Protocol):
    """Where copies are fetched from. All methods raise an `OSError` if that fails."""

    def name_of(self, key: str) -> str:
        """Return the name of an object, which no other object has."""

    def tail(self, key: str, size: int) -> tuple[bytes, int]:
        """Return the last bytes of an object, and its size."""

    def ranges(self, key: str, wanted: Sequence[tuple[int, int]]) -> Sequence[bytes | memoryview]:
        """Return parts of an object, each from its first byte to its last, exclusive."""


class Note(msgspec.Struct, frozen=True):
    """What is known of a copy.

    Args:
        file: The name of its file.
        columns: The columns that it has; None: all.
    """

    file: str
    columns: list[str] | None

    def has(self, columns: Sequence[str] | None) -> bool:
        """Return whether it has all of some columns; None: all that there are."""
        return self.columns is None or (columns is not None and set(columns) <= set(self.columns))

    def with_(self, columns: Sequence[str] | None) -> Note:
        """Return what is known once it has more columns."""
        if self.columns is None or columns is None:
            return Note(self.file, None)
        return Note(self.file, sorted({*self.columns, *columns}))


class Copies:
    """The local copies of a home.

    Args:
        folder: Where they lie.
        size: How many bytes of the disk they may take, beside those that are being read.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder / _boot()
        self._size = size
        self._grown = False

    def __reduce__(self) -> tuple[Callable[[int], Copies], tuple[int]]:
        return copies_of_executor, (self._size,)

    @locked_cached_property
    def work(self) -> Path:
        """A folder for links and new files, which is removed when this process ends.

        Raises:
            StoreError: It cannot be created.
        """
        folders.make(self.folder)
        for other in self.folder.parent.iterdir():
            if other.is_dir() and other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        try:
            self._workplace = folders.Workplace(self.folder)
        except OSError as error:
            raise folders.refused(self.folder, error) from error
        return self._workplace.folder

    def note(self, name: str) -> Note | None:
        """Return what is known of the copy of an object; None if there is none."""
        place = self._note(name)
        try:
            found = msgspec.json.decode(place.read_bytes(), type=Note)
        except (OSError, msgspec.DecodeError):
            return None
        with suppress(OSError):
            os.utime(place)  # the last use decides which copies go first
        return found

    def tell(self, name: str, note: Note) -> None:
        """Note what a copy has, unless it was replaced by another one meanwhile."""
        known = self.note(name)
        if known is not None and known.file == note.file:
            note = note.with_(known.columns)
        elif known is not None and (self.folder / known.file).exists():
            return
        part = self.work / f"{uuid.uuid4().hex}.note"
        part.write_bytes(msgspec.json.encode(note))
        part.replace(self._note(name))
        self._grown = True

    def new_file(self, name: str) -> Path:
        """Return the path of a new copy of an object, in a folder that exists."""
        self.work  # noqa: B018 - creates the folder
        return self.folder / f"{_digest(name)}.{uuid.uuid4().hex}"

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Yield a local path to write an object at that is then stored; if the block ends without an error, it is a copy."""
        place = self.work / f"{uuid.uuid4().hex}.parquet"
        try:
            yield place
            with suppress(OSError):  # what is stored needs no copy
                target = self.new_file(name)
                place.rename(target)
                self.tell(name, Note(target.name, None))
        finally:
            place.unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """Remove the copy of an object that was deleted, also from readers of this process, as a local file would be gone."""
        for links in list(_readers):
            links.drop(name)
        if note := self.note(name):
            for file in (self._note(name), self.folder / note.file):
                file.unlink(missing_ok=True)

    def trim(self) -> None:
        """Remove the copies that were not used for longest, if all of them take more space than they may."""
        if not self._grown:
            return
        self._grown = False
        if (lock := try_exclusive_lock(self.folder / "_trim.lock")) is None:
            return
        with lock, suppress(OSError):
            self._trim()

    def _trim(self) -> None:
        notes: list[tuple[float, str]] = []
        files: dict[str, list[os.DirEntry[str]]] = {}
        for entry in os.scandir(self.folder):
            digest, _, kind = entry.name.partition(".")
            if len(digest) != _DIGITS:
                continue
            if kind == "json":
                notes.append((entry.stat().st_mtime, digest))
            else:
                files.setdefault(digest, []).append(entry)
        taken = sum(one.stat().st_blocks * 512 for every in files.values() for one in every)
        noted = {digest for _, digest in notes}
        for digest, every in files.items():
            for one in every if digest not in noted else ():
                if time.time() - one.stat().st_mtime > _ABANDONED:
                    taken -= one.stat().st_blocks * 512
                    Path(one.path).unlink(missing_ok=True)
        for _, digest in sorted(notes):
            if taken <= self._size:
                break
            (self.folder / f"{digest}.json").unlink(missing_ok=True)
            for one in files.get(digest, ()):
                taken -= one.stat().st_blocks * 512
                Path(one.path).unlink(missing_ok=True)

    def _note(self, name: str) -> Path:
        return self.folder / f"{_digest(name)}.json"


@cache
def copies_of_executor(size: int) -> Copies:
    """Return the copies that the executors of a machine share, which have no home.

    Raises:
        StoreError: There is no place for them.
    """
    if (scratch := folders.private_scratch()) is None:
        raise StoreError("An executor has no folder for temporary data. Set spark.local.dir, or TMPDIR, to one.")
    return Copies(scratch / "objects", size)


class Links:
    """The copies that a reader uses, by hard links that are removed once this object is not referenced any more.

    Each object has one path for as long as no more of its columns are asked for.

    Args:
        copies: The copies.
    """

    def __init__(self, copies: Copies) -> None:
        self._copies = copies
        self._lock = Lock()
        self._known: dict[str, tuple[Path, Note]] = {}
        self._locks: dict[str, Lock] = {}
        self._made: list[Path] = []
        _readers.add(self)
        finalize(self, _end, self._made, os.getpid())

    def __reduce__(self) -> tuple[type[Links], tuple[Copies]]:
        return Links, (self._copies,)

    def copy_of(self, source: Source, key: str, columns: Sequence[str] | None) -> str:
        """Return the path of a copy with some columns, or all; see `Note`.

        Raises:
            StoreError: It cannot be fetched, or not be kept on the disk.
        """
        with self._lock:
            lock = self._locks.setdefault(key, Lock())
        with lock:  # one thread fetches an object while others wait for it
            try:
                return str(self._copy(source, key, columns))
            except OSError as error:
                raise StoreError(f"{source.name_of(key)} could not be read: {error}") from error

    def at_hand(self, name: str, columns: Sequence[str] | None) -> str | None:
        """Return the path of a copy with some columns, or all, if there is one; else None."""
        with suppress(OSError, StoreError):
            known = self._known.get(name) or self._linked(name)
            if known and known[1].has(columns):
                self._known[name] = known
                return str(known[0])
        return None

    def drop(self, name: str) -> None:
        """Remove the link to the copy of an object that was deleted."""
        if known := self._known.pop(name, None):
            _remove_all([known[0]])

    def _copy(self, source: Source, key: str, columns: Sequence[str] | None) -> Path:
        name = source.name_of(key)
        known = self._known.get(name) or self._linked(name)
        if known and known[1].has(columns):
            self._known[name] = known
            return known[0]
        file, link = (known[1].file, known[0]) if known else self._begun(name)
        there = known[1].columns or [] if known else []
        note = Note(file, _fetch(source, key, link, there, columns))
        note = note.with_(there) if known else note
        self._copies.tell(name, note)
        # A new path, since who has read the copy by the old one may remember the holes that it had.
        self._known[name] = self._link(link), note
        return self._known[name][0]

    def _linked(self, name: str) -> tuple[Path, Note] | None:
        """Return a link to the copy that there is; None if there is none."""
        note = self._copies.note(name)
        if note is None:
            return None
        try:
            return self._link(self._copies.folder / note.file), note
        except FileNotFoundError:
            return None

    def _begun(self, name: str) -> tuple[str, Path]:
        """Return the name of a new, empty copy, and a link to it."""
        file = self._copies.new_file(name)
        file.touch()
        return file.name, self._link(file)

    def _link(self, file: Path) -> Path:
        link = self._copies.work / f"{uuid.uuid4().hex}.parquet"
        self._made.append(link)
        os.link(file, link)
        return link


_readers: WeakSet[Links] = WeakSet()
"""All readers of this process."""


def _end(links: Sequence[Path], maker: int) -> None:
    if os.getpid() == maker:  # a forked process runs the finalizer too, and must leave its parent's links alone
        _remove_all(links)


def _remove_all(links: Sequence[Path]) -> None:
    for link in links:
        with suppress(OSError):
            link.unlink(missing_ok=True)


def _fetch(
    source: Source, key: str, copy: Path, there: Sequence[str], columns: Sequence[str] | None
) -> list[str] | None:
    """Fetch columns into a copy that has some, and return those that were fetched; None if the copy has all now."""
    tail, size = source.tail(key, _TAIL)
    with copy.open("r+b") as file:
        file.truncate(size)
        file.seek(size - len(tail))
        file.write(tail)
        rest = size - len(tail)
        holes: list[tuple[int, int]] = []
        if columns is not None and size > _SMALL:
            tail = _footer(source, key, tail, size)
            holes = _chunks_without(tail, set(columns) - set(there))
            # Where most of the file is wanted anyway, all of it is fetched at once.
            holes = [] if sum(end - start for start, end in holes) < size / 2 else holes
        for some in _pieces(_between(holes, rest)):
            for (start, _), part in zip(some, source.ranges(key, some), strict=True):
                file.seek(start)
                file.write(part)
    return list(columns) if holes and columns is not None else None


def _footer(source: Source, key: str, tail: bytes, size: int) -> bytes:
    """Return the end of a Parquet file with its whole footer."""
    needed = int.from_bytes(tail[-8:-4], "little") + 8
    if needed <= len(tail):
        return tail
    (more,) = source.ranges(key, [(max(0, size - needed), size)])
    return bytes(more)


def _chunks_without(tail: bytes, columns: set[str]) -> list[tuple[int, int]]:
    """Return where the chunks of all other columns lie in a Parquet file, in order, given its end.

    The path of a nested column begins with the name of its column and a dot. A column with such a name is fetched too.
    """
    import pyarrow.parquet as pq

    metadata, names = pq.read_metadata(io.BytesIO(tail)), {name.casefold() for name in columns}
    chunks: list[tuple[int, int, bool]] = []
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            path = column.path_in_schema.casefold()  # DuckDB does not tell names apart by case
            is_wanted = any(path == name or path.startswith(f"{name}.") for name in names)
            start = column.data_page_offset
            if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
                start = column.dictionary_page_offset
            chunks.append((start, start + column.total_compressed_size, is_wanted))
    holes, follows_wanted = [], False
    for start, end, is_wanted in sorted(chunks):
        if not is_wanted:
            holes.append((start + (_SLACK if follows_wanted else 0), end))
        follows_wanted = is_wanted
    return [(start, end) for start, end in holes if start < end]


def _between(holes: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return the parts of a file of a size that lie between holes, those with a small hole between them as one.

    >>> _between([(10, 1_000_000), (1_000_100, 1_000_200)], 1_000_300)
    [(0, 10), (1000000, 1000300)]
    """
    parts: list[tuple[int, int]] = []
    at = 0
    for hole, after in [*holes, (size, size)]:
        end = min(hole, size)
        if end > at:
            is_near = parts and at - parts[-1][1] < _GAP
            start, _ = parts.pop() if is_near else (at, end)
            parts.append((start, end))
        at = max(at, after)
    return parts


def _pieces(parts: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Yield parts in lists of some megabytes each, so that no more is in memory at once."""
    some: list[tuple[int, int]] = []
    for first, last in parts:
        for start in range(first, last, _PIECE):
            some.append((start, min(start + _PIECE, last)))
            if sum(end - start for start, end in some) >= 8 * _PIECE:
                yield some
                some = []
    if some:
        yield some


def _boot() -> str:
    """Return a name of the current boot of the machine; where there is none, of this process."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return uuid.uuid4().hex


_DIGITS = 32


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]
