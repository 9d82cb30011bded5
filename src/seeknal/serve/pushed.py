"""Rows in the push log that are not online yet, which lookups add to what is online."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, TypeVar

import pyarrow as pa

from seeknal.errors import StoreError
from seeknal.offline.push_log import Batch, PushLog
from seeknal.online import Codec, WireRow
from seeknal.system.forks import PerProcess

T = TypeVar("T")
_TRIES, _STEP = 500, 0.004
"""How often a lookup reads again, and how many seconds it waits before."""
_last = attrgetter("last")


class LaggingError(Exception):
    """The online rows were read before a load that the push log already counts on: they have to be read again.

    Args:
        rows: The rows in the log that the online rows were read with.
        snapshot: The snapshot that the online rows were loaded from.
        was_loaded: Whether what is missing was loaded before the log was read. Then rows that are read now and lag like this
            belong to a store that loads leave alone, because its rows belong to another home, for example.
    """

    def __init__(self, rows: PushedRows, snapshot: int, *, was_loaded: bool) -> None:
        super().__init__()
        self.rows, self.snapshot, self.was_loaded = rows, snapshot, was_loaded


class _View(NamedTuple):
    """What the log had at one moment.

    Args:
        token: The token of the log.
        rows: The rows by entity, each with the number of its entry, in the order of the log.
        batches: The batches.
        seen: The number of the last entry.
        removed: The newest snapshot of which entries were removed.
    """

    token: bytes
    rows: Mapping[bytes, list[tuple[int, WireRow]]]
    batches: Sequence[Batch]
    seen: int
    removed: int


class PushedRows:
    """The rows in the push log that concern one part of an online table.

    Args:
        log: The push log of the home.
        stream: The stream of the group whose rows are pushed.
        version: The version whose rows the part has; None: it is computed from those of all versions.
        codec: The codec of the part.
    """

    def __init__(self, log: PushLog, stream: str, version: int | None, codec: Codec) -> None:
        self._log, self._stream, self._version, self._codec = log, stream, version, codec
        self._lock = PerProcess(threading.Lock)
        self._view = _View(b"", {}, (), 0, -1)
        self._excused: int | None = None

    def __reduce__(self) -> tuple[type[PushedRows], tuple[PushLog, str, int | None, Codec]]:
        return PushedRows, (self._log, self._stream, self._version, self._codec)

    def after(self, snapshot: int, keys: Sequence[bytes]) -> list[list[WireRow]] | None:
        """Return for each entity its rows that no snapshot up to the one given holds, in the order of pushes; None if there are none.

        The online rows have to be read before this call.

        Args:
            snapshot: The snapshot that the online rows were loaded from.
            keys: The encoded keys of the entities.

        Raises:
            LaggingError: The online rows lack rows that were removed from the log, or may have rows of a commit in progress.
        """
        view = self._view
        if (token := self._log.token()) != view.token:
            with self._lock():
                view = self._view = self._read(token, self._view)
        if view.removed > snapshot != self._excused:
            raise LaggingError(self, snapshot, was_loaded=True)
        if not view.rows:
            return None
        found = [
            [row for number, row in view.rows.get(key, ()) if self._is_after(view.batches, number, snapshot)]
            for key in keys
        ]
        return found if any(found) else None

    def excuse(self, snapshot: int) -> None:
        """Take online rows from a snapshot as they are from now on."""
        self._excused = snapshot

    def _read(self, token: bytes, before: _View) -> _View:
        contents = self._log.contents(self._stream, before.seen)
        rows: dict[bytes, list[tuple[int, WireRow]]] = {}
        for key, known in before.rows.items():
            if kept := [one for one in known if one[0] > contents.removed_last]:
                rows[key] = kept
        for entry in contents.entries:
            if self._version in {None, entry.version}:
                for key, row in self._codec.pushed(pa.Table.from_batches([entry.batch()])):
                    rows.setdefault(key, []).append((entry.number, row))
        seen = contents.entries[-1].number if contents.entries else before.seen
        return _View(token, rows, contents.batches, seen, contents.removed(self._version))

    def _is_after(self, batches: Sequence[Batch], number: int, snapshot: int) -> bool:
        """Return whether no snapshot up to the one given holds an entry.

        Raises:
            LaggingError: The entry is being committed, and nobody knows yet whether as the snapshot given or as a later one.
        """
        place = bisect_left(batches, number, key=_last)
        if place == len(batches):
            return True
        batch = batches[place]
        if not batch.stored and batch.snapshot <= snapshot:
            raise LaggingError(self, snapshot, was_loaded=False)
        return batch.snapshot > snapshot


def until_level(read: Callable[[], T]) -> T:
    """Return what a step reads from the online store, which it does again while that lags behind the push log.

    Raises:
        StoreError: A commit of pushed rows does not end.
    """
    seen = set[tuple[PushedRows, int]]()
    for _ in range(_TRIES):
        try:
            return read()
        except LaggingError as error:
            # Only what was read since then, and lags all the same, will never be loaded.
            one = error.rows, error.snapshot
            if error.was_loaded and one in seen:
                error.rows.excuse(error.snapshot)
            seen.update([one] if error.was_loaded else [])
            time.sleep(_STEP)
    raise StoreError(
        "A commit of rows that were just pushed does not end, so it is not known yet whether the online rows have them: the offline tables "
        "may be away. Try again."
    )
