"""The load status of a version: how much of it is loaded into one online store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seeknal.online import State
from seeknal.values.times import Interval, without

if TYPE_CHECKING:
    from seeknal.offline import Snapshot


@dataclass(frozen=True)
class LoadStatus:
    """How much of a version is loaded into one online store.

    Args:
        version: The version.
        place: The location of the store, without its password.
        state: The state of the rows there, which describes what they were made from; None if there are no rows.
        mark: Fingerprint of the files of the version's last snapshot, which a load would read now.
        read: Returns that snapshot.
    """

    version: int
    place: str
    state: State | None
    mark: bytes
    read: Callable[[], Snapshot]

    @property
    def is_fresh(self) -> bool:
        """Whether the rows were made from the version's last snapshot, and their state is not in doubt."""
        return self.state is not None and not self.state.doubted and self.state.files == self.mark

    @property
    def holes(self) -> list[Interval]:
        """Intervals of event time, from the oldest to the newest stored row, that were never loaded."""
        # Per file, the log has the least and the greatest event time, so no rows are read.
        files = self.read().files
        starts = [file.start for file in files if file.start is not None]
        ends = [file.end for file in files if file.end is not None]
        stored = [Interval(min(starts), max(ends))] if starts and ends else []
        return without(stored, self.state.spans if self.state else ())
