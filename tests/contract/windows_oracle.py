"""What the contract says of windowed features, in plain loops: slow, obvious, without NumPy and without a line of the kernel.

Definitions come as the dictionaries of `to_json`, with lengths in microseconds, so that nothing of the product is asked.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

UNITS = {"seconds": 10**6, "minutes": 60 * 10**6, "hours": 3600 * 10**6, "days": 86400 * 10**6}


@dataclass(frozen=True)
class Event:
    """One event; the order of the list of events settles equal times."""

    entity: int
    t: int
    values: dict[str, Any]
    true: frozenset[str] = frozenset()
    """The conditions that are true for it."""


@dataclass(frozen=True)
class Asked:
    """A feature: the aggregation, its arguments, and its window in microseconds."""

    aggregation: str
    column: str | None = None
    length: int | None = None
    offset: int = 0
    where: str | None = None
    by: str | None = None
    k: int | None = None
    fill: Any = None
    extra: dict[str, Any] = field(default_factory=dict)


class TooLargeError(Exception):
    """A sum does not fit in its type."""


def value(events: Sequence[Event], entity: int, moment: int, asked: Asked, hop: int | None = None) -> Any:
    """Return a feature of an entity at a moment."""
    end = moment - asked.offset
    start = None if asked.length is None else end - asked.length
    if start is not None and hop is not None:
        start = start // hop * hop
    mine = [
        event
        for event in events
        if event.entity == entity
        and event.t <= end
        and (start is None or event.t > start)
        and (asked.where is None or asked.where in event.true)
    ]
    found = _of(mine, asked, end) if asked.by is None else _map(mine, asked, end)
    if found is None and asked.fill is not None:
        return [] if asked.fill == () else asked.fill
    return found


def _map(events: list[Event], asked: Asked, end: int) -> list[dict[str, Any]] | None:
    keys: list[Any] = []
    for event in events:
        key = event.values[asked.by]
        is_counted = asked.column is None or event.values[asked.column] is not None
        if key is not None and is_counted and key not in keys:
            keys.append(key)
    entries = []
    for key in sorted(keys):
        result = _of([event for event in events if event.values[asked.by] == key], asked, end)
        if result is not None:
            entries.append({"key": key, "value": result})
    if asked.k is not None:
        # Sorting is stable, in reverse too: equal values stay in the order of their keys.
        entries = sorted(entries, key=lambda entry: order(entry["value"]), reverse=True)[: asked.k]
    return entries or None


def order(one: Any) -> Any:
    """Return what a value is sorted by: NaN is above all numbers."""
    if isinstance(one, float):
        return (math.isnan(one), 0.0 if math.isnan(one) else one + 0.0)
    return one


def _of(events: list[Event], asked: Asked, end: int) -> Any:
    name = asked.aggregation
    if name in {"TimeSinceFirst", "TimeSinceLast"}:
        if not events:
            return None
        event = events[0 if name == "TimeSinceFirst" else -1]
        return float(end - event.t) / UNITS[asked.extra["unit"]]
    if asked.column is None:
        return len(events)
    values = [event.values[asked.column] for event in events if event.values[asked.column] is not None]
    if name == "Count":
        return len(values)
    if name in {"CountDistinct", "ApproxCountDistinct"}:
        distinct = [one for one, _ in _counts(values)]
        return len(distinct) if name == "CountDistinct" else sampled(distinct)
    return _FUNCTIONS[name](values, asked.extra) if values else None


def _plain(one: Any) -> Any:
    """Return a value with 0.0 in place of -0.0."""
    return one + 0.0 if isinstance(one, float) else one


def _counts(values: list[Any]) -> list[tuple[Any, int]]:
    """Return the distinct values and their counts, the most frequent first; of equal counts the smaller value."""
    counted: list[tuple[Any, int]] = []
    for one in sorted(map(_plain, values), key=order):
        if counted and order(counted[-1][0]) == order(one):
            counted[-1] = (one, counted[-1][1] + 1)
        else:
            counted.append((one, 1))
    return sorted(counted, key=lambda pair: -pair[1])


MOST = 2**14
"""The most distinct values that are counted exactly."""


def sampled(distinct: list[Any]) -> int:
    """Return the estimate of adaptive sampling: the fewest leading zeros of hashes that leave at most `MOST` of them."""
    level, hashes = 0, [hash_of(one) for one in distinct]
    while len(hashes) > MOST:
        level += 1
        hashes = [one for one in hashes if one < 2 ** (64 - level)]
    return len(hashes) * 2**level


def hash_of(one: Any) -> int:
    """Return the hash of a value: SplitMix64 of numbers and times, BLAKE2b of all others."""
    if isinstance(one, float):
        number = struct.unpack("<q", struct.pack("<d", math.nan if math.isnan(one) else one + 0.0))[0]
    elif isinstance(one, datetime):
        number = (one - datetime(1970, 1, 1, tzinfo=one.tzinfo)) // timedelta(microseconds=1) * 1000
    elif isinstance(one, date):
        number = (one - date(1970, 1, 1)).days
    elif isinstance(one, time):
        number = ((one.hour * 60 + one.minute) * 60 + one.second) * 10**9 + one.microsecond * 1000
    elif isinstance(one, timedelta):
        number = one // timedelta(microseconds=1) * 1000
    elif isinstance(one, int):
        number = one
    else:
        given = one if isinstance(one, bytes) else _shortest(one).encode()
        return int.from_bytes(hashlib.blake2b(given, digest_size=8).digest(), "little")
    z = (number + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def _shortest(one: Any) -> str:
    return str(Context(prec=99).normalize(one)) if isinstance(one, Decimal) else one


def bucket(one: Any) -> float:
    """Return the float of eight significant bits that is nearest to a number, the larger one of two equally near ones."""
    near = nearest(Fraction(one)) if math.isfinite(one) else float(one)
    if near == 0 or not math.isfinite(near):
        return near + 0.0
    unit = Fraction(2) ** (max(math.frexp(near)[1], -1021) - 8)
    size = math.floor(abs(Fraction(near)) / unit + Fraction(1, 2)) * unit
    return math.copysign(nearest(min(size, (2 - Fraction(1, 2**7)) * 2**1023)), near) + 0.0


def _exact(values: list[Any]) -> Fraction:
    return sum(map(Fraction, values), Fraction(0))


def _special(values: list[Any]) -> float | None:
    """Return the sum of floats some of which are not finite; None if all are."""
    odd = [one for one in values if isinstance(one, float) and not math.isfinite(one)]
    if not odd:
        return None
    return odd[0] if all(one == odd[0] for one in odd) else math.nan


def nearest(exact: Fraction) -> float:
    """Return the float nearest to an exact number, infinite if it is beyond the largest."""
    try:
        return exact.numerator / exact.denominator
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _sum(values: list[Any], _: dict[str, Any]) -> Any:
    if isinstance(values[0], float):
        return nearest(_exact(values)) if (special := _special(values)) is None else special
    total = sum(values)
    if isinstance(total, Decimal):
        total = _decimal_sum(values)
    elif not -(2**63) <= total < 2**63:
        raise TooLargeError
    return total


def _unscaled(one: Decimal) -> tuple[int, int]:
    sign, digits, exponent = one.as_tuple()
    return (-1) ** sign * int("".join(map(str, digits))), -int(exponent)


def _decimal_sum(values: list[Decimal]) -> Decimal:
    scale = _unscaled(values[0])[1]
    total = sum(_unscaled(one)[0] for one in values)
    if abs(total) >= 10**38:
        raise TooLargeError
    return Decimal((int(total < 0), tuple(map(int, str(abs(total)))), -scale))


def _mean(values: list[Any], _: dict[str, Any]) -> float:
    if (special := _special(values)) is not None:
        return special
    total, power = _exact(values), 0
    if isinstance(values[0], Decimal):
        return nearest(total / len(values))
    if math.isinf(
        nearest(total)
    ):  # a mean does not overflow: its sum is rounded to 53 bits as if floats had no largest
        total, power = total / 2**1100, 1100
    return math.ldexp(nearest(total) / len(values), power)


def _moment(values: list[Any], order_: int) -> Fraction:
    exact = [Fraction(one) for one in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    return sum(((one - mean) ** order_ for one in exact), Fraction(0)) / len(exact)


def _root(exact: Fraction) -> float:
    """Return the square root of an exact number, which may be too large or small for a float."""
    half = (exact.numerator.bit_length() - exact.denominator.bit_length()) // 2
    near = exact / Fraction(2) ** (2 * half)
    try:
        return math.ldexp(math.sqrt(near), half)
    except OverflowError:
        return math.inf


def _spread(values: list[Any], extra: dict[str, Any], root: bool) -> float | None:
    ddof = extra.get("ddof", 1)
    if len(values) <= ddof:
        return None
    if _special(values) is not None:
        return math.nan
    exact = _moment(values, 2) * len(values) / (len(values) - ddof)
    return _root(exact) if root else nearest(exact)


def _shape(values: list[Any], order_: int) -> float | None:
    if len(values) < order_:
        return None
    if _special(values) is not None:
        return math.nan
    second = _moment(values, 2)
    if second == 0:
        return None
    if order_ == 4:
        return nearest(_moment(values, 4) / second**2 - 3)
    third = _moment(values, 3)
    return math.copysign(_root(third**2 / second**3), 1 if third > 0 else -1 if third < 0 else 0)


def _quantile(values: list[Any], extra: dict[str, Any]) -> float:
    plain = sorted(map(_plain, values), key=order)
    place = extra["q"] * (len(plain) - 1)
    below = math.floor(place)
    part = place - below
    if isinstance(values[0], Decimal):
        least, next_ = Fraction(plain[below]), Fraction(plain[below + (part > 0)])
        return nearest(least + (next_ - least) * Fraction(part))
    low, high = float(plain[below]), float(plain[below + (part > 0)])
    if part == 0 or low == high:
        found = low
    elif math.isinf(high - low):
        found = low * (1 - part) + high * part
    else:
        found = low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)
    return found


_FUNCTIONS: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
    "Sum": _sum,
    "Mean": _mean,
    "Var": lambda values, extra: _spread(values, extra, root=False),
    "Std": lambda values, extra: _spread(values, extra, root=True),
    "Skew": lambda values, _: _shape(values, 3),
    "Kurtosis": lambda values, _: _shape(values, 4),
    "Min": lambda values, _: _plain(min(values, key=order)),
    "Max": lambda values, _: _plain(max(values, key=order)),
    "First": lambda values, _: values[0],
    "Last": lambda values, _: values[-1],
    "FirstN": lambda values, extra: values[: extra["n"]],
    "LastN": lambda values, extra: values[::-1][: extra["n"]],
    "Smallest": lambda values, extra: sorted(map(_plain, values), key=order)[: extra["n"]],
    "Largest": lambda values, extra: sorted(map(_plain, values), key=order)[::-1][: extra["n"]],
    "Quantile": _quantile,
    "ApproxQuantile": lambda values, extra: _quantile([bucket(one) for one in values], extra),
    "MostFrequent": lambda values, extra: [one for one, _ in _counts(values)[: extra.get("n", 1)]],
    "Histogram": lambda values, _: [{"value": one, "count": count} for one, count in _counts(values)],
}
