"""The contract of every online store, including its edge cases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Found = tuple[bytes, list[bytes | None]]
"""The state of a space, and the row of each requested key."""

LONGEST_KEY = 480
"""The maximum length of a key, in bytes."""


@dataclass(frozen=True)
class Entries:
    """A batch of rows, sorted by key.

    Args:
        keys: The keys, without duplicates.
        values: The row of each key; None removes it.
        expires: When the store may drop each row, in microseconds since 1970; None: never.
    """

    keys: Sequence[bytes]
    values: Sequence[bytes | None]
    expires: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class LoadAttempt:
    """One attempt of a load: all rows of a space or, in a retry, those that changed since the previous attempt.

    Args:
        parts: The rows.
        expected: The state that the space must have now; None: the space must not exist.
        state: The state that the space gets.
    """

    parts: Iterable[Entries]
    expected: bytes | None
    state: bytes


class OnlineStore(Protocol):
    """A key-value store of rows, as bytes, in spaces that are independent of each other.

    Besides its rows, a space has a state: bytes that describe what the rows were made from. Rows and state change
    together, for all readers at once, and no reader waits for a writer.
    """

    most_changes: int
    """The maximum number of rows in one `change`; larger changes need `replace`."""

    forgets: bool
    """Whether the store removes rows by itself once they have expired."""

    waits: bool
    """Whether a read waits for a server, possibly on another machine."""

    def get(self, space: str, keys: Sequence[bytes]) -> Found:
        """Return the state of a space and the row of each key, in the order of the keys; None for a key without a row.

        The state and all rows belong together: no load comes in between.

        Raises:
            KeyError: There is no such space: it was never loaded, or it was dropped.
            StoreError: The store cannot be read.
        """

    def get_all(self, spaces: tuple[str, ...], keys: Sequence[Sequence[bytes]]) -> list[Found]:
        """Return what `get` returns, for several spaces with keys for each. Each space is read as of one moment.

        Raises:
            KeyError: There is no such space.
            StoreError: The store cannot be read.
        """

    def keys(self, space: str) -> Iterator[bytes]:
        """Yield the keys of a space, in any order. Keys that are put or removed in the meantime may be missing.

        Raises:
            KeyError: There is no such space.
        """

    def change(self, space: str, expected: bytes, state: bytes, entries: Entries) -> int:
        """Put and remove some rows, and set the state, atomically.

        Returns:
            The number of rows that the space has afterwards.

        Raises:
            Conflict: The state is not the expected one. Nothing was changed.
            StoreError: The store cannot be written. Nothing was changed.
        """

    def replace(self, space: str, attempts: Iterable[LoadAttempt]) -> int:
        """Replace all rows of a space, and set the state.

        The parts of the first attempt are written as they come, beside the present rows. They become visible together, if
        the space has the state that the attempt expects. If it has another state, the parts of the next attempt are
        written over them. If no attempt succeeds, the present rows stay, and the rows written are removed, at the latest
        by the next `replace`.

        Returns:
            The number of rows that the space has afterwards.

        Raises:
            Conflict: The state was not the expected one in any attempt.
            StoreError: The store cannot be written. Nothing was changed.
        """

    def drop(self, space: str) -> None:
        """Remove a space with its rows and its state; do nothing if there is no such space."""
