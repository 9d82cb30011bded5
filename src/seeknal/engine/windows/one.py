"""The features of one entity at one moment, in plain Python: for a few events, NumPy's calls take longer than the work itself.

The results are those of `seeknal.engine.windows.kernel`, to the bit, except that variances may differ by rounding. Aggregations that
are not here are left to the kernel, and so are values that need care: NaN, infinities, sums beyond a type.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, compress
from math import fsum, sqrt
from operator import mul
from typing import Any

import pyarrow as pa
from pyarrow import types as is_

from seeknal.define.aggregations import WindowedFeature, kinds
from seeknal.engine.windows import sketches

_LARGEST, _SMALLEST = 2**63 - 1, -(2**63)
LEAST_SQUARES = 1e-250
"""A sum of squares that is less may have lost some of them to underflow."""


class KernelNeededError(Exception):
    """A value that only the kernel computes."""


class Window(list[Any]):
    """The values of a window, and the sum of floats once it was computed: several aggregations need it."""

    __slots__ = ("total",)
    total: float


Values = list[Any]
Aggregate = Callable[[Values, int], Any]
"""Returns the result of an aggregation, given the values of a window and the instant at which it ends; None if there is none."""


def windows_at(
    times: Sequence[int], bounds: Sequence[tuple[int | None, int]], moment: int, hop: int | None
) -> list[tuple[int, int]]:
    """Return the positions of the first event of each window, and of the first event after it.

    Args:
        times: The event times, in order.
        bounds: The length of each window, and how long before the moment it ends, in microseconds.
        moment: The moment.
        hop: See `compute`.
    """
    windows = []
    for length, shift in bounds:
        end = moment - shift
        start = 0
        if length is not None:
            instant = end - length
            start = bisect_right(times, instant if hop is None else instant // hop * hop)
        windows.append((start, bisect_right(times, end)))
    return windows


class OneEntity:
    """Computes features from the events of one entity.

    Args:
        features: The features.
        types: The types of the columns that they aggregate.
        columns: The positions of these columns among the lists of values.
        conditions: The positions of the conditions among the lists of values.
        hop: See `compute`.
    """

    def __init__(
        self,
        features: Sequence[WindowedFeature],
        types: Mapping[str, pa.DataType],
        columns: Mapping[str, int],
        conditions: Mapping[str, int],
        hop: int | None,
    ) -> None:
        self._hop = hop
        self._bounds = list(dict.fromkeys((one.length, one.aggregation.shift) for one in features))
        selections = dict.fromkeys((one.aggregation.source_column, one.aggregation.where) for one in features)
        self._selections = [
            (None if column is None else columns[column], None if where is None else conditions[where])
            for column, where in selections
        ]
        self._parts: dict[tuple[int, int], int] = {}
        self._steps = []
        for one in features:
            of = one.aggregation
            kind = None if of.source_column is None else types[of.source_column]
            selection = list(selections).index((of.source_column, of.where))
            window = self._bounds.index((one.length, of.shift))
            function = _function(of, kind)
            assert function is not None  # noqa: S101 - the caller has asked `can`
            part = self._parts.setdefault((selection, window), len(self._parts))
            self._steps.append((part, function, of.shift, of.fill))

    @staticmethod
    def can(feature: WindowedFeature, types: Mapping[str, pa.DataType]) -> bool:
        """Return whether a feature can be computed here, given the types of the columns."""
        of = feature.aggregation
        kind = None if of.source_column is None else types[of.source_column]
        return of.by is None and _function(of, kind) is not None and takes_fill(of, kind)

    def at(self, lists: Sequence[Values], moment: int) -> list[Any]:
        """Return the features at a moment, as wire values.

        Args:
            lists: The event times, in order, and the values of each column and condition.
            moment: The moment, in microseconds since 1970.

        Raises:
            KernelNeededError: A value has to be computed by the kernel.
        """
        windows = windows_at(lists[0], self._bounds, moment, self._hop)
        selected = [self._select(lists, column, condition) for column, condition in self._selections]
        parts = []
        for selection, window in self._parts:
            values, counts = selected[selection]
            start, stop = windows[window]
            if counts is not None:
                start, stop = counts[start], counts[stop]
            parts.append(Window(values[start:stop]))
        found = []
        for part, function, shift, fill in self._steps:
            value = function(parts[part], moment - shift)
            found.append(fill if value is None else value)
        return found

    @staticmethod
    def _select(lists: Sequence[Values], column: int | None, condition: int | None) -> tuple[Values, list[int] | None]:
        """Return the values that count, and how many of the first i events they are, for each i; None if all events count."""
        values = lists[0] if column is None else lists[column]
        if condition is not None:
            mask = (
                lists[condition]
                if None not in values
                else [m and v is not None for m, v in zip(lists[condition], values, strict=True)]
            )
        elif None in values:
            mask = [value is not None for value in values]
        else:
            return values, None
        return list(compress(values, mask)), list(accumulate(mask, initial=0))


def _function(of: Any, kind: pa.DataType | None) -> Aggregate | None:
    """Return the function from the values of a window to the result; None if the kernel has to compute it."""
    if type(of) in _OF_ANY:
        found = _OF_ANY[type(of)](of)
    elif kind is not None and is_.is_float64(kind):
        found = _OF_FLOATS.get(type(of), lambda _: None)(of)
    elif kind is not None and is_.is_signed_integer(kind):
        found = _OF_WHOLE.get(type(of), lambda _: None)(of)
    else:
        found = _OF_TEXT.get(type(of)) if kind is not None and is_.is_string(kind) else None
    return found


def takes_fill(of: Any, kind: pa.DataType | None) -> bool:
    """Return whether `fill` is of the type of the results, as it is; otherwise the kernel converts it."""
    is_float = type(of) in _ARE_FLOATS or (kind is not None and is_.is_float64(kind))
    return of.fill is None or (is_float and type(of.fill) is float)


def _distinct(values: Values, _end: int) -> int:
    return len(set(values))


def _about_distinct(values: Values, end: int) -> int:
    found = _distinct(values, end)
    if found > sketches.MOST:
        raise KernelNeededError
    return found


def checked(total: Any) -> Any:
    """Return the sum of numbers, unless it is a whole number beyond its type."""
    if type(total) is int and not _SMALLEST <= total <= _LARGEST:
        raise KernelNeededError  # which names the feature
    return total


def _sum(values: Iterable[float]) -> float:
    """Return the sum of floats, rounded once."""
    if isinstance(values, Window) and hasattr(values, "total"):
        return values.total
    try:
        found = fsum(values)
    except (OverflowError, ValueError):  # ValueError: infinities of both signs
        raise KernelNeededError from None
    if found - found != 0:  # NaN, or an infinity
        raise KernelNeededError
    found += 0.0  # never -0.0
    if isinstance(values, Window):
        values.total = found
    return found


def _extreme(pick: Callable[[Values], float]) -> Aggregate:
    def of(values: Values, _end: int) -> float | None:
        if not values:
            return None
        found, total = pick(values), sum(values)
        # Comparisons with NaN are false, so a NaN may hide among the values, but not in their sum.
        if total - total != 0:
            raise KernelNeededError
        return found + 0.0  # never -0.0

    return of


def _spread(ddof: int, root: bool) -> Aggregate:
    def of(values: Values, _end: int) -> float | None:
        count = len(values)
        if count <= ddof:
            return None
        mean = _sum(values) / count
        differences = [value - mean for value in values]
        # The mean is rounded, so the differences do not add up to zero; see Chan, Golub and LeVeque (1983), equation 1.7.
        squares = _sum(map(mul, differences, differences)) - _sum(differences) ** 2 / count
        if squares < LEAST_SQUARES:
            if min(values) != max(values):
                raise KernelNeededError
            squares = 0.0
        found = squares / (count - ddof)
        return sqrt(found) if root else found

    return of


def _since(of: Any, place: int) -> Aggregate:
    unit = kinds.UNITS[of.unit]
    return lambda times, end: float(end - times[place]) / unit if times else None


_ARE_FLOATS = {kinds.Mean, kinds.Var, kinds.Std, kinds.TimeSinceFirst, kinds.TimeSinceLast}
Maker = Callable[[Any], Aggregate | None]
_OF_ANY: dict[type, Maker] = {
    kinds.Count: lambda _: lambda values, _end: len(values),
    kinds.First: lambda _: lambda values, _end: values[0] if values else None,
    kinds.Last: lambda _: lambda values, _end: values[-1] if values else None,
    kinds.FirstN: lambda of: lambda values, _end: values[: of.n] or None,
    kinds.LastN: lambda of: lambda values, _end: values[: -of.n - 1 : -1] or None,
    kinds.TimeSinceFirst: lambda of: _since(of, 0),
    kinds.TimeSinceLast: lambda of: _since(of, -1),
}
_OF_TEXT: dict[type, Aggregate] = {kinds.CountDistinct: _distinct, kinds.ApproxCountDistinct: _about_distinct}
_OF_WHOLE: dict[type, Maker] = {
    kinds.Sum: lambda _: lambda values, _end: checked(sum(values)) if values else None,
    # The sum is rounded before the division, as in the kernel.
    kinds.Mean: lambda _: lambda values, _end: float(sum(values)) / len(values) if values else None,
    kinds.Min: lambda _: lambda values, _end: min(values, default=None),
    kinds.Max: lambda _: lambda values, _end: max(values, default=None),
    kinds.CountDistinct: lambda _: _distinct,
    kinds.ApproxCountDistinct: lambda _: _about_distinct,
}
_OF_FLOATS: dict[type, Maker] = {
    kinds.Sum: lambda _: lambda values, _end: _sum(values) if values else None,
    kinds.Mean: lambda _: lambda values, _end: _sum(values) / len(values) if values else None,
    kinds.Min: lambda _: _extreme(min),
    kinds.Max: lambda _: _extreme(max),
    kinds.Var: lambda of: _spread(of.ddof, root=False),
    kinds.Std: lambda of: _spread(of.ddof, root=True),
}
