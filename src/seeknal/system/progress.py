"""Progress of long-running work: shown on a terminal, reported to a callback, or neither."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

OnProgress = Callable[[str], None]
"""Called with a description of each step as it begins, such as "Joining shop/spend"."""

_PATIENCE = 1.0
"""Seconds that work must take before its progress is shown."""
_showing = Lock()
"""Held while progress is shown, because a terminal has room for one such line only."""


def no_progress(_step: str) -> None:
    """Ignore a step: the default of every `on_progress`."""


@contextmanager
def working(what: str, on_progress: OnProgress | None = None) -> Iterator[OnProgress]:
    """Yield the function to call with each step of some work.

    Args:
        what: Description of the work as a whole, which is the first step.
        on_progress: Called with each step. Without it, the steps are shown on stderr if that is a terminal, no other
            work is being shown, and the work takes more than a second. Nothing is shown in notebooks, logs and pipes.
    """
    if on_progress is not None:
        on_progress(what)
        yield on_progress
    elif sys.stderr is None or not sys.stderr.isatty() or not _showing.acquire(blocking=False):
        yield no_progress
    else:
        try:
            with _shown(what) as update:
                yield update
        finally:
            _showing.release()


@contextmanager
def _shown(what: str) -> Iterator[OnProgress]:
    display = _Display(what)
    timer = Timer(_PATIENCE, display.start)
    timer.daemon = True
    timer.start()
    try:
        yield display.update
    finally:
        timer.cancel()
        timer.join()  # the timer may be starting the display right now, and `stop` must come after that
        display.stop()


class _Display:
    """A line on stderr with the current step and the time since the work began. Rich is imported only to show it."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._bar: tuple[Progress, TaskID] | None = None

    def start(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
        progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar = progress, progress.add_task(self._step, total=None)
        # The elapsed time counts from the beginning of the work, not from its first display.
        progress.tasks[0].start_time = progress.get_time() - _PATIENCE
        progress.start()

    def update(self, step: str) -> None:
        self._step = step
        if self._bar:
            progress, task = self._bar
            progress.update(task, description=step)

    def stop(self) -> None:
        if self._bar:
            self._bar[0].stop()
