"""What every online store must do, with its edges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class OnlineStore(Protocol):
    """Keeps rows of bytes by key, in spaces that know nothing of each other."""

    def replace(self, space: str, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Put these rows, sorted by key, in place of all that the space holds.

        They become visible at once and whole; readers are not held up, and see the old or the new.

        Returns:
            How many rows there are now.
        """

    def get(self, space: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give the row of each key, in order, all of one state of the space; None where there is none.

        Raises:
            KeyError: There is no such space: it was never filled, or it was dropped.
        """

    def drop(self, space: str) -> None:
        """Remove a space and all it holds; nothing happens if there is none."""
