"""Detection of rows computed from the period they are dated by, which a join therefore sees before the period is over.

A row dated midnight may sum up the day before, which is known by then, or the day after, which is not. The date does not show
which. The agreement of the rows with a column of the spine does, because a spine value belongs to the day of its moment. A row
computed from that day satisfies bounds that a row known at the start of the day does not. For example, a feature that sums up
what one entity bought each day, against the spine's purchases of the day:

    day                   1    2    3         dated by its start      dated by its end
    bought that day       5    0    9         5 ≥ 5, 0 ≥ 0, 9 ≥ 9     - ≥ 5, 5 ≥ 0, 0 < 9

Each bound is also tried on the rows of the day before, of the day after, and of other entities and days. Only if all of these
break it often enough is it no accident that the day's own rows satisfy it. A feature that merely predicts the label breaks
bounds itself, and is not reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seeknal.engine import Engine, FeatureRequest
from seeknal.join.retrieval import bounds_of
from seeknal.registry.source import Source
from seeknal.values import types
from seeknal.values.times import EMPTY_INTERVAL, Interval
from seeknal.values.types import UTC

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SAMPLE = 100_000
_HOUR, _QUARTER = 3_600_000_000, 900_000_000
FEWEST = 10
"""Minimum number of periods in a spine for a conclusion: a few days of one sale are no evidence."""
_BREAKS = 40
"""How often other rows must break a bound that a period's own rows satisfy. By chance, that happens once in 2^40 times."""
_EXCEPTIONS, _SHARE = 2000, 0.05
"""A period's own rows may break a bound once in so many cases, and other rows must break it in this share of the cases."""
_DEVIATIONS, _DEVIATIONS_WITHIN = 6.0, 4.0
"""How many standard errors a difference must exceed to be more than chance: between periods, and within cells."""
_DETERMINED, _RELATED = 0.95, 0.7
"""A feature determines a label if they have at least the first rank correlation, and at most the second in the periods around."""
_CELLS, _VALUES = 100, 5
"""Minimum number of pairs of entity and period, and of different values of a feature, for a correlation."""


def period_of(engine: Engine, source: Source, interval: Interval) -> tuple[int, Ints] | None:
    """Return the length of a group's period in microseconds, and its event times in order; None if it is not dated by periods.

    It is dated by periods if all event times of a sample are whole quarters of an hour, as midnights are in any zone, and the most
    common step between them is an hour or more.
    """
    schema = source.version.schema
    rows = engine.sample(source.rows(interval), _SAMPLE)
    if not len(rows):
        return None
    kinds = schema.stored_types[: len(schema.keys)]
    # With many entities, the rows written last may be of a few times only; all rows of one entity show the step as well.
    first = [rows[name].slice(0, 1).cast(kind) for name, kind in zip(schema.key_names, kinds, strict=True)]
    own = engine.sample(source.rows(interval), _SAMPLE, pa.Table.from_arrays(first, names=schema.key_names))
    times = np.unique(np.concatenate([_instants(table[schema.event_time.name]) for table in (rows, own)]))
    steps, counts = np.unique(np.diff(times), return_counts=True)
    if not len(steps) or (times % _QUARTER).any():
        return None
    period = int(steps[counts.argmax()])
    return (period, times) if period >= _HOUR else None


def _instants(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.cast(UTC).cast(pa.int64()), np.int64)


@dataclass(frozen=True)
class Cells:
    """The rows of a spine, grouped into cells: one for each entity and period.

    Args:
        entity: Number of each row's entity.
        cell: Number of each row's cell.
        periods: Number of different periods.
    """

    entity: Ints
    cell: Ints
    periods: int

    @classmethod
    def of(cls, moments: pa.Table, period: int, times: Ints) -> Cells:
        """Group the rows of a spine, given as keys k0, k1, ... and moments t, which have no nulls."""
        at = np.asarray(moments["t"], np.int64)
        is_even = not ((times - times[0]) % period).any()
        # If times are off the grid, as midnights are after a change to summer time, a period begins at the last time before the moment.
        begun = times[np.maximum(np.searchsorted(times, at, "right") - 1, 0)]
        starts, start = np.unique(at - (at - times[0]) % period if is_even else begun, return_inverse=True)
        entity = np.zeros(len(at), np.int64)
        # After each key, entities are renumbered without gaps, so that no product overflows.
        for name in moments.column_names[:-1]:
            codes = np.asarray(pc.dictionary_encode(moments[name].combine_chunks(), null_encoding="encode").indices)
            entity = np.unique(entity + codes * (entity.max(initial=0) + 1), return_inverse=True)[1]
        cell = np.unique(entity * len(starts) + start, return_inverse=True)[1]
        return cls(entity, cell, len(starts))

    @property
    def first(self) -> Ints:
        """Position of the first row of each cell."""
        return np.unique(self.cell, return_index=True)[1]

    def at(self, rows: NDArray[np.bool_]) -> Cells:
        """Return the cells of some rows."""
        return Cells(self.entity[rows], self.cell[rows], self.periods)


@dataclass(frozen=True)
class Around:
    """The values of a feature in the period of each spine row, in the period before and in the period after; NaN where there is none."""

    own: Floats
    before: Floats
    after: Floats

    def at(self, rows: Ints | NDArray[np.bool_]) -> Around:
        """Return the values for some rows."""
        return Around(self.own[rows], self.before[rows], self.after[rows])

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Mask of the rows with a value in all three periods."""
        return ~np.isnan(self.own + self.before + self.after)


def look_around(
    engine: Engine, source: Source, moments: pa.Table, interval: Interval, period: int
) -> dict[str, Around]:
    """Return the numeric features of a group in the period of each moment, in the period before and in the one after."""
    names = [own for own in source.features if is_number(source.version.schema.feature(own).type)]
    lifetime = source.record.group.materialization.lifetime
    # Less than a period, so that a period without a row has no value instead of the value of the period before.
    ttl = min(period - 1, period if lifetime is None else lifetime)

    def look(shift: int) -> list[Floats]:
        shifted = moments.set_column(len(moments.column_names) - 1, "t", pc.add(moments["t"], shift))
        bounds = bounds_of(shifted["t"])
        seen = bounds and interval.intersect(Interval((bounds.start or 0) - period, bounds.end))
        found = engine.as_of(FeatureRequest(source.rows(seen or EMPTY_INTERVAL), tuple(names), ttl), shifted)
        return [numbers(found[name]) for name in names]

    every = zip(look(0), look(-period), look(period), strict=True)
    return {source.features[name]: Around(*one) for name, one in zip(names, every, strict=True)}


def is_number(kind: pa.DataType) -> bool:
    """Return whether values of a type can be compared as numbers."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )


def numbers(column: pa.ChunkedArray) -> Floats:
    """Return a numeric column as floats, with NaN for nulls."""
    whole = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    return np.asarray(whole.cast(pa.float64(), safe=False), np.float64)


def labels_of(spine: pa.Table, names: Sequence[str]) -> dict[str, Floats]:
    """Return the given columns of a spine as numbers: numeric ones, and those with exactly two values, which become 0 and 1."""
    found = {}
    for name in names:
        column = spine[name]
        if is_number(column.type):
            found[name] = numbers(column)
        elif not pa.types.is_nested(column.type):
            plain = column.cast(types.logical(column.type))
            codes = pc.dictionary_encode(plain.combine_chunks())
            if len(codes.dictionary) == 2:  # noqa: PLR2004 - 0 and 1
                found[name] = numbers(pa.chunked_array([codes.indices]))
    return found


def made_of_their_own(
    features: Mapping[str, Around], labels: Mapping[str, Floats], cells: Cells, period: int
) -> Iterator[str]:
    """Yield a sentence of evidence for each feature that agrees with a label as only rows computed from their own period do.

    If the spine has fewer than `FEWEST` periods, nothing is yielded.
    """
    if cells.periods < FEWEST:
        return
    counted = {"the spine's rows": np.ones(len(cells.cell))}
    for name, feature in features.items():
        for label, values in {**labels, **counted}.items():
            known = ~np.isnan(values)
            evidence = _bounded(feature, np.where(known, values, 0), cells)
            if evidence is None and label not in counted:
                evidence = _related(feature.at(known), values[known], cells.at(known))
            if evidence:
                yield evidence.format(feature=name, label=label, period=span_of(period))
                break


def span_of(period: int) -> str:
    """Return a period as a noun in the singular.

    >>> span_of(86_400_000_000), span_of(7 * 86_400_000_000), span_of(2 * 3_600_000_000), span_of(5_400_000_000)
    ('day', '7-day period', '2-hour period', '1:30:00 period')
    """
    for unit, name in ((24 * _HOUR, "day"), (_HOUR, "hour")):
        count, rest = divmod(period, unit)
        if not rest:
            return name if count == 1 else f"{count:,}-{name} period"
    return f"{timedelta(microseconds=period)} period"


def _bounded(feature: Around, label: Floats, cells: Cells) -> str | None:
    """Return a sentence if a feature is never below a bound that the label sets in its own period; else None.

    Three bounds are tried: the label's sum in the period, its greatest value, and whether it is above 0 at all. A sum over the
    whole period satisfies all three.
    """
    # A sum is a lower bound only where nothing is negative.
    if label.min() < 0 or np.nanmin(feature.own, initial=0) < 0:
        return None
    there = feature.at(cells.first)
    total = np.asarray(np.bincount(cells.cell, label), np.float64)
    most = np.zeros(len(total))
    np.maximum.at(most, cells.cell, label)
    known = there.is_known
    for bound, what in ((total, "sum"), (most, "greatest")):
        if broken := _only_own_keeps(there.at(known), bound[known]):
            return (
                f"{{feature}} is never below the {what} of {{label}} in the {{period}} it is dated by; the value of the {{period}} "
                f"before is below it in {broken:.0%} of the cases"
            )
    some = Around(*((np.nan_to_num(one) > 0).astype(float) for one in (there.own, there.before, there.after)))
    if broken := _only_own_keeps(some, (total > 0).astype(float)):
        return (
            f"{{feature}} is present and above 0 whenever {{label}} is above 0 in the {{period}} it is dated by; the value of the "
            f"{{period}} before is not in {broken:.0%} of the cases"
        )
    return None


def _only_own_keeps(feature: Around, bound: Floats) -> float | None:
    """Return the share of cases in which the period before breaks a bound that only the own period satisfies.

    None if the own period breaks it too, or if the period before, the period after or other cells seldom break it.
    """
    others = np.random.default_rng(0).permutation(feature.own)  # values of other entities and periods
    is_tested = bound > 0  # a bound of 0 holds for any feature that is not negative
    # The tolerance allows for rounding errors of sums.
    own, *broken = (
        int((bound > one * (1 + 1e-9) + 1e-9)[is_tested].sum())
        for one in (feature.own, feature.before, feature.after, others)
    )
    count = int(is_tested.sum())
    is_kept = own <= count // _EXCEPTIONS and min(broken) >= max(_BREAKS, _SHARE * count)
    return broken[0] / count if is_kept else None


def _related(feature: Around, label: Floats, cells: Cells) -> str | None:
    """Return a sentence if a feature correlates with the label as only one computed from the label could; else None.

    The rank correlation must be far higher in the feature's own period than in the periods around it. A good feature can do
    that too. But then it is a common cause of the labels of its period, which therefore correlate with each other by at least
    the square of its own correlation with them. If they do not, the feature was computed from them. A feature that determines
    the label is also taken to be computed from it.
    """
    feature, label, cells = feature.at(known := feature.is_known), label[known], cells.at(known)
    varied = len(label) - np.unique(label, return_counts=True)[1].max(initial=0)
    if min(varied, count := len(np.unique(cells.cell))) < _CELLS or len(np.unique(feature.own)) < _VALUES:
        return None
    places, three = ranks(label), [ranks(one) for one in (feature.own, feature.before, feature.after)]
    # Ties keep even a perfect agreement below 1, so each correlation is measured against the highest that is possible.
    own, *around = (abs(_correlation(one, places)) / (_highest(one, places) or 1) for one in three)
    shown = " (rank correlation {:.2f}, and {:.2f} and {:.2f} in the {{period}} before and after)"
    if own >= _DETERMINED and max(around) <= _RELATED and _is_sharp(own, around, count):
        return "{feature} determines {label} of the {period} it is dated by" + shown.format(own, *around)
    # Within each entity: that some entities have high features and high labels throughout is no sign of a leak.
    places, *three = (_centred(one, cells.entity) for one in (places, *three))
    own, *around = (abs(_correlation(one, places)) for one in three)
    among, pairs = _within(places, cells.cell)
    # The sampling error of `among`, and what it loses because each entity's mean was subtracted.
    leeway = _DEVIATIONS_WITHIN / np.sqrt(pairs + 1) + 2 * len(np.unique(cells.entity)) / len(label)
    if _is_sharp(own, around, count) and own**2 - among > leeway:
        return (
            "{feature} correlates with each {label} of the {period} it is dated by, but these do not correlate with each other"
            + shown.format(own, *around)
        )
    return None


def _is_sharp(own: float, around: Sequence[float], count: int) -> bool:
    """Return whether a correlation is higher than those around it by more than chance.

    By Fisher's z-transformation: arctanh of a correlation of n pairs has a standard error of about 1 / sqrt(n).
    """
    difference = np.arctanh(min(own, 0.9999)) - np.arctanh(min(max(around), 0.9999))
    return bool(difference > _DEVIATIONS / np.sqrt(count))


def _centred(values: Floats, entity: Ints) -> Floats:
    """Subtract from each value the mean of its entity.

    >>> _centred(np.array([1.0, 3.0, 10.0]), np.array([0, 0, 1])).tolist()
    [-1.0, 1.0, 0.0]
    """
    return np.asarray(values - (np.bincount(entity, values) / np.maximum(np.bincount(entity), 1))[entity], np.float64)


def ranks(values: Floats) -> Floats:
    """Return the rank of each value, counted from 0; equal values share the mean of their ranks.

    >>> ranks(np.array([5.0, 7.0, 5.0])).tolist()
    [0.5, 2.0, 0.5]
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[place], np.float64)


def _correlation(one: Floats, other: Floats) -> float:
    spread = one.std() * other.std()
    return float(((one - one.mean()) * (other - other.mean())).mean() / spread) if spread else 0.0


def _highest(one: Floats, other: Floats) -> float:
    """Return the highest correlation that is possible for two columns with their ties: that of both in sorted order."""
    return _correlation(np.sort(one), np.sort(other))


def _within(places: Floats, cell: Ints) -> tuple[float, int]:
    """Return the correlation of centred values with others of the same cell, and the number of pairs that it is computed from.

    The pairs are neighbours in the order of cells. Without a pair, the correlation counts as 1, which is never evidence.

    >>> _within(np.array([1.0, -1.0, 1.0, -1.0]), np.array([0, 1, 0, 1]))  # equal within both cells
    (1.0, 2)
    """
    order = np.argsort(cell, kind="stable")
    pairs = cell[order[1:]] == cell[order[:-1]]
    products = (places[order[1:]] * places[order[:-1]])[pairs]
    return (float(products.mean() / places.var()) if len(products) else 1.0), len(products)
