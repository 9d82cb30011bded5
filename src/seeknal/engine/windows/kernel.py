"""Windowed features of the rows of a spine, from sorted events."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa

from seeknal.define.aggregations import Aggregation, WindowedFeature
from seeknal.engine.windows import limits
from seeknal.engine.windows.calculation import Calculation
from seeknal.engine.windows.inputs import Events, Moments
from seeknal.engine.windows.selection import Selection, Windows
from seeknal.engine.windows.sums import BeyondTypeError
from seeknal.engine.windows.timeline import Timeline
from seeknal.errors import DataError
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
        DataError: A sum does not fit in its type, or a result not in an array; the message names the feature.
    """
    rows, places = moments.sorted()
    timeline = Timeline(events, rows, hop)
    found: dict[int, pa.Array] = {}
    for (column, by, where), members in _by_selection(features).items():
        with _naming(features[members[0]]):
            selection = Selection.of(events, column, by, where)
        calculation, stacks = Calculation(selection), _Stacks(selection, rows, timeline)
        for alike in _by_aggregation(members, features):
            for number, values in zip(alike, _values(calculation, stacks, [features[i] for i in alike]), strict=True):
                with _naming(features[number]):
                    one = _filled(values, features[number].aggregation)
                    found[number] = one if places is None else limits.take(one, places)
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
    # Of one moment, as online, the windows then ascend, so that all of them are one run.
    return [sorted(alike, key=lambda i: _reach(features[i]), reverse=True) for alike in found.values()]


def _reach(feature: WindowedFeature) -> float:
    """Return how far before a moment the window begins."""
    return math.inf if feature.length is None else feature.length + feature.aggregation.shift


class _Stacks:
    """Windows of several features over one selection, made once for all aggregations that have these windows."""

    def __init__(self, selection: Selection, rows: Moments, timeline: Timeline) -> None:
        self._selection, self._rows, self._timeline = selection, rows, timeline
        self._made: dict[tuple[tuple[int | None, int], ...], tuple[Windows, np.ndarray]] = {}

    def of(self, features: list[WindowedFeature]) -> tuple[Windows, np.ndarray]:
        """Return the windows of all moments for the first feature, then for the second, and so on; and where each ends in time."""
        key = tuple((feature.length, feature.aggregation.shift) for feature in features)
        if key not in self._made:
            sides = zip(*(self._timeline.window(length, shift) for length, shift in key), strict=True)
            start, stop = (self._selection.among(np.concatenate(side)) for side in sides)
            # Where this wraps around, the moment is long before all events, and the window is empty.
            ends = np.concatenate([self._rows.t - shift for _, shift in key])
            self._made[key] = Windows(self._selection, start, stop), ends
        return self._made[key]


def _values(calculation: Calculation, stacks: _Stacks, features: list[WindowedFeature]) -> list[pa.Array]:
    """Return the results of features that differ in their windows alone."""
    if len(features) == 1:
        with _naming(features[0]):
            return [calculation.of(features[0].aggregation, *stacks.of(features))]
    try:
        values = calculation.of(features[0].aggregation, *stacks.of(features))
    except (BeyondTypeError, limits.BeyondArrowError):
        # Which one it is, or that one array is too small for all of them only, shows when each is computed by itself.
        return [_values(calculation, stacks, [feature])[0] for feature in features]
    size = len(values) // len(features)
    return [values.slice(i * size, size) for i in range(len(features))]


@contextmanager
def _naming(feature: WindowedFeature) -> Iterator[None]:
    """Raise a DataError that names the feature where its result does not fit."""
    name = feature.name
    try:
        yield
    except BeyondTypeError as error:
        raise DataError(
            f"Feature {name!r} is a sum that does not fit in {error.kind}. Cast the column to a float, or take a shorter window.",
            feature=name,
        ) from None
    except limits.BeyondArrowError:
        smaller = next((f", or a smaller {one}" for one in ("n", "k") if getattr(feature.aggregation, one, None)), "")
        raise DataError(
            f"Feature {name!r} has more values of lists, or bytes of text, than the {limits.MOST:,} that one array can hold. "
            f"Ask for fewer moments at a time{smaller}.",
            feature=name,
        ) from None


def _filled(values: pa.Array, aggregation: Aggregation) -> pa.Array:
    """Return results with `fill` in place of nulls."""
    if aggregation.fill is None or not values.null_count:
        return values
    if aggregation.fill == ():
        return pa.ListArray.from_arrays(values.offsets, values.values, type=values.type)
    return limits.filled(values, exact.column("fill", [aggregation.fill], values.type).chunk(0))
