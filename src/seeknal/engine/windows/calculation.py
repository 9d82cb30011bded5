"""Which function computes which aggregation, and what several aggregations of one selection share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from seeknal.define.aggregations import Aggregation, kinds
from seeknal.engine.windows import ends, extremes, grouped, ranked, sketches, spread, sums
from seeknal.engine.windows.blocks import Block
from seeknal.engine.windows.keys import Keys
from seeknal.engine.windows.order import ValueOrder
from seeknal.engine.windows.selection import Selection, Windows


class Calculation:
    """Aggregations of the events of one selection.

    Args:
        selection: The events.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection

    @cached_property
    def totals(self) -> sums.Totals:
        """The sums of the values."""
        return sums.Totals(self._selection)

    @cached_property
    def power_sums(self) -> spread.PowerSums:
        """The sums of the powers of the values."""
        return spread.PowerSums(self._selection)

    @cached_property
    def order(self) -> ValueOrder:
        """The order of the values."""
        return ValueOrder(self._selection.segment, self._selection.keys.numbers)

    @cached_property
    def rounded(self) -> Selection:
        """The same events, with values rounded to the buckets of a sketch."""
        return replace(self._selection, column=pa.array(sketches.rounded(ranked.floats_of(self._selection))))

    @cached_property
    def rounded_order(self) -> ValueOrder:
        """The order of the rounded values."""
        return ValueOrder(self.rounded.segment, self.rounded.keys.numbers)

    @cached_property
    def by_value(self) -> grouped.Grouped:
        """The events by their values."""
        return grouped.Grouped(self._selection.segment, self._selection.keys, self.order)

    @cached_property
    def by_key(self) -> grouped.Grouped:
        """The events by the keys of maps."""
        return grouped.Grouped(self._selection.segment, Keys.of(self._selection.by))

    @cached_property
    def _ordered_by_key(self) -> Selection:
        return self.by_key.ordered(self._selection)

    def of(self, aggregation: Aggregation, windows: Windows, moments: np.ndarray) -> pa.Array:
        """Return the result of an aggregation for each window; null where there is none, whatever its `fill` is.

        Args:
            aggregation: The aggregation.
            windows: Windows over the selection.
            moments: The instant at which each window ends.

        Raises:
            BeyondTypeError: A sum does not fit in its type.
        """
        if aggregation.by is None:
            return self._plain(aggregation, windows, moments)
        known: dict[int, Calculation] = {}

        def of(block: Block, start: np.ndarray, stop: np.ndarray) -> pa.Array:
            if block.low not in known:
                known.clear()
                known[block.low] = Calculation(self._ordered_by_key.part(block.low, block.high))
            inner = known[block.low]
            return inner._plain(aggregation, Windows(inner._selection, start, stop), moments)  # noqa: SLF001 - of its class

        return grouped.maps(windows, self.by_key, of, aggregation.k)

    def _plain(self, aggregation: Aggregation, windows: Windows, moments: np.ndarray) -> pa.Array:
        if isinstance(aggregation, kinds.Sum):
            return sums.total(windows, self.totals)
        if isinstance(aggregation, kinds.TimeSinceFirst | kinds.TimeSinceLast):
            is_first = isinstance(aggregation, kinds.TimeSinceFirst)
            return ends.since(windows, moments, kinds.UNITS[aggregation.unit], oldest=is_first)
        return _FUNCTIONS[type(aggregation)](self, windows, aggregation)


# The aggregation has the type of its entry, which no annotation can say.
_FUNCTIONS: dict[type[Aggregation], Callable[[Calculation, Windows, Any], pa.Array]] = {
    kinds.Count: lambda _known, windows, _: pa.array(windows.count),
    kinds.Mean: lambda known, windows, _: sums.mean(windows, known.totals),
    kinds.Var: lambda known, windows, of: spread.variance(windows, known.power_sums, of.ddof, root=False),
    kinds.Std: lambda known, windows, of: spread.variance(windows, known.power_sums, of.ddof, root=True),
    kinds.Skew: lambda known, windows, _: spread.skewness(windows, known.power_sums),
    kinds.Kurtosis: lambda known, windows, _: spread.kurtosis(windows, known.power_sums),
    kinds.Min: lambda _known, windows, _: extremes.extreme(windows, np.minimum),
    kinds.Max: lambda _known, windows, _: extremes.extreme(windows, np.maximum),
    kinds.First: lambda _known, windows, _: ends.first(windows),
    kinds.Last: lambda _known, windows, _: ends.last(windows),
    kinds.FirstN: lambda _known, windows, of: ends.first_n(windows, of.n),
    kinds.LastN: lambda _known, windows, of: ends.last_n(windows, of.n),
    kinds.Largest: lambda known, windows, of: ranked.extreme_n(windows, known.order, of.n, largest=True),
    kinds.Smallest: lambda known, windows, of: ranked.extreme_n(windows, known.order, of.n, largest=False),
    kinds.Quantile: lambda known, windows, of: ranked.quantile(windows, known.order, of.q),
    kinds.ApproxQuantile: lambda known, windows, of: ranked.quantile(
        replace(windows, selection=known.rounded), known.rounded_order, of.q
    ),
    kinds.CountDistinct: lambda known, windows, _: pa.array(known.by_value.count(windows)),
    kinds.ApproxCountDistinct: lambda known, windows, _: sketches.count_distinct(windows, known.by_value),
    kinds.MostFrequent: lambda known, windows, of: grouped.most_frequent(windows, known.by_value, of.n),
    kinds.Histogram: lambda known, windows, _: grouped.histogram(windows, known.by_value),
}
