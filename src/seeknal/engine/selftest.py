"""A self-test of the point-in-time join with the installed releases of DuckDB, Arrow and NumPy.

Past releases of DuckDB have skipped a newest value that is null, and have compared timestamps with and without a zone in the time zone
of the session. The test covers every way in which the engine can join.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa

from seeknal.define.columns import ROW_ID
from seeknal.define.schema import Schema
from seeknal.engine.duckdb.joins import Join
from seeknal.engine.protocol import FeatureRequest
from seeknal.errors import StoreError
from seeknal.offline import Rows
from seeknal.values.types import UTC

passed = threading.Event()
"""Set once the libraries have passed in this process: other homes need no test of their own."""
VERSIONS = f"duckdb {duckdb.__version__}, numpy {np.__version__}, pyarrow {pa.__version__}"
"""The libraries under test. A home records the versions that passed, and does not test them again."""
_SCHEMA = Schema(
    (pa.field("user", pa.string()), pa.field("place", pa.int64())),
    pa.field("at", UTC),
    pa.field("made", UTC),
    (pa.field("x", pa.int64()),),
)
_ROWS = f"""
    SELECT "user", place, make_timestamptz("at") AS "at", make_timestamptz(made) AS made, x, id AS "{ROW_ID}" FROM (VALUES
        ('a', 7, 10, NULL, 1, 0), ('a', 7, 20, 6, 3, 1), ('a', 7, 20, 5, 2, 2), ('a', 7, 30, 5, 9, 3), ('a', 7, 30, 5, NULL, 4),
        ('a', 8, 15, NULL, 8, 5), ('b', 7, 50, NULL, 5, 6)
    ) AS stored("user", place, "at", made, x, id)
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
"""User and moment of each spine row, all at place 7. With the ttl, the row at 10 is still valid at 18, but not at 19."""
_WITHOUT_TTL = [None, 1, 1, 1, 3, None, 1, None, None, None, None]
_WITH_TTL = [None, 1, 1, None, 3, None, 1, None, None, None, None]
_TTL = 8
_WAYS: dict[str, Callable[[Join], pa.Table | None]] = {
    "at once": Join.at_once,
    "in steps": Join.in_steps,
    "share by share": lambda join: replace(join, shares=2).in_steps(),
}


def check(connection: duckdb.DuckDBPyConnection) -> None:
    """Join the test rows to the test spine in all ways, with and without a ttl, in a session zone far from UTC.

    Raises:
        StoreError: A join failed, or returned a wrong result.
    """
    users, moments = zip(*_SPINE, strict=True)
    places = pa.array([7] * len(users), pa.int64())
    spine = pa.table({"k0": users, "k1": places, "t": pa.array(moments, pa.int64())})
    with closing(connection.cursor()) as cursor:
        # Far from UTC, a comparison of naive and zoned times in the session's zone would shift each moment by hours.
        cursor.execute("SET TimeZone = 'Asia/Jakarta'")

        def query(sql: str, **views: pa.Table) -> pa.Table:
            for name, view in views.items():
                cursor.register(name, view)
            return cursor.sql(sql).to_arrow_table()

        for ttl, expected in ((None, _WITHOUT_TTL), (_TTL, _WITH_TTL)):
            wanted = FeatureRequest(Rows((), _SCHEMA, 0), ("x",), ttl)
            for way, join in _WAYS.items():
                try:
                    answer = join(Join(query, wanted, _ROWS, spine))
                except (duckdb.Error, pa.ArrowException) as error:
                    raise StoreError(
                        f"The self-test of the point-in-time join failed with {VERSIONS}: {error}"
                    ) from error
                found = None if answer is None else answer["f0"].to_pylist()
                if found != expected:
                    raise StoreError(
                        f"With {VERSIONS}, a point-in-time join returns wrong values on this machine: {found} instead of "
                        f"{expected} ({way}, ttl {ttl}). Install other releases of these libraries, and please report this."
                    )
    passed.set()
