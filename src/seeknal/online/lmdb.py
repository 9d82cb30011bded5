"""The online store on LMDB: one file, one writer, readers that never wait.

All rows are in one tree. A space has a generation, a number that its rows' keys begin with; to replace
what it holds, rows are put under a new generation, which is the greatest and so at the end of the tree,
and then one small transaction points the space to it.
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
"""One of `lmdb`; what it gives are bytes, since no buffers are asked for. To read, also a `Tree`."""

_FIRST_MAP = 2**30
_SPACES, _TRASH, _NEXT, _ROWS = b"\x01", b"\x02", b"\x03", b"\x04"
_HEAD = struct.Struct(">QQ")
_NUMBER = struct.Struct(">Q")
_AT_ONCE = 10_000
_MOMENT = 0.0001
_PATIENCE = 5.0
_MOST_READERS = 1024
_FILE, _LOCK_FILE = "data.mdb", "lock.mdb"

_open_environments: dict[str, _Environment | _Unlocked] = {}
_opening = Lock()


class LmdbStore:
    """Keeps its spaces in one LMDB environment.

    Args:
        folder: Where the environment is; made if it is missing.
        map_size: How large it may become before it has to grow, in bytes, if it is opened here first.
    """

    most_changes = 100_000
    forgets = False
    waits = False

    def __init__(self, folder: Path, map_size: int = _FIRST_MAP) -> None:
        self._folder = folder.resolve()  # one environment, whichever links lead to it
        self._place = str(self._folder)
        self._map_size = map_size

    @property
    def _environment(self) -> _Environment | _Unlocked:
        """The environment of this process: LMDB must not be opened twice, nor carried over a fork."""
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
            after = found[-1] + b"\0"

    def change(self, space: str, expected: bytes, state: bytes, entries: Entries) -> int:
        """See `OnlineStore.change`."""
        return self._environment.write(_change, space, expected, state, entries)

    def replace(self, space: str, rounds: Iterable[LoadAttempt]) -> int:
        """See `OnlineStore.replace`."""
        write = self._environment.write
        with self._alone(space):
            self._sweep(space)
            mine = write(_begin_generation, space)
            count, put = 0, _append
            try:
                for one in rounds:
                    for part in one.parts:
                        count += write(put, mine, part)
                    try:
                        write(_finish, space, one, mine, count)
                    except Conflict:
                        put = _put
                        continue
                    return count
            finally:
                with suppress(StoreError):
                    self._sweep(space)
        raise Conflict(f"{space} was loaded by others all the time.")

    def drop(self, space: str) -> None:
        """See `OnlineStore.drop`."""
        if self._is_missing():
            return
        with self._alone(space):
            self._environment.write(_forget, space)
            self._sweep(space)

    def close(self) -> None:
        """Let go of the files in this process; they are opened again when they are next used."""
        if found := _open_environments.pop(self._place, None):
            found.close()

    def _is_missing(self) -> bool:
        """Whether nothing was ever put here. To ask makes no files."""
        return self._place not in _open_environments and not (self._folder / _FILE).exists()

    def _alone(self, space: str) -> AbstractContextManager[object]:
        """Hold off others who would begin or throw away a generation of a space."""
        return exclusive_lock(self._folder / f"{blake2b(space.encode(), digest_size=8).hexdigest()}.lock")

    def _sweep(self, space: str) -> None:
        """Remove the generations that are no longer of use, or never were, a few rows at a time."""
        while self._environment.write(_sweep_some, space):
            pass


def _open(folder: Path, map_size: int) -> _Environment | _Unlocked:
    """Open an environment as this user may: to write, to read under locks, or to read without.

    Raises:
        StoreError: It cannot be opened, or lacks pages.
    """
    file, lock = folder / _FILE, folder / _LOCK_FILE
    if file.exists() and file.stat().st_size:
        check_whole(file)
        if not may_write(lock):
            return _Unlocked(file)
    return _Environment(folder, map_size, readonly=file.exists() and not may_write(file))


class _Environment:
    """An LMDB environment that grows when it is full. Growing waits until nobody in this process is at work.

    Whoever is at work has an entry in `_inside`, made before looking whether somebody wants it to grow; that costs a read
    less than a lock would.
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
        """Let nobody begin anything, and wait until nobody is at work, but for a few seconds at most."""
        self._growing.acquire()
        end = time.monotonic() + _PATIENCE
        while self._inside and time.monotonic() < end:
            time.sleep(_MOMENT)

    def let_go(self) -> None:
        """Let others begin again."""
        if self._growing.locked():
            self._growing.release()

    def get(self, names: Sequence[bytes], keys: Sequence[Sequence[bytes]]) -> list[Found]:
        """Return state and rows of some spaces; see `OnlineStore.get_all`."""
        return self.read(_get, names, keys)

    def write(self, step: Callable[..., T], *arguments: object) -> T:
        """Take a step in a transaction that changes something: all of it, or nothing.

        The entries of readers that were killed go first, since no page is used again that an entry may need.

        Raises:
            StoreError: It could not be written; what was there is there still.
        """
        if self._readonly:
            raise read_only(self._folder / _FILE)
        return self.read(step, *arguments, write=True)

    def read(self, step: Callable[..., T], *arguments: object, write: bool = False) -> T:
        """Take a step in a transaction that sees one state of everything.

        It is taken again with more room, if there was too little or another process made more.

        Raises:
            StoreError: It could not be read.
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
            except lmdb.MapResizedError:
                size = 0
            except lmdb.ReadersFullError as error:
                if not self._lmdb.reader_check():
                    raise self._failed("read", error) from error
                continue
            except lmdb.MapFullError:
                size = 2 * self._lmdb.info()["map_size"]
            except lmdb.Error as error:
                raise self._failed("written, and is as it was" if write else "read", error) from error
            finally:
                self._inside.pop()
            self._grow(size)

    def _failed(self, what: str, error: Exception) -> StoreError:
        return StoreError(f"The online store {self._folder} could not be {what}: {error}")

    def _grow(self, size: int | None) -> None:
        """Make the map larger, or as large as another process has made it (0), once nobody is at work; None: wait."""
        with self._growing:
            while self._inside and size is not None:
                time.sleep(_MOMENT)
            if size == 0 or (size and size > self._lmdb.info()["map_size"]):
                self._lmdb.set_mapsize(size)


class _Unlocked:
    """An LMDB environment that this process may read, but not lock: in a read-only folder, or one of another user."""

    def __init__(self, file: Path) -> None:
        self._folder = file.parent
        self._file = PageFile(file)
        if not self._file.is_known:
            self.close()
            raise StoreError(
                f"The online store {self._folder} cannot be read by this user: it is read-only for it, and {file.name} is "
                f"of another layout than pages can be read from. Let this user write {self._folder / _LOCK_FILE}."
            )
        self._tree: Tree | None = None

    def close(self) -> None:
        self._file.close()

    def hold(self) -> None:
        """Nothing to wait for: a forked process may close its copy of the file at any time."""

    let_go = hold

    def get(self, names: Sequence[bytes], keys: Sequence[Sequence[bytes]]) -> list[Found]:
        """Return state and rows of some spaces; see `OnlineStore.get_all`.

        When a snapshot goes, the next one goes on after the rows that were read, if the heads of the spaces are the same
        there: no row of a space changes without its head.
        """
        heads: list[bytes | None] = []
        rows: list[list[bytes | None]] = []

        def go_on(tree: Tree) -> list[Found]:
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

        return self.read(go_on)

    def read(self, step: Callable[..., T], *arguments: object) -> T:
        """Take a step on the newest snapshot, and again on the next if that goes meanwhile.

        Raises:
            StoreError: It cannot be read, or snapshots went all the time.
        """
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return step(self._newest(), *arguments)
            except Moved:
                if time.monotonic() > end:
                    break
        raise StoreError(
            f"The online store {self._folder} could not be read: it changed all the time, and this user may not lock it. Ask "
            f"for fewer entities at once, or let this user write {self._folder / _LOCK_FILE}."
        )

    def write(self, *_: object) -> NoReturn:
        """Refuse to change anything.

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
    """Close the environments of this process; they open again when they are next used."""
    while _open_environments:
        _open_environments.popitem()[1].close()


def _before_fork() -> None:
    """Wait until nobody reads: when the child closes what it inherits, LMDB forgets the readers of this process."""
    for environment in list(_open_environments.values()):
        environment.hold()


def _after_fork(*, in_child: bool) -> None:
    global _opening  # noqa: PLW0603 - the lock may be held by a thread that is not here
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
    for name, some in zip(names, keys):  # noqa: B905 - there are as many
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
    """Give a space's generation and count of rows, if its state is the expected one."""
    head = transaction.get(_SPACES + space.encode())
    if (None if head is None else head[_HEAD.size :]) != expected:
        raise Conflict(f"Another load of {space} was first.")
    return (0, 0) if head is None else _HEAD.unpack_from(head)


def _point(transaction: Transaction, space: str, generation: int, count: int, state: bytes) -> None:
    transaction.put(_SPACES + space.encode(), _HEAD.pack(generation, count) + state)


def _change(transaction: Transaction, space: str, expected: bytes, state: bytes, entries: Entries) -> int:
    generation, count = _expect(transaction, space, expected)
    count += _put(transaction, generation, entries)
    _point(transaction, space, generation, count, state)
    return count


def _forget(transaction: Transaction, space: str) -> None:
    if head := transaction.pop(_SPACES + space.encode()):
        _throw_away(transaction, space, head[:8])


def _begin_generation(transaction: Transaction, space: str) -> int:
    """Take a number; until it is used it counts as thrown away, so that nothing of it stays if this process ends."""
    number = _NUMBER.unpack(transaction.get(_NEXT, _NUMBER.pack(1)))[0]
    transaction.put(_NEXT, _NUMBER.pack(number + 1))
    _throw_away(transaction, space, _NUMBER.pack(number))
    return int(number)


def _throw_away(transaction: Transaction, space: str, generation: bytes) -> None:
    name = _TRASH + space.encode()
    transaction.put(name, transaction.get(name, b"") + generation)


def _append(transaction: Transaction, generation: int, entries: Entries) -> int:
    """Put rows that are not there yet; quicker if they come after all that is there."""
    prefix = _ROWS + _NUMBER.pack(generation)
    cursor = transaction.cursor()
    last = cursor.key() if cursor.last() else b""
    rows = zip(map(prefix.__add__, entries.keys), entries.values, strict=True)
    cursor.putmulti(rows, append=bool(entries.keys) and prefix + entries.keys[0] > last)
    return len(entries)


def _put(transaction: Transaction, generation: int, entries: Entries) -> int:
    """Put and remove rows, and tell how many more there are then."""
    prefix, more = _ROWS + _NUMBER.pack(generation), 0
    for key, value in zip(entries.keys, entries.values, strict=True):
        if value is None:
            more -= transaction.delete(prefix + key)
        else:
            more += transaction.replace(prefix + key, value) is None
    return more


def _finish(transaction: Transaction, space: str, one: LoadAttempt, generation: int, count: int) -> None:
    """Point a space to the generation that was made, and throw the one before away."""
    before, _ = _expect(transaction, space, one.expected)
    transaction.put(_TRASH + space.encode(), _NUMBER.pack(before))
    _point(transaction, space, generation, count, one.state)


def _sweep_some(transaction: Transaction, space: str) -> bool:
    """Remove some rows of a generation that was thrown away; tell whether there may be more."""
    name = _TRASH + space.encode()
    waste = transaction.get(name, b"")
    prefix = _ROWS + waste[:8]
    found = _keys_from(transaction, prefix, prefix) if waste else []
    for key in found:
        transaction.delete(key)
    if waste and len(found) < _AT_ONCE:
        transaction.put(name, waste[8:])
    return bool(waste)
