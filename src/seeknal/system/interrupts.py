"""Ctrl-C raises KeyboardInterrupt, even if a library (DuckDB) turns the signal into an error of its own."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

from seeknal.system.forks import PerProcess

T = TypeVar("T")

_INTERRUPT_MESSAGE = re.compile(
    r"\A(Query interrupted|INTERRUPT Error: .*)\Z|(^|failed: )KeyboardInterrupt:?\s*\Z", re.MULTILINE
)
"""DuckDB's messages for an interrupt, which it noticed itself during a query, or which came from Python data that it read."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Re-raise a library's interrupt error as KeyboardInterrupt; other errors pass through."""
    try:
        yield
    except Exception as error:
        raise_interrupt(error)
        raise


def raise_interrupt(error: Exception) -> None:
    """Raise KeyboardInterrupt if this error is how a library reports an interrupt; otherwise return."""
    if _INTERRUPT_MESSAGE.search(str(error)):
        raise KeyboardInterrupt from None


@contextmanager
def insistent() -> Iterator[list[int]]:
    """Within the block, raise KeyboardInterrupt after a Ctrl-C repeatedly, until the block has ended.

    Some libraries swallow an exception that is raised within them, or replace it by an error of their own: pandas while it is
    imported, for example, or Python itself in a finalizer. While a KeyboardInterrupt is being handled, no second one is raised, so
    that the handlers can clean up.

    Yields:
        The signals received so far.
    """
    pressed: list[int] = []
    # Only the main thread may set signal handlers, and a handler that the caller has set is theirs.
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield pressed
        return

    def press(number: int, _frame: object) -> None:
        pressed.append(number)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        if not _is_ending(sys.exception()):
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, press)
    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, before)


def _is_ending(error: BaseException | None) -> bool:
    """Return whether an error is a KeyboardInterrupt, or was raised while one was handled."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def interruptible_calls(connection: T) -> T:
    """Return a proxy for a DuckDB connection whose methods raise KeyboardInterrupt on Ctrl-C.

    The cursors and relations that those methods return are wrapped in the same way. A call from the main thread runs in a
    worker thread: DuckDB 2.0 misses a Ctrl-C while its calling thread waits for its other threads, for as long as the query
    takes.
    """
    return cast("T", _Proxy(connection, connection))


class _Proxy:
    """A proxy for a DuckDB object.

    Args:
        target: The object.
        connection: The connection that its queries run on.
    """

    def __init__(self, target: object, connection: Any) -> None:
        self._target = target
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not callable(method):
            return method

        def call(*arguments: object, **options: object) -> Any:
            if name in _QUICK or threading.current_thread() is not threading.main_thread():
                with interruptible():
                    result = method(*arguments, **options)
            else:
                result = _run_in_worker(lambda: method(*arguments, **options), self._connection.interrupt)
            if not type(result).__module__.lstrip("_").startswith("duckdb"):
                return result
            return _Proxy(result, result if hasattr(result, "interrupt") else self._connection)

        return call


def _run_in_worker(step: Callable[[], T], interrupt: Callable[[], object]) -> T:
    """Run a DuckDB call in the worker thread, and return its result.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed in the meantime, and the call has ended.
    """
    task = _Task(step)
    try:
        try:
            _worker().put(task)
        except RuntimeError:  # the interpreter starts no threads while it shuts down
            return step()
        # A signal that arrives just before a wait does not wake it: Python notices it only after the wait, so waits are short.
        while not task.done.wait(_BETWEEN):
            pass
    except BaseException:
        # The caller may release what the call uses (tables, files) as soon as this returns, so the call must have ended.
        task.stop(interrupt)
        raise
    return task.result()


class _Task(Generic[T]):
    """A step that runs in the worker thread."""

    def __init__(self, step: Callable[[], T]) -> None:
        self._step = step
        self._lock = threading.Lock()
        self._is_begun = self._is_stopped = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self.done = threading.Event()

    def __call__(self) -> None:
        """Run the step, unless it was stopped before."""
        with self._lock:
            self._is_begun = not self._is_stopped
        try:
            if self._is_begun:
                self._result = self._step()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._error = error
        finally:
            self.done.set()

    def stop(self, interrupt: Callable[[], object]) -> None:
        """Interrupt the step until it has ended, or prevent it from starting."""
        with self._lock:
            self._is_stopped = True
        while self._is_begun and not self.done.is_set():
            interrupt()
            self.done.wait(_BETWEEN)

    def result(self) -> T:
        """Return the result of the step that has ended, or raise its error."""
        error, self._error = self._error, None  # otherwise the error and its traceback would keep each other alive
        if error is not None:
            with interruptible():
                raise error
        return cast("T", self._result)


def _start_worker() -> SimpleQueue[Callable[[], object]]:
    """Start the worker thread, and return the queue of its steps.

    It is not a thread pool: a pool that a Ctrl-C interrupts while it starts a thread forgets that thread, and the process waits for
    it at its end. The process does not wait for a daemon thread, and this one is idle by then: a caller waits for its step to end.
    """
    steps = SimpleQueue[Callable[[], object]]()

    def work() -> None:
        while True:
            steps.get()()

    threading.Thread(target=work, name="seeknal-duckdb", daemon=True).start()
    return steps


_QUICK = {"close", "cursor", "register", "unregister"}
"""Methods that run no query. They run in the calling thread, which saves a tenth of a millisecond per call."""
_BETWEEN = 0.05
"""Seconds between two looks at a step that runs, and between two interrupts of it: one before its query begins has no effect."""
_AGAIN = 0.5
"""Seconds until a Ctrl-C that had no effect is raised again."""
_worker = PerProcess(_start_worker)
