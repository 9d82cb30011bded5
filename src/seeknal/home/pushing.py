"""Committing and loading what is in the push log, in the background and before reads."""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - see the end of this module
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from seeknal.errors import GroupDeletedError, SeeknalError, notice, unfinished
from seeknal.registry import GroupRecord
from seeknal.system.forks import PerProcess
from seeknal.system.stamped import Stamped
from seeknal.values.times import Interval
from seeknal.write.pushes import Committed, LoggedPushes

if TYPE_CHECKING:
    from seeknal.define.schema import Schema
    from seeknal.home.core import Core
    from seeknal.write.push import Pushed, Rows

_AGE = 1.0
"""After how many seconds at the latest a push is committed and loaded."""
_RETRY = 10.0
"""After how many seconds that is tried again if it failed."""


class Pushing:
    """The pushes of a home.

    Args:
        core: What the parts of the store share.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._groups = Stamped[GroupRecord](core.registry.stamp)
        self._schemas = Stamped["Schema"](core.registry.stamp)
        self._logged = LoggedPushes(core.catalog, core.engine)
        self._later = PerProcess(lambda: _Later(lambda record: self.flush(record, tells=True)))

    def found(self, name: str, project: str | None, find: Callable[[], GroupRecord]) -> GroupRecord:
        """Return the group of a name, which is looked for only if the registry has changed since the last time."""
        if not (isinstance(name, str) and (project is None or isinstance(project, str))):
            return find()  # which refuses it
        return self._groups.get((name, project), find)

    def schema(self, record: GroupRecord) -> Schema:
        """Return the schema that pushed rows must have."""
        catalog = self._core.catalog
        return self._schemas.get(record, lambda: catalog.gate.closed(lambda: catalog.version(record).schema))

    def push(self, record: GroupRecord, rows: Rows) -> Pushed | None:
        """Append rows to the push log; return None if they have to be committed at once. See `LoggedPushes.push`."""
        pushed = self._logged.push(record, rows)
        if pushed:
            self._later().add(record)
        return pushed

    def committed(self, record: GroupRecord) -> None:
        """Note that a push was committed at once and loaded; the next ones may go through the log."""
        self._logged.committed(record)

    def push_together(self, record: GroupRecord, every: Sequence[Sequence[Mapping[str, Any]]]) -> list[Pushed] | None:
        """Append the rows of several callers to the push log; see `LoggedPushes.push_together`."""
        pushed = self._logged.push_together(record, every)
        if pushed:
            self._later().add(record)
        return pushed

    def resume(self, records: Iterable[GroupRecord]) -> None:
        """Flush in a while what is in the push log of groups: a process that was killed may have left it there."""
        log = self._core.catalog.pushes
        for record in records:
            if log.is_writable and log.has(record.stream):
                self._later().add(record)

    def flush(self, record: GroupRecord, *, tells: bool = False) -> None:
        """Commit what the push log has of a group, load it, and remove it from the log.

        What cannot be loaded stays in the log, where lookups find it.

        Args:
            record: The group.
            tells: Whether to raise an error about what cannot be loaded.

        Raises:
            StoreError: It could not be committed, or not loaded.
            GroupDeletedError: The group was deleted.
        """
        if self._core.catalog.pushes.has(record.stream):
            self._core.catalog.gate.closed(lambda: self._flush(record, tells=tells))

    def commit(self, record: GroupRecord) -> Committed | None:
        """Commit what the push log has of a group, and leave it there; see `LoggedPushes.commit`."""
        with unfinished(
            f"What was pushed to {record.label} is safe in the push log, but could not be committed", "Try again"
        ):
            return self._core.catalog.gate.closed(lambda: self._logged.commit(record))

    def _flush(self, record: GroupRecord, *, tells: bool) -> None:
        core = self._core
        if (done := self.commit(record)) is None:
            return
        told = f"What was pushed to {record.label} is stored, and lookups find it in the push log, but it is not loaded"
        with nullcontext() if tells else suppress(SeeknalError), unfinished(told, "This is tried again"):
            try:
                core.loads.reload_windows(done.state.windowed)
                if record.event_id is None:
                    number = core.catalog.version_of(done.state).number
                    core.loads.follow(done.state, Interval(done.first, None), number)
            except SeeknalError:
                self._logged.refused(record)
                raise
            core.catalog.pushes.remove(record.stream, done.last)

    def close(self) -> None:
        """Flush what this process has pushed."""
        if later := self._later.forget():
            later.close()


class _Later:
    """Flushes groups in a thread, which ends when there is nothing left to flush."""

    def __init__(self, flush: Callable[[GroupRecord], None]) -> None:
        self._flush = flush
        self._due: dict[str, tuple[GroupRecord, float]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        _every.add(self)

    def add(self, record: GroupRecord) -> None:
        """Flush a group in a while, unless that is planned already."""
        if record.stream in self._due:
            return
        with self._changed:
            self._due.setdefault(record.stream, (record, time.monotonic() + _AGE))
            self._wake()

    def _wake(self) -> None:
        if self._thread is None and self._due:
            self._thread = threading.Thread(target=self._run, name="seeknal-pushes", daemon=True)
            self._thread.start()
        self._changed.notify()

    def close(self) -> None:
        """Flush all groups now, and end the thread."""
        with self._changed:
            self._closing = True
            self._wake()
            thread = self._thread
        if thread:
            thread.join()

    def _run(self) -> None:
        try:
            while (record := self._next()) is not None:
                self._try(record)
        except BaseException:
            with self._changed:
                self._thread = None  # so that the next push begins another
            raise

    def _try(self, record: GroupRecord) -> None:
        done = False
        try:
            self._flush(record)
            done = True
        except GroupDeletedError:
            done = True
        except Exception as error:  # noqa: BLE001 - nothing calls this thread, so the user hears of an error only here
            notice(str(error) if isinstance(error, SeeknalError) else f"Committing pushes to {record.label}: {error!r}")
        finally:
            with self._changed:
                if not done and not self._closing:
                    self._due.setdefault(record.stream, (record, time.monotonic() + _RETRY))

    def _next(self) -> GroupRecord | None:
        """Wait for the next group to flush, and return it; None if there is none, and the thread ends."""
        with self._changed:
            while self._due:
                stream, (record, due) = next(iter(self._due.items()))
                wait = 0 if self._closing else due - time.monotonic()
                if wait <= 0:
                    del self._due[stream]
                    return record
                self._changed.wait(wait)
            self._thread = None
            return None


_every: WeakSet[_Later] = WeakSet()


def flush_all() -> None:
    """Flush what this process has pushed to any home."""
    for later in list(_every):
        later.close()


# Commits use thread pools, which end before the functions of `atexit` are called. Those of `threading` are called in reverse order, and
# the pools have registered theirs first.
getattr(threading, "_register_atexit", atexit.register)(flush_all)
