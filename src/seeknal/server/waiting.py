"""Waiting for a registry that is away while a server starts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

from seeknal.errors import StoreError, is_away

T = TypeVar("T")


class Waiting:
    """Tells the operator what a server waits for, once for each reason."""

    pause = 1.0
    """Seconds after which it is tried again."""

    def __init__(self) -> None:
        self._told = ""

    def is_worth_it(self, error: StoreError) -> bool:
        """Return whether an error says that the registry is away, and tell that the server waits for it."""
        if not is_away(error):
            return False
        if str(error) != self._told:
            print(f"{error} The server starts as soon as it can be.", file=sys.stderr)  # noqa: T201 - for the operator
        self._told = str(error)
        return True


def once_there(step: Callable[[], T]) -> T:
    """Return the result of a step, which is tried again as long as the registry is away.

    Raises:
        StoreError: The step fails for another reason.
    """
    waiting = Waiting()
    while True:
        try:
            return step()
        except StoreError as error:
            if not waiting.is_worth_it(error):
                raise
        time.sleep(waiting.pause)
