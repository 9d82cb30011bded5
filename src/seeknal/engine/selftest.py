"""A few cases that a point-in-time join must answer rightly, with the releases of DuckDB, Arrow and NumPy that are installed.

Releases of DuckDB before have skipped a last value that is null, and compared a timestamp with one of a zone in the session's own
zone. The ways are the engine's.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from seeknal.engine.joins import Join
from seeknal.engine.protocol import Wanted
from seeknal.errors import StoreError
from seeknal.offline import Rows
from seeknal.schema import ROW_ID, UTC, Schema

_SCHEMA = Schema((pa.field("user", pa.string()),), pa.field("at", UTC), None, (pa.field("x", pa.int64()),))
_ROWS = f"""
    SELECT "user", make_timestamptz("at") AS "at", x, id AS "{ROW_ID}" FROM (VALUES
        ('a', 10, 1, 0), ('a', 20, 2, 1), ('a', 20, 3, 2), ('a', 30, NULL, 3), ('b', 50, 5, 4)
    ) AS stored("user", "at", x, id)
"""
_SPINE = [
    ("a", 9),
    ("a", 10),
    ("a", 18),
    ("a", 19),
    ("a", 20),
    ("a", 31),
    ("a", 10),
    ("b", 49),
    (None, 50),
    ("c", 50),
    ("b", None),
]
_WITHOUT_TTL = [None, 1, 1, 1, 3, None, 1, None, None, None, None]
_WITH_TTL = [None, 1, 1, None, 3, None, 1, None, None, None, None]
_TTL = 8
_WAYS = {"at once": Join.at_once, "in steps": Join.in_steps}


def check(connection: duckdb.DuckDBPyConnection) -> None:
    """Ask the cases, in a zone far from UTC.

    Raises:
        StoreError: An answer is wrong.
    """
    cursor = connection.cursor()
    cursor.execute("SET TimeZone = 'Asia/Jakarta'")
    users, moments = zip(*_SPINE, strict=True)
    spine = pa.table({"k0": users, "t": pa.array(moments, pa.int64())})

    def query(sql: str, **views: pa.Table) -> pa.Table:
        for name, view in views.items():
            cursor.register(name, view)
        return cursor.sql(sql).to_arrow_table()

    for ttl, expected in ((None, _WITHOUT_TTL), (_TTL, _WITH_TTL)):
        for way, join in _WAYS.items():
            wanted = Wanted(Rows((), _SCHEMA, 0), ("x",), ttl)
            try:
                answer = join(Join(query, wanted, _ROWS, spine))
            except duckdb.Error as error:
                raise StoreError(f"DuckDB could not answer its test cases: {error}") from error
            found = None if answer is None else answer["f0"].to_pylist()
            if found != expected:
                raise StoreError(
                    f"With DuckDB {duckdb.__version__}, a point-in-time join is answered wrongly on this machine: {found} in "
                    f"place of {expected} ({way}, ttl {ttl}). Install another release of duckdb, and please report it."
                )
    cursor.close()
