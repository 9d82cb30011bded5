"""The online store on LMDB: one file, one writer at a time, readers that never wait.

All rows are in one tree. A space has a generation, a number that prefixes the keys of its rows. To replace its rows, the writer
puts the new ones under a new generation, which is the greatest and so at the end of the tree. Then one small transaction points
the space to it.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn, TypeVar

import lmdb

from seeknal.errors import StoreError
from seeknal.online.pages import Moved, PageFile, Tree, check_whole
from seeknal.online.protocol import Entries, Found, LoadAttempt
from seeknal.system.folders import make, may_write, read_only, share
from seeknal.system.locks import exclusive_lock
from seeknal.system.retry import Conflict

T = TypeVar("T")
Transaction = Any
"""A transaction of `lmdb`, which returns bytes because no buffers are requested; in reads, also a `Tree`."""

_FIRST_MAP = 2**30
_SPACES, _TRASH, _NEXT, _ROWS = b"\x01", b"\x02", b"\x03", b"\x04"
"""The first byte of a key: heads of spaces, discarded generations of spaces, the next generation, and rows."""
_HEAD = struct.Struct(">QQ")
"""The generation of a space and its number of rows; its state follows."""
_NUMBER = struct.Struct(">Q")
_AT_ONCE = 10_000
"""Keys per transaction in a scan or a sweep."""
_MOMENT = 0.0001
"""Seconds between two checks whether other threads have left their transactions."""
_PATIENCE = 5.0
"""Seconds until a wait or a series of retries is given up."""
_MOST_READERS = 1024
_FILE, _LOCK_FILE = "data.mdb", "lock.mdb"

_open_environments: dict[str, _Environment | _Unlocked] = {}
_opening = Lock()


class LmdbStore:
    """An online store with its spaces in one LMDB environment.

    Args:
        folder: The folder of the environment; created if it is missing.
        map_size: The initial size of the map in bytes, beyond which it has to grow, if this store opens the environment.
    """

    most_changes = 100_000
    forgets = False
    waits = False

    def __init__(self, folder: Path, map_size: int = _FIRST_MAP) -> None:
        self._folder = folder.resolve()  # one environment, whichever symbolic links lead to it
        self._place = str(self._folder)
        self._map_size = map_size

    @property
    def _environment(self) -> _Environment | _Unlocked:
        """The environment of this process. LMDB forbids a process to open an environment twice, or to use one across a fork."""
        found = _open_environments.get(self._place)
        if found is None:
            with _opening:
                found = _open_environments.get(self._place) or _open(self._folder, self._map_size)
                _open_environments[self._place] = found
        return found

    def get(self, space: str, keys: Sequence[bytes]) -> Found:
        """See `OnlineStore.get`."""
        return self.get_all((space,), (keys,))[0]

    def get_all(self, spaces: tuple[str, ...], keys: Sequence[Sequence[bytes]]) -> list[Found]:
        """See `OnlineStore.get_all`."""
        environment = _open_environments.get(self._place)
        if environment is None:
            if self._is_missing():
                raise KeyError(spaces[0])
            environment = self._environment
        return environment.get(_heads(spaces), keys)

    def keys(self, space: str) -> Iterator[bytes]:
        """See `OnlineStore.keys`."""
        if self._is_missing():
            raise KeyError(space)
        prefix = after = self._environment.read(_prefix, space)
        while True:
            found = self._environment.read(_keys_from, prefix, after)
            yield from (key[len(prefix) :] for key in found)
            if len(found) < _AT_ONCE:
                return
            after = found[-1] + b"\0"  # the least key after the last one

    def change(self, space: str, expected: bytes, state: bytes, entries: Entries) -> int:
        """See `OnlineStore.change`."""
        return self._environment.write(_change, space, expected, state, entries)

    def replace(self, space: str, attempts: Iterable[LoadAttempt]) -> int:
        """See `OnlineStore.replace`."""
        write = self._environment.write
        with self._exclusive(space):
            self._sweep(space)
            mine = write(_begin_generation, space)
            count, put = 0, _append
            try:
                for attempt in attempts:
                    for part in attempt.parts:
                        count += write(put, mine, part)
                    try:
                        write(_finish, space, attempt, mine, count)
                    except Conflict:
                        put = _put  # the next attempt changes rows that exist already, so it cannot append
                        continue
                    return count
            finally:
                with suppress(StoreError):  # the load has its own outcome, and the next load sweeps as well
                    self._sweep(space)
        raise Conflict(f"Another load of {space} committed first during each attempt.")

    def drop(self, space: str) -> None:
        """See `OnlineStore.drop`."""
        if self._is_missing():
            return
        with self._exclusive(space):
            self._environment.write(_forget, space)
            self._sweep(space)

    def close(self) -> None:
        """Close the files in this process; the next use opens them again."""
        if found := _open_environments.pop(self._place, None):
            found.close()

    def _is_missing(self) -> bool:
        """Whether nothing was ever stored here. The check creates no files."""
        return self._place not in _open_environments and not (self._folder / _FILE).exists()

    def _exclusive(self, space: str) -> AbstractContextManager[object]:
        """Take the exclusive lock for beginning or discarding generations of a space."""
        return exclusive_lock(self._folder / f"{blake2b(space.encode(), digest_size=8).hexdigest()}.lock")

    def _sweep(self, space: str) -> None:
        """Remove the discarded generations of a space and those that were never finished, a few rows per transaction."""
        while self._environment.write(_sweep_some, space):
            pass


def _open(folder: Path, map_size: int) -> _Environment | _Unlocked:
    """Open an environment as this user's permissions allow: for writing, for reading with locks, or for reading without.

    Raises:
        StoreError: The environment cannot be opened, or lacks pages.
    """
    file, lock = folder / _FILE, folder / _LOCK_FILE
    if file.exists() and file.stat().st_size:
        check_whole(file)
        if not may_write(lock):
            return _Unlocked(file)
    return _Environment(folder, map_size, readonly=file.exists() and not may_write(file))


class _Environment:
    """An LMDB environment that grows when it is full. Growing waits until no thread of this process is in a transaction.

    A thread adds an entry to `_inside` before it checks whether another thread wants to grow the environment. This costs a
    read less than a lock would.
    """

    def __init__(self, folder: Path, map_size: int, *, readonly: bool) -> None:
        self._folder = folder
        self._readonly = readonly
        self._growing = Lock()
        self._inside: list[None] = []
        make(folder)
        new = [file for file in (folder / _FILE, folder / _LOCK_FILE) if not file.exists()]
        try:
            self._lmdb = lmdb.open(str(folder), map_size=map_size, readonly=readonly, max_readers=_MOST_READERS)
        except (lmdb.Error, OSError) as error:
            raise StoreError(f"The online store {folder} cannot be opened: {error}") from error
        for file in new:
            share(file)

    def close(self) -> None:
        self._lmdb.close()

    def hold(self) -> None:
        """Prevent new transactions, and wait at most `_PATIENCE` seconds until no thread of this process is in one."""
        self._growing.acquire()
        end = time.monotonic() + _PATIENCE
        while self._inside and time.monotonic() < end:
            time.sleep(_MOMENT)

    def let_go(self) -> None:
        """Allow new transactions again."""
        if self._growing.locked():
            self._growing.release()

    def get(self, names: Sequence[bytes], keys: Sequence[Sequence[bytes]]) -> list[Found]:
        """Return the state and rows of some spaces; see `OnlineStore.get_all`."""
        return self.read(_get, names, keys)

    def write(self, step: Callable[..., T], *arguments: object) -> T:
        """Run a step in a write transaction, which commits all of it or nothing.

        The reader entries of killed processes are removed first: LMDB reuses no page that a reader with an entry may need.

        Raises:
            StoreError: The write failed; the environment is as it was.
        """
        if self._readonly:
            raise read_only(self._folder / _FILE)
        return self.read(step, *arguments, write=True)

    def read(self, step: Callable[..., T], *arguments: object, write: bool = False) -> T:
        """Run a step in a transaction that sees one state of the environment.

        The step runs again on a larger map if the map was full, or if another process has enlarged it.

        Raises:
            StoreError: The environment could not be read.
        """
        while True:
            try:
                self._inside.append(None)
                if self._growing.locked():
                    size = None
                else:
                    if write:
                        self._lmdb.reader_check()
                    with self._lmdb.begin(None, None, write) as transaction:
                        return step(transaction, *arguments)
            except lmdb.MapResizedError:  # by another process
                size = 0
            except lmdb.ReadersFullError as error:  # killed readers may hold the entries
                if not self._lmdb.reader_check():
                    raise self._failed("read", error) from error
                continue
            except lmdb.MapFullError:  # the transaction was rolled back, so the step can run again
                size = 2 * self._lmdb.info()["map_size"]
            except lmdb.Error as error:
                raise self._failed("written, and is as it was" if write else "read", error) from error
            finally:
                self._inside.pop()
            self._grow(size)

    def _failed(self, what: str, error: Exception) -> StoreError:
        return StoreError(f"The online store {self._folder} could not be {what}: {error}")

    def _grow(self, size: int | None) -> None:
        """Enlarge the map to `size`, or to the size that another process set (0), once no thread is inside; None: only wait."""
        with self._growing:
            while self._inside and size is not None:
                time.sleep(_MOMENT)
            if size == 0 or (size and size > self._lmdb.info()["map_size"]):
                self._lmdb.set_mapsize(size)


class _Unlocked:
    """An LMDB environment that this process may read but not lock: in a read-only folder, or in another user's folder."""

    def __init__(self, file: Path) -> None:
        self._folder = file.parent
        self._file = PageFile(file)
        if not self._file.is_known:
            self.close()
            raise StoreError(
                f"The online store {self._folder} cannot be read by this user, who may not write {_LOCK_FILE}: without a lock, "
                f"Seeknal cannot read the layout of this {file.name}. Allow the user to write {self._folder / _LOCK_FILE}."
            )
        self._tree: Tree | None = None

    def close(self) -> None:
        self._file.close()

    def hold(self) -> None:
        """Do nothing: a forked process may close its copy of the file at any time."""

    let_go = hold

    def get(self, names: Sequence[bytes], keys: Sequence[Sequence[bytes]]) -> list[Found]:
        """Return the state and rows of some spaces; see `OnlineStore.get_all`.

        If a newer snapshot supersedes this one during the read, the read continues there and keeps the rows that it has,
        provided the heads of the spaces are the same: no row of a space changes without its head.
        """
        heads: list[bytes | None] = []
        rows: list[list[bytes | None]] = []

        def resume(tree: Tree) -> list[Found]:
            nonlocal heads, rows
            now = [tree.get(name) for name in names]
            if now != heads:
                heads, rows = now, [[] for _ in names]
            found = []
            for name, some, head, known in zip(names, keys, heads, rows, strict=True):
                if head is None:
                    raise KeyError(name[1:].decode())
                prefix = _ROWS + head[:8]
                for key in some[len(known) :]:
                    known.append(tree.get(prefix + key))
                found.append((head[_HEAD.size :], known))
            return found

        return self.read(resume)

    def read(self, step: Callable[..., T], *arguments: object) -> T:
        """Run a step on the newest snapshot, and again on the next one if that snapshot is superseded during the step.

        Raises:
            StoreError: The file cannot be read, or snapshots were superseded until the deadline.
        """
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return step(self._newest(), *arguments)
            except Moved:
                if time.monotonic() > end:
                    break
        raise StoreError(
            f"The online store {self._folder} could not be read: it changed during each attempt, and this user may not lock "
            f"it. Request fewer entities at once, or allow the user to write {self._folder / _LOCK_FILE}."
        )

    def write(self, *_: object) -> NoReturn:
        """Raise an error, because this process has no permission to write.

        Raises:
            StoreError: Always.
        """
        raise read_only(self._folder / _FILE)

    def _newest(self) -> Tree:
        tree = self._tree
        if tree is None or tree.transaction != self._file.transaction():
            meta = self._file.newest()
            self._tree = tree = Tree(self._file, meta, meta.root)
        return tree


def close_all() -> None:
    """Close the environments of this process; the next use opens them again."""
    while _open_environments:
        _open_environments.popitem()[1].close()


def _before_fork() -> None:
    """Wait until no thread reads: when the child closes its copy, LMDB drops the reader entries of the parent process."""
    for environment in list(_open_environments.values()):
        environment.hold()


def _after_fork(*, in_child: bool) -> None:
    global _opening  # noqa: PLW0603 - a thread that the child lacks may hold the lock
    for environment in list(_open_environments.values()):
        environment.let_go()
    if in_child:
        _opening = Lock()
        close_all()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)


@lru_cache(1000)
def _heads(spaces: tuple[str, ...]) -> list[bytes]:
    return [_SPACES + space.encode() for space in spaces]


def _get(transaction: Transaction, names: Sequence[bytes], keys: Sequence[Sequence[bytes]]) -> list[Found]:
    get, found = transaction.get, []
    for name, some in zip(names, keys):  # noqa: B905 - they have the same length
        head = get(name)
        if head is None:
            raise KeyError(name[1:].decode())
        prefix = _ROWS + head[:8]
        rows = [get(prefix + some[0])] if len(some) == 1 else [get(prefix + key) for key in some]
        found.append((head[16:], rows))
    return found


def _prefix(transaction: Transaction, space: str) -> bytes:
    head = transaction.get(_SPACES + space.encode())
    if head is None:
        raise KeyError(space)
    return _ROWS + bytes(head[:8])


def _keys_from(transaction: Transaction, prefix: bytes, first: bytes) -> list[bytes]:
    if isinstance(transaction, Tree):
        keys = transaction.keys(first)
    else:
        cursor = transaction.cursor()
        keys = cursor.iternext(keys=True, values=False) if cursor.set_range(first) else iter(())
    return [key for key in islice(keys, _AT_ONCE) if key.startswith(prefix)]


def _expect(transaction: Transaction, space: str, expected: bytes | None) -> tuple[int, int]:
    """Return the generation and row count of a space, or raise `Conflict` if its state is not the expected one."""
    head = transaction.get(_SPACES + space.encode())
    if (None if head is None else head[_HEAD.size :]) != expected:
        raise Conflict(f"Another load of {space} committed first.")
    return (0, 0) if head is None else _HEAD.unpack_from(head)


def _set_head(transaction: Transaction, space: str, generation: int, count: int, state: bytes) -> None:
    transaction.put(_SPACES + space.encode(), _HEAD.pack(generation, count) + state)


def _change(transaction: Transaction, space: str, expected: bytes, state: bytes, entries: Entries) -> int:
    generation, count = _expect(transaction, space, expected)
    count += _put(transaction, generation, entries)
    _set_head(transaction, space, generation, count, state)
    return count


def _forget(transaction: Transaction, space: str) -> None:
    if head := transaction.pop(_SPACES + space.encode()):
        _discard(transaction, space, head[:8])


def _begin_generation(transaction: Transaction, space: str) -> int:
    """Reserve a generation. It counts as discarded until it is finished, so the next load removes its rows if this process dies."""
    number = _NUMBER.unpack(transaction.get(_NEXT, _NUMBER.pack(1)))[0]
    transaction.put(_NEXT, _NUMBER.pack(number + 1))
    _discard(transaction, space, _NUMBER.pack(number))
    return int(number)


def _discard(transaction: Transaction, space: str, generation: bytes) -> None:
    name = _TRASH + space.encode()
    transaction.put(name, transaction.get(name, b"") + generation)


def _append(transaction: Transaction, generation: int, entries: Entries) -> int:
    """Put new rows. If they sort after all keys of the file, LMDB appends them, which is faster."""
    prefix = _ROWS + _NUMBER.pack(generation)
    cursor = transaction.cursor()
    last = cursor.key() if cursor.last() else b""
    rows = zip(map(prefix.__add__, entries.keys), entries.values, strict=True)
    cursor.putmulti(rows, append=bool(entries.keys) and prefix + entries.keys[0] > last)
    return len(entries)


def _put(transaction: Transaction, generation: int, entries: Entries) -> int:
    """Put and remove rows, and return the change of the row count."""
    prefix, more = _ROWS + _NUMBER.pack(generation), 0
    for key, value in zip(entries.keys, entries.values, strict=True):
        if value is None:
            more -= transaction.delete(prefix + key)
        else:
            more += transaction.replace(prefix + key, value) is None
    return more


def _finish(transaction: Transaction, space: str, attempt: LoadAttempt, generation: int, count: int) -> None:
    """Point a space to the new generation, and discard the previous one."""
    before, _ = _expect(transaction, space, attempt.expected)
    # This also removes the new generation from the list, where it is the only one: `replace` swept the others first.
    transaction.put(_TRASH + space.encode(), _NUMBER.pack(before))
    _set_head(transaction, space, generation, count, attempt.state)


def _sweep_some(transaction: Transaction, space: str) -> bool:
    """Remove some rows of a discarded generation; return whether there may be more to remove."""
    name = _TRASH + space.encode()
    waste = transaction.get(name, b"")  # the numbers of the discarded generations, eight bytes each
    prefix = _ROWS + waste[:8]
    found = _keys_from(transaction, prefix, prefix) if waste else []
    for key in found:
        transaction.delete(key)
    if waste and len(found) < _AT_ONCE:
        transaction.put(name, waste[8:])
    return bool(waste)
