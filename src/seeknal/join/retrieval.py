"""Reading features: for a spine, for every moment of the past, or as of now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Context, Decimal

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.engine import Engine
from seeknal.errors import DataError, DefinitionError
from seeknal.registry import Question
from seeknal.registry.source import Source
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values import frames, types
from seeknal.values.frames import Frame
from seeknal.values.moments import utc
from seeknal.values.times import EMPTY_INTERVAL, Interval
from seeknal.values.types import UTC

_BEFORE_ALL = -(2**63)


@dataclass(frozen=True)
class Spine:
    """The moments to look from.

    Args:
        frame: A frame with the join keys and a moment in each row.
        date_col: The column with the moments.
        keep: Columns to keep beside keys and moment. None: all.
        case_counts: Whether names in the result may differ in case only.
    """

    frame: Frame
    date_col: str
    keep: Sequence[str] | None = None
    case_counts: bool = True


def training_set(
    engine: Engine, sources: Sequence[Source], spine: Spine, interval: Interval, on_progress: OnProgress = no_progress
) -> tuple[list[str], pa.Table]:
    """Give each row of a spine the features known at its moment.

    Args:
        engine: What to ask.
        sources: The lookups.
        spine: The moments, read (`read_spine`).
        interval: Only rows with an event time within it can be seen.
        on_progress: Told which group is being joined.

    Returns:
        The names of the spine's columns to keep, and the features to put beside them.

    Raises:
        DataError: The spine lacks a column, or a key's type cannot match.
        DefinitionError: Two columns of the result would have one name.
    """
    used, kept = spine_columns(sources, spine)
    table = spine.frame.table(used)
    at = utc(spine.date_col, table[spine.date_col], up=False)
    return kept, look_up(engine, sources, table, at, interval, on_progress)


def spine_columns(sources: Sequence[Source], spine: Spine) -> tuple[list[str], list[str]]:
    """List the columns of a spine that are looked at, and those that are kept.

    Raises:
        DataError: The spine lacks a column.
        DefinitionError: Two columns of the result would have one name.
    """
    used = dict.fromkeys([spine.date_col, *(name for source in sources for name in source.keys.values())])
    spine.frame.require([*used, *(spine.keep or ())], "The spine")
    kept = [name for name in spine.frame.names if spine.keep is None or name in {*used, *spine.keep}]
    check_names(sources, kept, case_counts=spine.case_counts)
    return list(used), kept


def read_spine(sources: Sequence[Source], spine: Spine) -> Spine:
    """Read a spine, once, and nothing of it but the columns that are looked at or kept.

    Raises:
        DataError: The spine lacks a column, or one cannot be read.
        DefinitionError: Two columns of the result would have one name.
    """
    _, kept = spine_columns(sources, spine)
    frame = spine.frame.typed(key_kinds(sources)).only(kept)
    return replace(spine, frame=frame)


def spine_table(sources: Sequence[Source], given: object, question: Question) -> pa.Table:
    """Read the spine of a question into Arrow, and nothing of it but the columns that are looked at or kept.

    Raises:
        DataError: A column cannot be read; if it is only kept, the message says how to leave it out.
    """
    spine = Spine(frames.opened(given), question.date_col, question.keep)
    used, kept = spine_columns(sources, spine)
    with leaving_out(used):
        return spine.frame.typed(key_kinds(sources)).table(kept)


@contextmanager
def leaving_out(used: Sequence[str] = ()) -> Iterator[None]:
    """Say of a column that cannot be read, and is not looked at, how to leave it out.

    Raises:
        DataError: A column cannot be read.
    """
    try:
        yield
    except DataError as error:
        column = getattr(error, "column", None)
        if column is None or column in used:
            raise
        raise DataError(f"{error} Or leave it out: keep_cols=[...] names the columns to keep.", column=column) from None


def key_kinds(sources: Sequence[Source]) -> dict[str, pa.DataType]:
    """Return the types of the keys by their names in the spine, where the groups agree."""
    kinds: dict[str, set[pa.DataType]] = {}
    for source in sources:
        for name, field in zip(source.keys.values(), source.version.schema.keys, strict=True):
            kinds.setdefault(name, set()).add(field.type)
    return {name: one for name, (one, *others) in kinds.items() if not others}


def look_up(
    engine: Engine,
    sources: Sequence[Source],
    table: pa.Table,
    at: pa.ChunkedArray,
    interval: Interval,
    on_progress: OnProgress = no_progress,
) -> pa.Table:
    """Look up the features of all sources, side by side, for the entities of a table at given moments."""
    columns: dict[str, pa.ChunkedArray] = {}
    for source in sources:
        on_progress(f"Joining {source.record.label}")
        moments = moments_of(source, table, at)
        found = engine.as_of(source.request(bounds_of(moments), interval), moments).read_all()
        columns |= {out: found[name] for name, out in source.features.items()}
    return pa.Table.from_pydict(columns)


def moments_of(source: Source, table: pa.Table, at: pa.ChunkedArray) -> pa.Table:
    """Bring the entities and moments of a spine to the form that an engine compares: k0, k1, ... and t."""
    fields = zip(source.keys.values(), source.version.schema.keys, strict=True)
    keys = [_key(table, name, field, source) for name, field in fields]
    return pa.Table.from_arrays([*keys, at.cast(pa.int64())], names=[*(f"k{i}" for i in range(len(keys))), "t"])


def bounds_of(moments: pa.Table) -> Interval | None:
    """Give the first and the last moment; None if there are none."""
    bounds = pc.min_max(moments["t"]).as_py()
    return None if bounds["max"] is None else Interval(bounds["min"], bounds["max"])


def _key(table: pa.Table, name: str, field: pa.Field, source: Source) -> pa.ChunkedArray:
    column, kind = table[name], types.logical(table[name].type)
    if not types.same_kind(kind, field.type):
        hint = " (for whole numbers with nulls in pandas: .astype('Int64'))" if pa.types.is_floating(kind) else ""
        raise DataError(
            f"The spine's {name} is {kind}, but group {source.record.name!r} is keyed by {field.type}. "
            f"Cast one of them{hint}.",
            column=name,
        )
    standard = _there_and_back(column, kind) if pa.types.is_date64(column.type) else column.cast(kind)
    return _exactly(standard, field.type).cast(types.stored(field.type))


def _exactly(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Cast keys; one that has no exact place in the group's type can equal none of its keys, and becomes null."""
    if pa.types.is_timestamp(kind) and not pa.types.is_null(column.type):
        there = _there_and_back(column, kind)
        return there if kind.unit == "ns" else _there_and_back(there, types.stored(kind))
    if column.type == kind or pa.types.is_null(column.type):
        return column.cast(kind)
    if pa.types.is_integer(kind):
        (low, high), (least, most) = _range(kind), _range(column.type)
        return _between(column, max(low, least), min(high, most)).cast(kind)
    if pa.types.is_decimal(kind):
        there = _there_and_back(column, pa.decimal128(38, kind.scale))
        largest = Decimal(10**kind.precision - 1).scaleb(-kind.scale, Context(prec=38))
        return _between(there, largest.copy_negate(), largest).cast(kind)
    return column.cast(pa.binary() if pa.types.is_fixed_size_binary(kind) else kind)


def _there_and_back(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    there = column.cast(kind, safe=False)
    return pc.if_else(pc.equal(there.cast(column.type, safe=False), column), there, pa.scalar(None, kind))


def _between(column: pa.ChunkedArray, least: int | Decimal, most: int | Decimal) -> pa.ChunkedArray:
    is_inside = pc.and_(
        pc.greater_equal(column, pa.scalar(least, column.type)), pc.less_equal(column, pa.scalar(most, column.type))
    )
    return pc.if_else(is_inside, column, pa.scalar(None, column.type))


def _range(kind: pa.DataType) -> tuple[int, int]:
    bits: int = kind.bit_width
    return (0, 2**bits - 1) if pa.types.is_unsigned_integer(kind) else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def check_names(sources: Sequence[Source], taken: Sequence[str], *, case_counts: bool = True) -> None:
    """Refuse a result in which two columns would have one name.

    Raises:
        DefinitionError: It names both, and the fix.
    """

    def folded(name: str) -> str:
        return name if case_counts else name.lower()

    owners = {folded(name): "the spine" for name in taken}
    for source in sources:
        group = source.record.name
        for own, name in source.features.items():
            if owner := owners.get(folded(name)):
                raise DefinitionError(
                    f"Two columns would be named {name!r}: one of {owner} and a feature of {group!r}. "
                    f'Pass FeatureLookup(..., prefix="{group}_"), or rename={{"{own}": ...}}.',
                    name=name,
                )
            owners[folded(name)] = repr(group)


def answer(
    engine: Engine,
    sources: Sequence[Source],
    question: Question,
    spine: pa.Table | None,
    on_progress: OnProgress = no_progress,
) -> pa.Table:
    """Answer a question that was written down.

    Args:
        engine: What to ask.
        sources: The lookups.
        question: The question.
        spine: The spine, if the question has one.
        on_progress: Told which group is being joined.
    """
    if question.kind == "history":
        return history(engine, sources, question.span)
    if question.kind == "latest":
        return latest(engine, sources, question.span, question.moment)
    moments = Spine(frames.opened(spine), question.date_col, question.keep)
    names, features = training_set(engine, sources, moments, question.span, on_progress)
    return frames.with_columns(moments.frame, names, features, "arrow")


def history(engine: Engine, sources: Sequence[Source], interval: Interval) -> pa.Table:
    """Give one row per entity and event time at which any of the groups changed, as known at that moment.

    Args:
        engine: What to ask.
        sources: The lookups; they must have the same join keys.
        interval: The moments to give.

    Returns:
        Join keys, time and features, ordered by keys and time.
    """
    keys, time = _shared_keys(sources), _shared_time(sources)
    check_names(sources, [*keys, time])
    if len(sources) == 1:
        source = sources[0]
        rows = engine.latest(source.rows(interval), future_after=_BEFORE_ALL).read_all()
        names = {**source.keys, source.version.schema.event_time.name: time, **source.features}
        return rows.select(list(names)).rename_columns(list(names.values()))
    moments = engine.moments([source.rows(interval) for source in sources]).rename_columns([*keys, time])
    moments = types.recast(moments, [*_key_types(sources), UTC])
    found = look_up(engine, sources, moments, moments[time], Interval())
    return _beside(_cast(moments, time, _time_type(sources)), found)


def latest(engine: Engine, sources: Sequence[Source], interval: Interval, now: int) -> pa.Table:
    """Give one row per entity, as known now.

    Args:
        engine: What to ask.
        sources: The lookups; they must have the same join keys.
        interval: Only rows with an event time within it can be seen.
        now: The moment to look from; later rows do not count.

    Returns:
        Join keys, the time of the newest row, and features, ordered by keys.
    """
    keys, time = _shared_keys(sources), _shared_time(sources)
    check_names(sources, [*keys, time])
    seen = interval.intersect(Interval(None, now)) or EMPTY_INTERVAL
    found = [_entities(engine.latest(source.rows(seen)).read_all(), source, time) for source in sources]
    together = found[0]
    if len(found) > 1:
        kinds = [*_key_types(sources), UTC]
        alike = pa.concat_tables([types.recast(table, kinds) for table in found])
        grouped = alike.group_by(keys).aggregate([(time, "max")])
        together = grouped.rename_columns([*keys, time]).sort_by([(name, "ascending") for name in keys])
    at = pa.chunked_array([pa.repeat(pa.scalar(now, UTC), len(together))])
    features = look_up(engine, sources, together, at, seen)
    return _beside(_cast(together, time, _time_type(sources)), features)


def _entities(rows: pa.Table, source: Source, time: str) -> pa.Table:
    event_time = source.version.schema.event_time.name
    names = {**source.keys, event_time: time}
    return _cast(rows.select(list(names)), event_time, UTC).rename_columns(list(names.values()))


def _cast(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, table[name].cast(kind))


def _time_type(sources: Sequence[Source]) -> pa.DataType:
    kinds = {source.version.schema.event_time.type for source in sources}
    return kinds.pop() if len(kinds) == 1 else UTC


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    for name, column in zip(right.column_names, right.columns, strict=True):
        left = left.append_column(name, column)
    return left


def _shared_keys(sources: Sequence[Source]) -> list[str]:
    first = list(sources[0].keys.values())
    for source in sources[1:]:
        if list(source.keys.values()) != first:
            raise DefinitionError(
                f"Groups {sources[0].record.name!r} ({', '.join(first)}) and {source.record.name!r} "
                f"({', '.join(source.keys.values())}) have different join keys, so without a spine their rows cannot be "
                "put together. Call using_spine(...) with a frame that has all of them."
            )
    return first


def _key_types(sources: Sequence[Source]) -> list[pa.DataType]:
    """Give the types in which the keys of all groups have a place."""
    shared = []
    for fields in zip(*(source.version.schema.keys for source in sources), strict=True):
        wide = [a.type for a in fields if all(types.widens(b.type, a.type) for b in fields)]
        if not wide:
            kinds = " and ".join(sorted({str(field.type) for field in fields}))
            raise DefinitionError(
                f"The groups' {fields[0].name!r} is {kinds}, so without a spine their rows cannot be put together. "
                "Call using_spine(...)."
            )
        shared.append(wide[0])
    return shared


def _shared_time(sources: Sequence[Source]) -> str:
    names = {source.version.schema.event_time.name for source in sources}
    return names.pop() if len(names) == 1 else "event_time"
