"""What every online store must do, with its edges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Found = tuple[bytes, list[bytes | None]]
"""The state of a space, and the row of each key that was asked for."""

LONGEST_KEY = 480
"""How many bytes a key may have at most."""


@dataclass(frozen=True)
class Entries:
    """Rows by key, sorted by it.

    Args:
        keys: The keys, each once.
        values: The row of each; None removes it.
        expires: When each may be forgotten, in microseconds since 1970; None: never.
    """

    keys: Sequence[bytes]
    values: Sequence[bytes | None]
    expires: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class LoadAttempt:
    """What a space is to hold, all of it; or what is to be changed in that, if something has changed meanwhile.

    Args:
        parts: The rows.
        expected: The state that the space has now; None: there is no such space.
        state: The state that it is to have.
    """

    parts: Iterable[Entries]
    expected: bytes | None
    state: bytes


class OnlineStore(Protocol):
    """Keeps rows of bytes by key, in spaces that know nothing of each other.

    Beside its rows a space has a state: bytes that say what the rows are made from. Rows and state change
    together, for all readers at once, and no reader waits for a writer.
    """

    most_changes: int
    """How many rows `change` takes at once; more go by `replace`."""

    forgets: bool
    """Whether rows go by themselves once they have expired."""

    waits: bool
    """Whether a read waits for another machine."""

    def get(self, space: str, keys: Sequence[bytes]) -> Found:
        """Give the state of a space and the row of each key, in order; None where there is none.

        All are of one moment.

        Raises:
            KeyError: There is no such space: it was never filled, or it was dropped.
            StoreError: The store cannot be read.
        """

    def get_all(self, spaces: tuple[str, ...], keys: Sequence[Sequence[bytes]]) -> list[Found]:
        """Do what `get` does for several spaces, with keys for each; each is of one moment.

        Raises:
            KeyError: There is no such space.
            StoreError: The store cannot be read.
        """

    def keys(self, space: str) -> Iterator[bytes]:
        """Go through the keys of a space, in any order; those put or removed meanwhile may be left out.

        Raises:
            KeyError: There is no such space.
        """

    def change(self, space: str, expected: bytes, state: bytes, entries: Entries) -> int:
        """Put and remove some rows, and set the state: all of it, or nothing.

        Returns:
            How many rows the space has now.

        Raises:
            Conflict: The state is not the one expected. Nothing was changed.
            StoreError: The store cannot be written. Nothing was changed.
        """

    def replace(self, space: str, rounds: Iterable[LoadAttempt]) -> int:
        """Put rows in place of all that a space holds, and set the state.

        The parts are written one by one as they come, beside what is there, and show all together when the space has
        the state expected then. If it has another, the next round is asked for and its parts are written over these.
        If none does it, what was there stays, and what was written is removed, at the latest by the next `replace`.

        Returns:
            How many rows the space has now.

        Raises:
            Conflict: The state was another in all rounds.
            StoreError: The store cannot be written. Nothing was changed.
        """

    def drop(self, space: str) -> None:
        """Remove a space and all it holds; nothing happens if there is none."""
