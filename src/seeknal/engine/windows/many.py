"""The features of one entity with many events at one moment: sums of tiles, and NumPy over the values of each window.

The results are those of `seeknal.engine.windows.kernel`, to the bit, except that variances may differ by rounding. Aggregations that
are not here are left to the kernel, and so are values that need care, as in `seeknal.engine.windows.one`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import fsum, inf, ldexp, sqrt
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as is_

from seeknal.define.aggregations import WindowedFeature, kinds
from seeknal.engine.windows.one import LEAST_SQUARES, KernelNeededError, checked, takes_fill, windows_at
from seeknal.engine.windows.tiled import CODES, Column, Tiled, Values, times_in

_MANTISSA = 53


class ManyEvents:
    """Computes features from the bytes of one entity.

    Args:
        features: The features.
        schema: The event times, the columns and the conditions.
        columns: The positions of the columns.
        conditions: The positions of the conditions.
        hop: See `compute`.
    """

    def __init__(
        self,
        features: Sequence[WindowedFeature],
        schema: pa.Schema,
        columns: Mapping[str, int],
        conditions: Mapping[str, int],
        hop: int | None,
    ) -> None:
        self._hop, self._size = hop, len(features)
        places: dict[str | None, int] = {None: 0} | dict(columns)
        quick = [i for i, one in enumerate(features) if _can(one, schema.types[places[one.aggregation.source_column]])]
        self._left = sorted({*range(len(features))} - {*quick})
        self._bounds = list(dict.fromkeys((features[i].length, features[i].aggregation.shift) for i in quick))
        keys = list(
            dict.fromkeys((features[i].aggregation.source_column, features[i].aggregation.where) for i in quick)
        )
        self._steps = []
        for i in quick:
            of = features[i].aggregation
            window = self._bounds.index((features[i].length, of.shift))
            selection = keys.index((of.source_column, of.where))
            self._steps.append((i, selection, window, _FUNCTIONS[type(of)](of), of.shift, of.fill))
        self.tiled = Tiled(
            schema,
            [
                Column(
                    places[name], None if where is None else conditions[where], CODES.get(schema.types[places[name]])
                )
                for name, where in keys
            ],
        )

    def at(self, value: bytes, moment: int) -> tuple[list[Any], list[int]]:
        """Return the features at a moment, as wire values, and the positions of those that the kernel has to compute.

        Args:
            value: The bytes of the entity.
            moment: The moment, in microseconds since 1970.
        """
        values = self.tiled.open(value)
        windows = windows_at(times_in(value), self._bounds, moment, self._hop)
        found: list[Any] = [None] * self._size
        left, parts = self._left.copy(), dict[tuple[int, int], _Part]()
        for place, selection, window, function, shift, fill in self._steps:
            if (part := parts.get((selection, window))) is None:
                part = parts[selection, window] = _Part(values[selection], *windows[window])
            try:
                result = function(part, moment - shift)
            except KernelNeededError:
                left.append(place)
            else:
                found[place] = fill if result is None else result
        return found, left


def _can(feature: WindowedFeature, kind: pa.DataType) -> bool:
    """Return whether a feature of a column of this type can be computed here."""
    of = feature.aggregation
    if isinstance(of, kinds.CountDistinct):
        is_known = is_.is_string(kind) or is_.is_signed_integer(kind)
    else:
        is_known = kind in CODES or type(of) in _OF_ANY
    return of.by is None and type(of) in _FUNCTIONS and is_known and takes_fill(of, kind)


class _Part:
    """The values of a selection that are in a window.

    Args:
        values: The values of the selection.
        start: The first event of the window.
        stop: The first event after it.
    """

    def __init__(self, values: Values, start: int, stop: int) -> None:
        self.values, self._events = values, (start, stop)
        self.low, self.high = values.before(start), values.before(stop)
        self.count = self.high - self.low
        self._total: Any = None

    @property
    def array(self) -> np.ndarray:
        """The values, all of which are finite."""
        self._check_finite()
        return self.values.array[self.low : self.high]

    def _check_finite(self) -> None:
        if not (self.values.are_finite or np.isfinite(self.values.array[self.low : self.high]).all()):
            raise KernelNeededError

    def distinct(self) -> int:
        """Return the number of different values."""
        return int(pc.count_distinct(self.values.between(*self._events)).as_py())

    def total(self) -> Any:
        """Return the sum of the values: a whole number, or a float that was rounded once."""
        if self._total is None:
            self._total = self._sum()
        return self._total

    def _sum(self) -> Any:
        self._check_finite()
        tiles, edges = self.values.summands(self.low, self.high)
        if self.values.code != "d":
            return tiles + sum(edges)
        try:
            return fsum(edges + _floats(tiles, self.values.unit)) + 0.0  # never -0.0
        except OverflowError:
            raise KernelNeededError from None


def _floats(whole: int, unit: int) -> list[float]:
    """Return floats whose exact sum is a whole number of units of 2**unit."""
    found = []
    while whole:
        over = max(whole.bit_length() - _MANTISSA, 0)
        top = whole >> over
        found.append(ldexp(top, unit + over))
        whole -= top << over
    return found


Aggregate = Callable[[_Part, int], Any]
"""Returns the result of an aggregation, given a window and the instant at which it ends; None if there is none."""


def _mean(part: _Part, _end: int) -> float | None:
    return float(part.total()) / part.count if part.count else None


def _extreme(pick: np.ufunc) -> Aggregate:
    # To add a zero makes a negative zero a positive one.
    return lambda part, _end: pick.reduce(part.array).item() + 0 if part.count else None


def _spread(ddof: int, *, root: bool) -> Aggregate:
    def of(part: _Part, _end: int) -> float | None:
        if part.count <= ddof:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            differences = _differences(part)
            total, squares = (float(np.add.reduce(one)) for one in (differences, differences * differences))
        # The mean is rounded, so the differences do not add up to zero; see Chan, Golub and LeVeque (1983), equation 1.7.
        squares -= total * total / part.count
        if not LEAST_SQUARES <= squares < inf:  # NaN is not, either
            if differences.min() != differences.max():
                raise KernelNeededError
            squares = 0.0
        found = squares / (part.count - ddof)
        return sqrt(found) if root else found

    return of


def _differences(part: _Part) -> np.ndarray:
    """Return the differences of the values from their mean, as floats."""
    array = part.array
    differences: np.ndarray
    if part.values.code == "d":
        differences = array - part.total() / part.count
    elif int(array.max()) - int(array.min()) < 2**_MANTISSA:
        differences = (array.astype(np.int64) - part.total() // part.count).astype(np.float64)
    else:
        raise KernelNeededError
    return differences


def _since(of: Any, place: Callable[[_Part], int]) -> Aggregate:
    unit = kinds.UNITS[of.unit]
    return lambda part, end: float(end - part.values.items[place(part)]) / unit if part.count else None


def _oldest(part: _Part, n: int) -> list[Any]:
    return part.values.wires(part.low, min(part.low + n, part.high))


def _newest(part: _Part, n: int) -> list[Any]:
    return part.values.wires(max(part.high - n, part.low), part.high)[::-1]


Maker = Callable[[Any], Aggregate]
_OF_ANY: dict[type, Maker] = {
    kinds.Count: lambda _: lambda part, _end: part.count,
    kinds.First: lambda _: lambda part, _end: next(iter(_oldest(part, 1)), None),
    kinds.Last: lambda _: lambda part, _end: next(iter(_newest(part, 1)), None),
    kinds.FirstN: lambda of: lambda part, _end: _oldest(part, of.n) or None,
    kinds.LastN: lambda of: lambda part, _end: _newest(part, of.n) or None,
    kinds.TimeSinceFirst: lambda of: _since(of, lambda part: part.low),
    kinds.TimeSinceLast: lambda of: _since(of, lambda part: part.high - 1),
}
_FUNCTIONS: dict[type, Maker] = _OF_ANY | {
    kinds.Sum: lambda _: lambda part, _end: checked(part.total()) if part.count else None,
    kinds.Mean: lambda _: _mean,
    kinds.Min: lambda _: _extreme(np.minimum),
    kinds.Max: lambda _: _extreme(np.maximum),
    kinds.Var: lambda of: _spread(of.ddof, root=False),
    kinds.Std: lambda of: _spread(of.ddof, root=True),
    kinds.CountDistinct: lambda _: lambda part, _end: part.distinct(),
}
