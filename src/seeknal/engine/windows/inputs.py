"""What the kernel computes from: the events of some entities, and the moments at which their features are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Events:
    """The events of some entities, each event once, ordered by entity, event time, created time and order of writing.

    Args:
        entity: The number of each event's entity, from 0 on, as int64.
        t: The event times, in microseconds since 1970 in UTC, as int64.
        columns: The columns that features aggregate, in logical types.
        masks: For each condition that features have, whether it is true for an event; false where it is null.
    """

    entity: np.ndarray
    t: np.ndarray
    columns: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Moments:
    """The rows of a spine, in any order.

    Args:
        entity: The number of each row's entity, as int64; -1 where the entity has no events, or a key or the moment is null.
            Such a row gets what an empty window gives, as a join gives nulls there.
        t: The moments, in microseconds since 1970 in UTC, as int64; any number where the entity is -1.
    """

    entity: np.ndarray
    t: np.ndarray

    def sorted(self) -> tuple[Moments, np.ndarray | None]:
        """Return the moments in the order of the events, and where each row is in that order; None if the order is the same.

        Neighbours in this order look at neighbouring events, which are then in the processor's cache.
        """
        before, after = self.entity[:-1], self.entity[1:]
        if bool(np.all((before < after) | ((before == after) & (self.t[:-1] <= self.t[1:])))):
            return self, None
        order = self._order()
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return Moments(self.entity[order], self.t[order]), places

    def _order(self) -> np.ndarray:
        first, last, entities = int(self.t.min()), int(self.t.max()), int(self.entity.max()) + 2
        span = last - first + 1
        if entities * span < 2**63:
            # One number is sorted several times faster than two. Rows of equal entity and moment may come in any order.
            return np.argsort((self.entity + 1) * span + (self.t - first))
        order: np.ndarray = np.lexsort((self.t, self.entity))
        return order
