"""Retrieval of features: for the rows of a spine, for every change in the past, or as of now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.engine import Engine
from seeknal.errors import DataError, DefinitionError
from seeknal.join.inquiry import SPINE
from seeknal.registry import Question
from seeknal.registry.source import Source, WindowedSource
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values import frames, types
from seeknal.values.casting import recast
from seeknal.values.frames import Frame
from seeknal.values.matching import match, there_and_back
from seeknal.values.moments import utc
from seeknal.values.times import EMPTY_INTERVAL, Interval
from seeknal.values.types import UTC

_BEFORE_ALL = -(2**63)


@dataclass(frozen=True)
class Spine:
    """The rows to retrieve features for.

    Args:
        frame: A frame with the join keys and a moment in each row.
        date_col: The column with the moments.
        keep: Columns to keep beside keys and moment. None: all.
        case_counts: Whether two names in the result may differ by case only.
        also: Columns that are used besides keys and moment, such as request values.
    """

    frame: Frame
    date_col: str
    keep: Sequence[str] | None = None
    case_counts: bool = True
    also: Sequence[str] = ()


def training_set(
    engine: Engine, sources: Sequence[Source], spine: Spine, interval: Interval, on_progress: OnProgress = no_progress
) -> tuple[list[str], pa.Table]:
    """Return the features known at the moment of each row of a spine.

    For example:

        stored: sku  day    price          spine: sku  at           features: price
                7    05-01  10                    7    05-02                  10
                7    05-03  12                    7    05-03                  12
                                                  8    05-03                  null

    Args:
        engine: The engine that joins.
        sources: The lookups.
        spine: The spine, already read (`read_spine`).
        interval: Only rows with an event time inside it are visible.
        on_progress: Called with each group as its join begins.

    Returns:
        The names of the spine's columns to keep, and the features to put beside them.

    Raises:
        DataError: The spine lacks a column, or a key's type cannot match.
        DefinitionError: Two columns of the result would have the same name.
    """
    used, kept = spine_columns(sources, spine)
    table = spine.frame.table(used)
    # Rounded down, so that a spine row never sees an event within the same microsecond but later.
    at = utc(spine.date_col, table[spine.date_col], up=False)
    return kept, look_up(engine, sources, table, at, interval, on_progress)


def spine_columns(sources: Sequence[Source], spine: Spine) -> tuple[list[str], list[str]]:
    """Return the names of the spine's columns that the lookups use, and of those that are kept in the result.

    Raises:
        DataError: The spine lacks a column.
        DefinitionError: Two columns of the result would have the same name.
    """
    used = dict.fromkeys([spine.date_col, *keys_of(sources), *spine.also])
    spine.frame.require([*used, *(spine.keep or ())], "The spine")
    kept = [name for name in spine.frame.names if spine.keep is None or name in {*used, *spine.keep}]
    check_names(sources, kept, case_counts=spine.case_counts)
    return list(used), kept


def read_spine(sources: Sequence[Source], spine: Spine) -> Spine:
    """Read the columns of a spine that are used or kept, and read them only once.

    Raises:
        DataError: The spine lacks a column, or one cannot be read.
        DefinitionError: Two columns of the result would have the same name.
    """
    _, kept = spine_columns(sources, spine)  # the columns that are used are always kept
    # A key that has several types in the groups is left untyped: text of a file could fit only one of them.
    frame = spine.frame.typed(key_kinds(sources)).only(kept)
    return replace(spine, frame=frame)


def spine_table(
    sources: Sequence[Source], given: object, question: Question, also: Sequence[str] = ()
) -> pa.Table | None:
    """Read the columns of a question's spine that are used or kept into an Arrow table; None if the question has no spine.

    Args:
        sources: The lookups.
        given: The spine.
        question: The question.
        also: Columns that are used besides keys and moment.

    Raises:
        DataError: A column cannot be read; if it is kept but not used, the message says how to leave it out.
    """
    if question.kind != SPINE:
        return None
    spine = Spine(frames.opened(given), question.date_col, question.keep, also=also)
    used, kept = spine_columns(sources, spine)
    with leaving_out(used):
        return spine.frame.typed(key_kinds(sources)).table(kept)


@contextmanager
def leaving_out(used: Sequence[str] = ()) -> Iterator[None]:
    """Add advice to the error for a column that cannot be read: how to leave it out.

    Args:
        used: Columns that the result has in any case: those that the lookups use, and the features.

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


def keys_of(sources: Sequence[Source]) -> list[str]:
    """Return the names of the join keys in the spine, each once, in order."""
    return list(dict.fromkeys(name for source in sources for name in source.keys.values()))


def kinds_of(sources: Sequence[Source]) -> dict[str, pa.DataType]:
    """Return the types of the looked-up features, by their names in the result."""
    return {out: source.version.schema.feature(own).type for source in sources for own, out in source.features.items()}


def key_kinds(sources: Sequence[Source]) -> dict[str, pa.DataType]:
    """Return the types of the keys by their names in the spine, for those keys whose type is the same in all groups."""
    kinds: dict[str, set[pa.DataType]] = {}
    for source in sources:
        for name, field in zip(source.keys.values(), source.version.schema.keys, strict=True):
            kinds.setdefault(name, set()).add(field.type)
    return {name: one for name, (one, *others) in kinds.items() if not others}


def check_keys(sources: Sequence[Source]) -> None:
    """Check that keys of one name can be equal.

    Raises:
        DefinitionError: They are of different kinds, such as whole numbers and text.
    """
    known: dict[str, tuple[pa.DataType, Source]] = {}
    for source in sources:
        for name, field in zip(source.keys.values(), source.version.schema.keys, strict=True):
            kind, first = known.setdefault(name, (field.type, source))
            if not types.same_kind(field.type, kind):
                raise DefinitionError(
                    f"{name} is {kind} in {first.record.label} and {field.type} in {source.record.label}, which are never "
                    f"equal. Give one of them another name: FeatureLookup(..., rename={{{name!r}: ...}}).",
                    column=name,
                )


def look_up(
    engine: Engine,
    sources: Sequence[Source],
    table: pa.Table,
    at: pa.ChunkedArray,
    interval: Interval,
    on_progress: OnProgress = no_progress,
) -> pa.Table:
    """Return the features of all sources, side by side, for the entities of a table at the given moments."""
    columns: dict[str, pa.ChunkedArray] = {}
    for source, moments in zip(sources, moments_of(sources, table, at), strict=True):
        on_progress(f"Joining {source.record.label}")
        # The bounds let the engine skip files whose rows are later than all moments, or expired before the first.
        found = engine.as_of(source.request(bounds_of(moments["t"]), interval), moments)
        columns |= {out: found[name] for name, out in source.features.items()}
    return pa.Table.from_pydict(columns)


def moments_of(sources: Sequence[Source], table: pa.Table, at: pa.ChunkedArray) -> Iterator[pa.Table]:
    """Yield for each source the entities and moments of a spine as an engine compares them.

    A key column that several sources have in the same type is converted once.

    Yields:
        Keys k0, k1, ... in the source's order and in stored types, and the moments t, in microseconds since 1970.
    """
    times, known = at.cast(pa.int64()), dict[tuple[str, pa.DataType], pa.ChunkedArray]()
    for source in sources:
        keys = []
        for name, field in zip(source.keys.values(), source.version.schema.keys, strict=True):
            if (name, field.type) not in known:
                known[name, field.type] = _key(table, name, field, source)
            keys.append(known[name, field.type])
        own = pc.add_checked(times, pa.scalar(source.ahead, pa.int64())) if source.ahead else times
        yield pa.Table.from_arrays([*keys, own], names=[*(f"k{i}" for i in range(len(keys))), "t"])


def bounds_of(moments: pa.ChunkedArray) -> Interval | None:
    """Return the interval from the first to the last moment; None if there are no moments."""
    bounds = pc.min_max(moments.cast(pa.int64())).as_py()
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
    # A date64 can have a time of day. One that does equals no date.
    standard = there_and_back(column, kind) if pa.types.is_date64(column.type) else column.cast(kind)
    return match(standard, field.type).cast(types.stored(field.type))


def check_names(sources: Sequence[Source], taken: Sequence[str], *, case_counts: bool = True) -> None:
    """Check that no two columns of the result would have the same name.

    Raises:
        DefinitionError: Two would; the message names both, and the fix.
    """

    def folded(name: str) -> str:
        # DuckDB takes names that differ in case only for one name.
        return name if case_counts else name.lower()

    owners = {folded(name): "the spine" for name in taken}
    for source in sources:
        group = source.record.name
        for own, name in source.features.items():
            if owner := owners.get(folded(name)):
                if source.ahead:
                    raise DefinitionError(
                        f"Two columns would be named {name!r}: one of {owner} and the label. Drop or rename the first, leave it out by "
                        "keep_cols=[...], or name the label otherwise: Label(..., name=...).",
                        name=name,
                    )
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
    """Return the answer to a question, as it is saved with a training set.

    Args:
        engine: The engine that reads and joins.
        sources: The lookups.
        question: The question.
        spine: The spine, if the question has one.
        on_progress: Called with each group as its join begins, if there is a spine.
    """
    if question.kind == "history":
        return history(engine, sources, question.span)
    if question.kind == "latest":
        return latest(engine, sources, question.span, question.moment)
    moments = Spine(frames.opened(spine), question.date_col, question.keep)
    names, features = training_set(engine, sources, moments, question.span, on_progress)
    return frames.with_columns(moments.frame, names, features, "arrow")


def history(engine: Engine, sources: Sequence[Source], interval: Interval) -> pa.Table:
    """Return one row per entity and event time at which any of the groups changed, with the features known at that moment.

    For example, for two groups:

        prices: sku  day  price      stocks: sku  day  stock      history: sku  day  price  stock
                7    1    10                 7    2    5                   7    1    10     null
                7    3    12                                               7    2    10     5
                                                                           7    3    12     5

    Args:
        engine: The engine that reads and joins.
        sources: The lookups, which must have the same join keys.
        interval: Only event times inside it are returned.

    Returns:
        Join keys, time and features, ordered by keys and time.
    """
    keys, time = _shared_keys(sources), _shared_time(sources)
    check_names(sources, [*keys, time])
    if len(sources) == 1 and not isinstance(source := sources[0], WindowedSource):
        # If all event times count as future, the engine returns the winner of each event time, which is the history.
        rows = engine.latest(source.rows(interval), future_after=_BEFORE_ALL).read_all()
        names = {**source.keys, source.version.schema.event_time.name: time, **source.features}
        return rows.select(list(names)).rename_columns(list(names.values()))
    moments = engine.moments([source.rows(interval) for source in sources]).rename_columns([*keys, time])
    moments = recast(moments, [*_key_types(sources), UTC])
    # The interval limits the moments, not what was known at them: values from before it still count.
    found = look_up(engine, sources, moments, moments[time], Interval())
    return _beside(_cast(moments, time, _time_type(sources)), found)


def latest(engine: Engine, sources: Sequence[Source], interval: Interval, now: int) -> pa.Table:
    """Return one row per entity, as known now.

    Args:
        engine: The engine that reads and joins.
        sources: The lookups, which must have the same join keys.
        interval: Only rows with an event time inside it are visible.
        now: The time that counts as now, in microseconds since 1970; later rows are not visible.

    Returns:
        Join keys, the event time of the newest row of any group, and features, ordered by keys.
    """
    keys, time = _shared_keys(sources), _shared_time(sources)
    check_names(sources, [*keys, time])
    seen = interval.intersect(Interval(None, now)) or EMPTY_INTERVAL
    found = [_entities(engine.latest(source.rows(seen)).read_all(), source, time) for source in sources]
    together = found[0]
    if len(found) > 1:
        kinds = [*_key_types(sources), UTC]
        alike = pa.concat_tables([recast(table, kinds) for table in found])
        grouped = alike.group_by(keys).aggregate([(time, "max")])
        together = grouped.rename_columns([*keys, time]).sort_by([(name, "ascending") for name in keys])
    # The features are looked up as of now, not taken from the rows found, so that the ttl of each group counts.
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
    """Return for each join key the widest of its types in the groups, in which the keys of all groups are exact.

    Raises:
        DefinitionError: No type of a key widens all others.
    """
    # Each key is compared in one type, and a narrower one would change the values of some group.
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
