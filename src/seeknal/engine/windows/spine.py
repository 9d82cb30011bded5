"""Windowed features of the rows of a spine, from unsorted events: entities are numbered, and cut into shares for the cores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from seeknal.define.aggregations import WindowedFeature
from seeknal.engine.numbering import by_partition, dense, number_entities
from seeknal.engine.windows.inputs import Events, Moments
from seeknal.engine.windows.kernel import compute
from seeknal.system.parallel import parallel_map
from seeknal.values.moments import gather

_SHARE = 2**18
"""The approximate number of events in a share. Smaller ones fit better in the processor's cache, but each calls NumPy as often."""
_MOST_SHARES = 2**16
"""`by_partition` keeps the number of a share in 16 bits."""


@dataclass(frozen=True)
class Stored:
    """Events as an engine reads them.

    Args:
        rows: k0, k1, ... (keys, none of which is null), t (microseconds), and the columns and masks, in any order. Where the order of
            events of equal time matters, also id, and created if the source has a created time.
        columns: The names in `rows` of the columns that features aggregate, by their own names.
        masks: The names in `rows` of the conditions of features, by their text: bools, or null.
    """

    rows: pa.Table
    columns: Mapping[str, str]
    masks: Mapping[str, str]

    def events(self, places: np.ndarray, entity: np.ndarray, t: np.ndarray) -> Events:
        """Return some of the events, in the order of these places."""
        taken = self.rows.take(pa.array(places)) if self.columns or self.masks else self.rows
        masks = {text: taken[name].fill_null(False).to_numpy() for text, name in self.masks.items()}
        return Events(entity, t, {own: taken[name] for own, name in self.columns.items()}, masks)


def windows_at(
    stored: Stored, moments: pa.Table, features: Sequence[WindowedFeature], hop: int | None
) -> list[pa.ChunkedArray]:
    """Return the values of windowed features at the moments of a spine.

    Args:
        stored: The events, each once.
        moments: k0, k1, ... of the same types, and t (the moments). A row with a null sees no events.
        features: The features.
        hop: See `compute`.

    Returns:
        For each feature a column with one value per row of the spine, in the spine's order.

    Raises:
        DataError: A sum does not fit in its type.
    """
    at = moments["t"]
    t = at.fill_null(0).to_numpy()
    if not len(stored.rows):
        nobody = Moments(np.full(len(t), -1), t)
        none = stored.events(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))
        return [pa.chunked_array([column]) for column in compute(none, nobody, features, hop)]
    entities = number_entities(stored.rows, moments)
    if entities.size > 2 * len(
        stored.rows
    ):  # the kernel's codes have room for a number of entities like that of the events
        entities = dense(entities)
    asked = np.where(at.is_valid().to_numpy(), entities.high, -1)
    shares = min(-(-len(stored.rows) // _SHARE), _MOST_SHARES)
    width = -(-entities.size // shares)
    # Rows without an entity go to the first share; each share computes what an empty window gives by itself.
    starts, order = by_partition(entities.rows, width, shares)
    moment_starts, moment_order = by_partition(np.maximum(asked, 0), width, shares)

    def share(number: int) -> list[pa.Array]:
        rows = order[starts[number] : starts[number + 1]]
        spine = moment_order[moment_starts[number] : moment_starts[number + 1]]
        first = number * width
        rows, entity, times = _sorted(stored.rows, rows, entities.rows)
        whose = np.where(asked[spine] < 0, -1, asked[spine] - first)
        ordered, places = Moments(whose, t[spine]).sorted()
        if places is not None:
            # The results stay in this order, so that all of them are put in the spine's order once, at the end.
            spine[places] = spine.copy()
        return compute(stored.events(rows, entity - first, times), ordered, features, hop)

    found = parallel_map(share, range(shares), serial=shares == 1)
    if shares == 1:
        columns = [pa.chunked_array([one]) for one in found[0]]
    else:
        columns = [pa.chunked_array(parts) for parts in zip(*found, strict=True)]
    if np.array_equal(moment_order, np.arange(len(t))):
        return columns
    places = np.empty_like(moment_order)
    places[moment_order] = np.arange(len(t))
    return gather(columns, places)


def _sorted(rows: pa.Table, places: np.ndarray, entities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order some of the events by entity, event time, created time and row number.

    Returns:
        Their places, entities and event times, in that order.
    """
    entity, t = entities[places], rows["t"].to_numpy()[places]
    if not len(places):
        return places, entity, t
    base, first = int(entity.min()), int(t.min())
    span = int(t.max()) - first + 1
    if (int(entity.max()) - base + 1) * span < 2**63:
        codes = (entity - base) * span + (t - first)  # one number is sorted several times faster than two
        order = np.argsort(codes)
        tied = np.flatnonzero(codes[order[1:]] == codes[order[:-1]])
    else:
        order = np.lexsort((t, entity))
        tied = np.flatnonzero((entity[order[1:]] == entity[order[:-1]]) & (t[order[1:]] == t[order[:-1]]))
    if len(tied):  # ties are few: only they are sorted again
        tied = np.union1d(tied, tied + 1)
        among = order[tied]
        by = [rows[name].to_numpy()[places[among]] for name in ("id", "created") if name in rows.column_names]
        order[tied] = among[np.lexsort([*by, t[among], entity[among]])]
    return places[order], entity[order], t[order]
