"""Taking turns without waiting for each other: plan, try, and plan again when somebody else was first."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from seeknal.errors import StoreError

T = TypeVar("T")
_TRIES = 50


class Conflict(StoreError):  # noqa: N818 - it is no error to the user, but the way to take turns
    """Somebody else was first; plan again on what is there now."""


def retry_on_conflict(label: str, step: Callable[[], T]) -> T:
    """Plan and commit; again, on what is there then, when somebody else was faster.

    Raises:
        StoreError: Others were faster every time.
    """
    for attempt in range(_TRIES):
        try:
            return step()
        except Conflict:
            time.sleep(random.uniform(0, 0.02 * min(attempt + 1, 10)))  # noqa: S311 - no secret
    raise StoreError(f"Others changed {label} during each of {_TRIES} tries. Run it again when it is quieter.")
