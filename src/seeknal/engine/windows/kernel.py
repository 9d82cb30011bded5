"""Windowed features of the rows of a spine, from sorted events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from seeknal.define.aggregations import Aggregation, WindowedFeature
from seeknal.engine.windows.calculation import Calculation
from seeknal.engine.windows.inputs import Events, Moments
from seeknal.engine.windows.selection import Selection, Windows
from seeknal.engine.windows.timeline import Timeline
from seeknal.values import exact

Key = tuple[str | None, str | None, str | None]


def compute(
    events: Events, moments: Moments, features: Sequence[WindowedFeature], hop: int | None = None
) -> list[pa.Array]:
    """Return the values of windowed features at the moments of a spine.

    A value depends on the set of the events alone. Neither the other rows of the spine nor the other entities or features change
    a bit of it.

    Args:
        events: The events.
        moments: The rows of the spine.
        features: The features.
        hop: Align the start of each window down to a multiple of this many microseconds since 1970 in UTC; None: do not.

    Returns:
        For each feature an array of one value per row of the spine, in the spine's order, of the type that `type_of` returns.

    Raises:
        DataError: A sum does not fit in its type; the message names the feature.
    """
    rows, places = moments.sorted()
    timeline = Timeline(events, rows, hop)
    found: dict[int, pa.Array] = {}
    for (column, by, where), members in _by_selection(features).items():
        selection = Selection.of(events, column, by, where)
        calculation = Calculation(selection)
        for alike in _by_aggregation(members, features):
            windows, ends = _stacked(selection, rows, timeline, [features[i] for i in alike])
            values = calculation.of(features[alike[0]].aggregation, windows, ends, features[alike[0]].name)
            for i, number in enumerate(alike):
                one = _filled(values.slice(i * len(rows.t), len(rows.t)), features[number].aggregation)
                found[number] = one if places is None else one.take(pa.array(places))
    return [found[i] for i in range(len(features))]


def _by_selection(features: Sequence[WindowedFeature]) -> dict[Key, list[int]]:
    """Return the numbers of the features by the events that count for them: what is prepared for these is shared."""
    found: dict[Key, list[int]] = {}
    for i, feature in enumerate(features):
        of = feature.aggregation
        found.setdefault((of.source_column, of.by, of.where), []).append(i)
    return found


def _by_aggregation(members: list[int], features: Sequence[WindowedFeature]) -> list[list[int]]:
    """Return the numbers of the features that differ in their windows alone: these are computed at once."""
    found: dict[Aggregation, list[int]] = {}
    for i in members:
        found.setdefault(replace(features[i].aggregation, over=None, offset=None, fill=None), []).append(i)
    return list(found.values())


def _stacked(
    selection: Selection, rows: Moments, timeline: Timeline, features: list[WindowedFeature]
) -> tuple[Windows, np.ndarray]:
    """Return the windows of all moments for the first feature, then those for the second, and so on; and where each ends in time."""
    bounds = [timeline.window(feature.length, feature.aggregation.shift) for feature in features]
    starts, stops = (selection.among(np.concatenate(side)) for side in zip(*bounds, strict=True))
    # Where this wraps around, the moment is long before all events, and the window is empty.
    ends = np.concatenate([rows.t - feature.aggregation.shift for feature in features])
    return Windows(selection, starts, stops), ends


def _filled(values: pa.Array, aggregation: Aggregation) -> pa.Array:
    """Return results with `fill` in place of nulls."""
    if aggregation.fill is None or not values.null_count:
        return values
    if aggregation.fill == ():
        return pa.ListArray.from_arrays(values.offsets, values.values, type=values.type)
    return values.fill_null(exact.column("fill", [aggregation.fill], values.type)[0])
