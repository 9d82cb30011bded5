"""The aggregations. Nothing in the window: counts are 0, all others null, unless `fill` says otherwise."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import ClassVar

from seeknal.define.aggregations.arguments import check_column
from seeknal.define.aggregations.base import Aggregation, OfColumn, OfSeveral
from seeknal.define.aggregations.fills import NUMBERS, SCALARS
from seeknal.errors import DefinitionError

UNITS = {"seconds": 1_000_000, "minutes": 60_000_000, "hours": 3_600_000_000, "days": 86_400_000_000}
"""The units of `TimeSinceFirst` and `TimeSinceLast`, in microseconds."""


@dataclass(frozen=True, eq=False)
class Count(Aggregation):
    """The number of events, or of values of a column that are not null; NaN is a value.

    Args:
        column: The column. None: count events.
    """

    column: str | None = None
    fills: ClassVar[tuple[type, ...]] = ()

    def __post_init__(self) -> None:
        if self.column is not None:
            object.__setattr__(self, "column", check_column("column", self.column))
        super().__post_init__()


@dataclass(frozen=True, eq=False)
class Sum(OfColumn):
    """The exact sum: of whole numbers as int64, of decimals as a decimal, of floats correctly rounded once.

    A true counts 1. A sum of whole numbers or decimals beyond its type is an error. A sum of floats beyond the largest float is
    infinite, as IEEE 754 rounds it; with a NaN, or infinities of both signs, it is NaN. It is never -0.0.
    """


@dataclass(frozen=True, eq=False)
class Mean(OfColumn):
    """The mean as float64: the exact sum, rounded once, divided by the count; of decimals the float nearest to the exact mean."""


@dataclass(frozen=True, eq=False)
class _Spread(OfColumn):
    """A measure of spread.

    Args:
        ddof: 1 for that of a sample, which is null below two values; 0 for that of a population.
    """

    ddof: int = 1

    def __post_init__(self) -> None:
        if type(self.ddof) is not int or self.ddof not in (0, 1):
            raise DefinitionError(f"ddof={reprlib.repr(self.ddof)} should be 1, for a sample, or 0, for a population.")
        super().__post_init__()


class Var(_Spread):
    """The variance as float64, of the sample unless `ddof=0`. With a NaN or an infinity it is NaN."""


class Std(_Spread):
    """The standard deviation as float64: the square root of the variance."""


@dataclass(frozen=True, eq=False)
class Skew(OfColumn):
    """The skewness m3 / m2 ** 1.5 of the central moments, as float64; null below three values, and where all are equal.

    This is g1 of Joanes and Gill (1998), and the default of scipy.stats.skew, Spark and Chronon. pandas corrects it for bias.
    """


@dataclass(frozen=True, eq=False)
class Kurtosis(OfColumn):
    """The excess kurtosis m4 / m2 ** 2 - 3, as float64; null below four values, and where all are equal.

    This is g2 of Joanes and Gill (1998), and the default of scipy.stats.kurtosis, Spark and Chronon. pandas corrects it for bias.
    """


@dataclass(frozen=True, eq=False)
class Min(OfColumn):
    """The least value. NaN is above all numbers; -0.0 is read as 0.0."""

    fills: ClassVar[tuple[type, ...]] = SCALARS


@dataclass(frozen=True, eq=False)
class Max(OfColumn):
    """The greatest value. NaN is above all numbers; -0.0 is read as 0.0."""

    fills: ClassVar[tuple[type, ...]] = SCALARS


@dataclass(frozen=True, eq=False)
class First(OfColumn):
    """The value of the oldest event: by event time, then created time, then order of writing."""

    orders_ties: ClassVar[bool] = True
    fills: ClassVar[tuple[type, ...]] = SCALARS


@dataclass(frozen=True, eq=False)
class Last(OfColumn):
    """The value of the newest event: by event time, then created time, then order of writing."""

    orders_ties: ClassVar[bool] = True
    fills: ClassVar[tuple[type, ...]] = SCALARS


@dataclass(frozen=True, eq=False)
class FirstN(OfSeveral):
    """The values of the n oldest events, oldest first."""

    orders_ties: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class LastN(OfSeveral):
    """The values of the n newest events, newest first."""

    orders_ties: ClassVar[bool] = True


@dataclass(frozen=True, eq=False)
class Largest(OfSeveral):
    """The n largest values, largest first, with repetitions. NaN is above all numbers; -0.0 is read as 0.0."""


@dataclass(frozen=True, eq=False)
class Smallest(OfSeveral):
    """The n smallest values, smallest first, with repetitions. NaN is above all numbers; -0.0 is read as 0.0."""


@dataclass(frozen=True, eq=False)
class MostFrequent(OfSeveral):
    """The n most frequent values, the most frequent first; of equal counts the smaller value. -0.0 is read as 0.0."""

    n: int = 1


@dataclass(frozen=True, eq=False)
class CountDistinct(OfColumn):
    """The number of distinct values. All NaNs are one value, and so are 0.0 and -0.0."""

    fills: ClassVar[tuple[type, ...]] = ()


@dataclass(frozen=True, eq=False)
class ApproxCountDistinct(OfColumn):
    """The number of distinct values: exact up to 16,384, and beyond with a standard error of 1 %, by adaptive sampling.

    All NaNs are one value, and so are 0.0 and -0.0.
    """

    fills: ClassVar[tuple[type, ...]] = ()


@dataclass(frozen=True, eq=False)
class Histogram(OfColumn):
    """The count of each value, as a list of {value, count}, the greatest count first; of equal counts the smaller value."""

    has_maps: ClassVar[bool] = False
    fills: ClassVar[tuple[type, ...]] = (list,)


@dataclass(frozen=True, eq=False)
class _OfShare(OfColumn):
    """A value that a share of the values is below.

    Args:
        q: The share of values below it, from 0 to 1.
    """

    q: float

    def __post_init__(self) -> None:
        if isinstance(self.q, bool) or not isinstance(self.q, int | float) or not 0 <= self.q <= 1:
            raise DefinitionError(
                f"q={reprlib.repr(self.q)} is not between 0 and 1. Write q=0.5 for the median, for example."
            )
        object.__setattr__(self, "q", float(self.q) + 0.0)  # -0.0 is 0.0
        super().__post_init__()


class Quantile(_OfShare):
    """A quantile as float64, exact, with linear interpolation as in NumPy. NaN is above all numbers.

    Of decimals it is the float nearest to the exact interpolation.
    """


class ApproxQuantile(_OfShare):
    """The quantile of the values rounded to eight significant bits, as float64: at most 0.4 % from `Quantile`.

    This holds if all values have the same sign; otherwise it is at most 0.4 % of the larger of the two values between which it lies.
    In either case, the interpolation between the two is rounded as floats are.
    Whole numbers up to 256 are exact. Numbers that are not finite stay as they are, and NaN is above all numbers.
    """


@dataclass(frozen=True, eq=False)
class _TimeSince(Aggregation):
    """The time from an event to the moment of the window's end, in a unit, as float64: whole microseconds, divided once.

    Below 285 years the microseconds are exact as a float; beyond, the result is within two units of its last place.

    Args:
        unit: "seconds", "minutes", "hours" or "days".
    """

    unit: str = "seconds"
    has_maps: ClassVar[bool] = False
    fills: ClassVar[tuple[type, ...]] = NUMBERS

    def __post_init__(self) -> None:
        if not isinstance(self.unit, str) or self.unit not in UNITS:
            raise DefinitionError(f"unit={reprlib.repr(self.unit)} should be one of: {', '.join(UNITS)}.")
        object.__setattr__(self, "unit", str.__str__(self.unit))
        super().__post_init__()


class TimeSinceFirst(_TimeSince):
    """The time since the oldest event of the window."""


class TimeSinceLast(_TimeSince):
    """The time since the newest event of the window."""


ALL: tuple[type[Aggregation], ...] = (
    *(Count, Sum, Mean, Min, Max, Var, Std, Skew, Kurtosis, First, Last, FirstN, LastN, Largest, Smallest),
    *(
        MostFrequent,
        CountDistinct,
        ApproxCountDistinct,
        Quantile,
        ApproxQuantile,
        Histogram,
        TimeSinceFirst,
        TimeSinceLast,
    ),
)
