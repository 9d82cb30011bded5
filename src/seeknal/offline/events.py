"""Events of a source: which of the rows that agree in the columns of `event_id` counts after a write.

The row with the greatest created time counts, then the one written last, whatever its event time. The others stay stored, so that a
replay of an earlier form of an event is recognised and changes nothing. But they are hidden: a hidden row with the number n is stored
with the number `~n`, which is negative, and reads leave out negative numbers. Other programs see the hidden rows; to leave them out,
they filter `_seeknal_row_id >= 0`.

A row that is hidden never counts again. It stays as long as its event counts: an overwrite of the interval that holds the row that
counts removes that row, and with it the hidden rows of its event at any time, unless the new rows contain the event again.

For example, three writes of order 1, without created times:

    write                stored afterwards, as (number, event time, x)
    at 10:00, x = 1      (0, 10:00, 1)
    at 09:00, x = 2      (-1, 10:00, 1), (1, 09:00, 2)    a correction: number 0 became ~0
    at 10:00, x = 1      the same                         a replay, which is not stored again
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.offline.comparisons import count_rows, same_values, values_sql
from seeknal.offline.evolution import converted
from seeknal.offline.log import DataFile, Snapshot
from seeknal.offline.plan import Settled, Write, inside
from seeknal.offline.scans import scan_stored
from seeknal.system.stored_paths import readable
from seeknal.values.casting import recast
from seeknal.values.matching import stored_keys
from seeknal.values.sql import comma, quote

_NOWHERE = pa.table({"number": pa.array([], pa.int64()), "file": pa.array([], pa.int32())})


@dataclass(frozen=True)
class Verdict:
    """What becomes of new rows, and of the stored rows of their events.

    Args:
        replays: The positions of the new rows that are stored already, or that equal an earlier one of the new rows.
        losers: The positions of the other new rows that do not count.
        numbers: The numbers of the stored rows that no longer count.
    """

    replays: np.ndarray
    losers: np.ndarray
    numbers: np.ndarray


def settle(cursor: duckdb.DuckDBPyConnection, base: Snapshot, write: Write) -> Write:
    """Return a write without its replays, and with what it says of the other rows of its events.

    Args:
        cursor: The DuckDB connection that compares rows.
        base: The snapshot that the write is planned on.
        write: The write. Its schema has at least one key.
    """
    before = base.commit.hidden if base.commit else 0
    gone, hiding = _hidden(cursor, base, write) if before and write.mode == "overwrite" else (_NOWHERE, _NOWHERE)
    places, met = find_events(cursor, base, write)
    verdict = judge(cursor, write.rows, write.schema, met)
    stays, loses = np.ones(len(write.rows), bool), np.zeros(len(write.rows), bool)
    stays[verdict.replays], loses[verdict.losers] = False, True
    settled = Settled(
        loses[stays],
        verdict.numbers,
        gone["number"].to_numpy(),
        files_of(base, gone) | files_of(base, places, verdict.numbers),
        files_of(base, hiding),
        before - len(gone) + len(verdict.losers) + len(verdict.numbers),
    )
    return replace(write, rows=write.rows.filter(pa.array(stays)), superseded=len(verdict.losers), settled=settled)


def settle_numbered(
    cursor: duckdb.DuckDBPyConnection, rest: Snapshot, write: Write, ids: np.ndarray
) -> tuple[Write, np.ndarray]:
    """Return a write of adopted rows with what it says of the other rows of their events, and the numbers of its rows.

    Args:
        cursor: The DuckDB connection that compares rows.
        rest: The snapshot without the files of other programs, whose rows are those of the write.
        write: The write. Its schema has at least one key.
        ids: The numbers of its rows. Those from the snapshot's next number on are of new rows; a negative one is of a hidden row.
    """
    commit, schema = rest.commit, write.schema
    assert commit  # noqa: S101 - there is nothing to adopt before the first write
    is_new = ids >= commit.next_row_id
    new = np.flatnonzero(is_new)
    new = new[np.argsort(ids[new])]  # in the order of writing
    copies = write.rows.append_column(ROW_ID, pa.array(ids)).filter(pa.array(~is_new))
    given = replace(write, rows=write.rows.take(pa.array(new)))
    places, met = find_events(cursor, rest, given)
    verdict = judge(cursor, given.rows, schema, pa.concat_tables([met, copies.cast(met.schema)]))
    # Unlike those of a write, replays stay, since they have numbers already.
    hides = np.isin(ids, [*ids[new[verdict.replays]], *ids[new[verdict.losers]], *verdict.numbers])
    numbers = np.where(hides, ~ids, ids)
    elsewhere = verdict.numbers[~np.isin(verdict.numbers, ids)]
    before = count_rows(cursor, rest.root, rest.files, "< 0") if commit.hidden else 0
    hidden = before + int((numbers < 0).sum()) + len(elsewhere)
    files = files_of(rest, places, elsewhere)
    settled = Settled(numbers < 0, elsewhere, _NOWHERE["number"].to_numpy(), files, frozenset(), hidden)
    return replace(write, settled=settled), numbers


def find_events(cursor: duckdb.DuckDBPyConnection, base: Snapshot, write: Write) -> tuple[pa.Table, pa.Table]:
    """Find the stored rows of the events of a write, without those that count and that it overwrites.

    Only the ids of all rows are read, and then the rows that have one of them.

    Args:
        cursor: The DuckDB connection that reads them.
        base: The snapshot.
        write: The write.

    Returns:
        `number` and `file` of these rows; and the rows, in the schema of the write, with their numbers.
    """
    layout = pa.schema([*map(pa.field, write.schema.names, write.schema.stored_types), pa.field(ROW_ID, pa.int64())])
    if base.commit is None or not base.files or not len(write.rows):
        return _NOWHERE, layout.empty_table()
    old, row_id = base.commit.schema, quote(ROW_ID)
    stays = "true"
    if write.mode == "overwrite":
        stays = f"({inside(old, write.interval)}) IS NOT TRUE OR {row_id} < 0"
    cursor.register("wanted", _wanted(write, old))
    stored = _numbered(base, base.files, stays)
    places = _places(cursor, base, f"SELECT number, file FROM ({stored}) SEMI JOIN wanted USING ({_keys(old)})")
    if not len(places):
        return places, layout.empty_table()
    cursor.register("places", places)
    paths = [base.root / name for name in files_of(base, places)]
    names = comma(map(quote, [*old.names, ROW_ID]))
    query = f"SELECT {names} FROM {scan_stored(paths)} AS s SEMI JOIN places AS p ON s.{row_id} = p.number"
    found = cursor.sql(query).to_arrow_table()
    if old == write.schema:
        return places, recast(found, layout.types)
    batches = [converted(batch, old, write.schema, layout) for batch in found.to_batches()]
    return places, pa.Table.from_batches(batches, layout)


def judge(cursor: duckdb.DuckDBPyConnection, rows: pa.Table, schema: Schema, met: pa.Table) -> Verdict:
    """Compare new rows with each other and with the stored rows of their events.

    For example, for two events with created times:

        row              event   created   x    result
        stored, 3        a       5         1    no longer counts
        stored, ~2       a       5         0    stays hidden
        new, 0           a       5         0    a replay of ~2
        new, 1           a       6         2    counts
        new, 2           b       5         1    counts
        new, 3           b       null      2    does not count: no created time is less than any

    Values are compared only of events with more than one row, since most writes have no other events.

    Args:
        cursor: The DuckDB connection that compares them.
        rows: The new rows, in stored types.
        schema: The schema.
        met: The stored rows, in the same schema, with their numbers; it may have those of other events too.
    """
    cursor.register("new_rows", rows.select(schema.names).append_column(ROW_ID, pa.array(np.arange(len(rows)))))
    cursor.register("met", met)
    # `values_sql` names all columns in the order of the schema: the keys come first, then event time and created time.
    values, keys = values_sql(schema), comma(f"c{i}" for i in range(len(schema.keys)))
    created = f"c{len(schema.keys) + 1}" if schema.created_time else "NULL"
    query = f"""
        WITH new AS (SELECT {quote(ROW_ID)} AS i, {values} FROM new_rows),
             old AS (SELECT {quote(ROW_ID)} AS number, {values} FROM met),
             shared AS (SELECT {keys} FROM old UNION SELECT {keys} FROM new GROUP BY {keys} HAVING count(*) > 1),
             mine AS MATERIALIZED (SELECT * FROM new SEMI JOIN shared USING ({keys})),
             known AS (SELECT * FROM old SEMI JOIN (SELECT {keys} FROM old WHERE number >= 0) USING ({keys})),
             each AS (SELECT min(i) AS i, * EXCLUDE i FROM mine GROUP BY ALL),
             fresh AS MATERIALIZED (SELECT n.* FROM each AS n ANTI JOIN known AS s ON {same_values(schema, "n", "s")}),
             rivals AS (
                SELECT i, NULL AS number, {keys}, {created} AS created FROM fresh
                UNION ALL SELECT NULL, number, {keys}, {created} FROM known WHERE number >= 0
             ),
             ranked AS (
                SELECT i, number, row_number() OVER (
                    PARTITION BY {keys} ORDER BY created DESC NULLS LAST, i DESC NULLS LAST, number DESC
                ) AS place
                FROM rivals
             )
        SELECT i, number, place FROM ranked WHERE place > 1
        UNION ALL SELECT i, NULL, 0 FROM mine ANTI JOIN fresh USING (i)
    """
    found = cursor.sql(query).to_arrow_table()
    is_new, is_replay = found["i"].is_valid(), pc.equal(found["place"], 0)
    return Verdict(
        found["i"].filter(is_replay).to_numpy(),
        found["i"].filter(pc.and_not(is_new, is_replay)).to_numpy(),
        found["number"].drop_null().to_numpy(),
    )


def files_of(base: Snapshot, places: pa.Table, numbers: np.ndarray | None = None) -> frozenset[str]:
    """Return the names of the files that hold the rows at some places; if numbers are given, only those of the rows with these."""
    held = (
        places["file"]
        if numbers is None
        else places["file"].filter(pc.is_in(places["number"], pa.array(numbers, pa.int64())))
    )
    return frozenset(base.files[file].path for file in held.unique().to_pylist())


def _hidden(cursor: duckdb.DuckDBPyConnection, base: Snapshot, write: Write) -> tuple[pa.Table, pa.Table]:
    """Find the hidden rows, and tell which of them go because an overwrite removes their events.

    Returns:
        `number` and `file` of those that go, and of those that stay because their event counts outside the interval or in a new row.
        Otherwise a replay of one would be taken for a new row, which would win.
    """
    commit, row_id = base.commit, quote(ROW_ID)
    assert commit  # noqa: S101 - a snapshot with hidden rows has a commit
    keys, outside = _keys(commit.schema), f"({inside(commit.schema, write.interval)}) IS NOT TRUE"
    beyond = [file for file in base.files if not file.lies_within(write.interval)]
    cursor.register("hidden", cursor.sql(_numbered(base, base.files, f"{row_id} < 0")).to_arrow_table())
    cursor.register("wanted", _wanted(write, commit.schema))
    counting = f"SELECT {keys} FROM wanted"
    if beyond:
        counting += f" UNION ALL SELECT {keys} FROM ({_numbered(base, beyond, f'{outside} AND {row_id} >= 0')})"
    gone, staying = (
        _places(cursor, base, f"SELECT number, file FROM hidden {join} JOIN ({counting}) USING ({keys})")
        for join in ("ANTI", "SEMI")
    )
    return gone, staying


def _numbered(base: Snapshot, files: Iterable[DataFile], condition: str) -> str:
    """Write the query that reads number, file (its path) and k0, k1, ... (the keys) of the rows under a condition."""
    schema = base.commit.schema if base.commit else None
    assert schema  # noqa: S101 - a snapshot with files has a commit
    names = {name.lower() for name in schema.names}
    file = next(name for i in range(len(names) + 1) if (name := f"{ROW_ID} file {i}") not in names)
    keys = [f"{quote(name)} AS k{i}" for i, name in enumerate(schema.key_names)]
    columns = [*schema.key_names, schema.event_time.name, ROW_ID]
    rows = scan_stored([base.root / one.path for one in files], columns, file)
    return (
        f"SELECT {comma([f'{quote(ROW_ID)} AS number', f'{quote(file)} AS file', *keys])} FROM {rows} WHERE {condition}"
    )


def _keys(schema: Schema) -> str:
    return comma(f"k{i}" for i in range(len(schema.keys)))


def _places(cursor: duckdb.DuckDBPyConnection, base: Snapshot, found: str) -> pa.Table:
    """Return number and file of the rows that a query finds; the file by its place among the files of the snapshot, not by its path."""
    paths = readable([base.root / file.path for file in base.files], [])
    cursor.register(
        "paths", pa.table({"path": pa.array(paths, pa.string()), "place": np.arange(len(paths), dtype="int32")})
    )
    return cursor.sql(f"SELECT number, place AS file FROM ({found}) JOIN paths ON file = path").to_arrow_table()


def _wanted(write: Write, old: Schema) -> pa.Table:
    """Return the ids of a write as k0, k1, ..., in the types in which they are stored already; null where none can be."""
    keys = write.rows.select(write.schema.key_names)
    if old.keys != write.schema.keys:
        logical = recast(keys, [field.type for field in write.schema.keys])
        keys = stored_keys(logical, [field.type for field in old.keys])
    return keys.rename_columns([f"k{i}" for i in range(len(old.keys))])
