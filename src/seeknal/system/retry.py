"""Optimistic concurrency: re-plan and retry when another writer committed first."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from seeknal.errors import StoreError

T = TypeVar("T")
_TRIES = 50


class Conflict(StoreError):  # noqa: N818 - a signal to retry, not an error for the user
    """Another writer committed first; re-plan on the current state."""


def retry_on_conflict(label: str, step: Callable[[], T]) -> T:
    """Run `step` again while it raises Conflict (optimistic concurrency), with a random backoff of up to 0.2 seconds.

    Args:
        label: What the step changes, for the message.
        step: Plans on the current state and commits.

    Returns:
        The result of the first attempt without a conflict.

    Raises:
        StoreError: Other writers committed first in each of 50 attempts.
    """
    for attempt in range(_TRIES):
        try:
            return step()
        except Conflict:
            # Random, because writers that conflicted once would otherwise wake up together and conflict again.
            time.sleep(random.uniform(0, 0.02 * min(attempt + 1, 10)))  # noqa: S311 - backoff, not a secret
    raise StoreError(
        f"Other writers changed {label} during each of {_TRIES} attempts. Try again when fewer of them run."
    )
