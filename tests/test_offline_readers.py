"""Other readers of an offline table find with a filter what a full scan finds, whatever the types of the columns."""

from __future__ import annotations

import tempfile
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import hypothesis.strategies as st
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, QueryBuilder
from hypothesis import given

from contract.profiles import PROFILE
from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup
from seeknal.home.doctor import examine
from seeknal.offline.log import METADATA, noted

pytestmark = pytest.mark.slow

WHEN = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
VALUES = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float16(): st.floats(width=16),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=60),
    pa.binary(): st.binary(max_size=40),
    pa.binary(3): st.binary(min_size=3, max_size=3),
    pa.date32(): st.dates(),
    pa.timestamp("us"): st.datetimes(),
    pa.timestamp("us", "Asia/Tokyo"): WHEN,
    pa.timestamp("ns"): st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
    pa.time64("us"): st.times(),
    pa.duration("us"): st.timedeltas(timedelta(days=-9999), timedelta(days=9999)),
    pa.decimal128(20, 4): st.decimals(-(10**15), 10**15, places=4),
    pa.list_(pa.float64()): st.lists(st.floats(allow_nan=False), max_size=3),
    pa.struct([("a", pa.int64()), ("b c", pa.string())]): st.fixed_dictionaries(
        {"a": st.none() | st.integers(0, 9), "b c": st.text(max_size=3)}
    ),
}
OPERATORS = {"=": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
"""As deltalake and pandas write a comparison, and the method of an Arrow or Polars expression."""


@st.composite
def writes(draw: st.DrawFn) -> list[pa.Table]:
    """Draw the tables of some appends, with features of a few types; a column of a write may have only nulls."""
    chosen = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4, unique=True))
    keys = st.integers(-(2**63), 2**63 - 1)
    made = []
    for size in draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)):

        def column(values: st.SearchStrategy[object], kind: pa.DataType, size: int = size) -> pa.Array:
            return pa.array(draw(st.lists(values, min_size=size, max_size=size)), kind)

        columns = {
            "user id": column(keys, pa.int64()),
            "shop": column(st.text(max_size=50), pa.string()),
            "seen.at": column(WHEN, pa.timestamp("us", "UTC")),
        }
        columns |= {f"{kind}": column(st.none() | VALUES[kind], kind) for kind in chosen}
        made.append(pa.table(columns))
    return made


def stored(home: Path, tables: list[pa.Table]) -> Path:
    """Write tables to a group, one after the other, and give the group's folder."""
    group = FeatureGroup("visits", Entity("user", ["user id", "shop"]), Materialization("seen.at"))
    store = FeatureStore(home)
    with warnings.catch_warnings(action="ignore"):  # some rows are dated after now
        for table in tables:
            store.groups.write(group, table, mode="append")
    store.close()
    return home / "offline" / "default" / "visits"


@PROFILE
@given(tables=writes(), data=st.data())
def test_each_reader_finds_with_a_filter_what_a_full_scan_finds(tables, data):
    with tempfile.TemporaryDirectory() as folder:
        root = stored(Path(folder), tables)
        if data.draw(st.booleans(), "checkpoint"):
            DeltaTable(root).create_checkpoint()
        files = DeltaTable(root).file_uris()
        every = pa.concat_tables(pq.read_table(file) for file in files)
        assert len(every) == sum(map(len, tables))
        names = [field.name for field in every.schema if not pa.types.is_nested(field.type)]
        column = data.draw(st.sampled_from(names), "column")
        some = [one for one in every[column].to_pylist() if one is not None]
        value = data.draw(st.sampled_from(some), "value") if some else None
        sign = data.draw(st.sampled_from(list(OPERATORS)), "sign")
        scalar = pa.scalar(value, every[column].type)
        plain, table = ds.dataset(files), DeltaTable(root).to_pyarrow_dataset()
        compared = getattr(pc.field(column), OPERATORS[sign])(scalar)
        for question in (compared, ~compared, pc.field(column).is_null(), pc.field(column).is_valid()):
            assert table.count_rows(filter=question) == plain.count_rows(filter=question)
        sql = f'SELECT count(*) FROM {{}} WHERE "{column}" {sign} ?'
        with duckdb.connect() as duck:
            duck.register("delta", table)
            duck.register("plain", plain)
            counts = [duck.execute(sql.format(name), [value]).fetchall() for name in ("delta", "plain")]
        assert counts[0] == counts[1]
        if value is None:
            return
        question = getattr(pl.col(column), OPERATORS[sign])(pl.lit(value))
        expected = pl.scan_parquet(files).filter(question).collect().height
        assert pl.scan_delta(str(root)).filter(question).collect().height == expected
        if value != value:  # noqa: PLR0124 - a NaN: Polars over PyArrow fails on it for any table, and the lists below refuse it
            return
        assert pl.scan_delta(str(root), use_pyarrow=True).filter(question).collect().height == expected
        if not pa.types.is_binary(scalar.type):
            expected = plain.count_rows(filter=compared)
            rule = [(column, sign, value)]
            assert len(DeltaTable(root).to_pandas(filters=rule)) == expected
            assert len(pd.read_parquet(files, filters=rule)) == expected


def spend(home: Path) -> Path:
    """Write two rows to a group, in one file each."""
    made = [
        pa.table({"user": [n], "at": pa.array([n], pa.timestamp("us", "UTC")), "amount": [float(n)]}) for n in (1, 2)
    ]
    store = FeatureStore(home)
    for table in made:
        store.groups.write(FeatureGroup("spend", Entity("user", ["user"]), Materialization("at")), table, mode="append")
    return home / "offline" / "default" / "spend"


@pytest.mark.parametrize(
    "rule",
    [
        "amount = 2",
        '"user" = 2',
        "at > '1970-01-01T00:00:00.000001Z'",
        'amount IS NOT NULL AND at IS NOT NULL AND "user" > 1',
    ],
)
def test_sql_of_deltalake_finds_rows_by_any_column(home, rule):
    query = QueryBuilder().register("spend", DeltaTable(spend(home))).execute(f"SELECT amount FROM spend WHERE {rule}")
    assert pa.RecordBatchReader.from_stream(query).read_all().to_pydict() == {"amount": [2.0]}


def as_an_earlier_release_left_it(root: Path) -> None:
    """Remove the property that lists the columns with statistics."""
    DeltaTable(root).alter.set_table_properties({"delta.dataSkippingStatsColumns": "at,amount,user"})
    note = noted(root, DeltaTable(root).version() - 1)
    changed = CommitProperties(custom_metadata={METADATA: note})
    DeltaTable(root).alter.set_table_properties(
        {"delta.dataSkippingStatsColumns": "at,amount,user"}, commit_properties=changed
    )


@pytest.mark.parametrize("mend", ["write", "optimize"])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_table_of_an_earlier_release_is_repaired_by_the_next_write_or_by_optimize(home, mend, checkpoint):
    root = spend(home)
    as_an_earlier_release_left_it(root)
    if checkpoint:
        DeltaTable(root).create_checkpoint()
    store, rule = FeatureStore(home), [("amount", "=", 2.0)]
    group = FeatureGroup("spend", Entity("user", ["user"]), Materialization("at"))
    assert len(DeltaTable(root).to_pandas(filters=rule)) == 0
    assert store.features.latest([FeatureLookup(group)])["amount"].tolist() == [1.0, 2.0]
    [found] = [one.found for one in examine(store) if not one.fine and one.what == "group default/spend"]
    assert found.startswith("the table lacks the properties delta.dataSkippingStatsColumns: filters of other readers")
    if mend == "optimize":
        store.groups.optimize("spend")
    else:
        store.groups.write(
            group,
            pa.table({"user": [3], "at": pa.array([3], pa.timestamp("us", "UTC")), "amount": [3.0]}),
            mode="append",
        )
    assert len(DeltaTable(root).to_pandas(filters=rule)) == 1
    assert store.features.latest([FeatureLookup(group)])["amount"].tolist()[:2] == [1.0, 2.0]
    assert all(one.fine for one in examine(store) if one.what == "group default/spend")


def test_a_property_that_another_program_took_away_is_set_again(home):
    root = spend(home)
    DeltaTable(root).alter.set_table_properties({"delta.enableExpiredLogCleanup": "true"})
    FeatureStore(home).groups.optimize("spend")
    assert DeltaTable(root).metadata().configuration["delta.enableExpiredLogCleanup"] == "false"
