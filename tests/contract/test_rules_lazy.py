"""Rule 10: a frame is evaluated once in each call, however lazy it is, and what can be read once is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

from seeknal import DataError, FeatureLookup, HistoricalFeaturesDuckDB, OnlineFeaturesDuckDB
from seeknal.values import frames

from .world import NOON, group, history, look, rows, write, written

pytestmark = pytest.mark.slow

COUNT = 3000
US = pa.timestamp("us")


@pytest.fixture
def numbered():
    """A group in which `x` of each user is the user's number."""
    return written(pa.table({"user_id": range(COUNT), "at": pa.array([NOON] * COUNT, US), "x": range(COUNT)}))


@pytest.fixture
def connection():
    """A connection with events, whose order differs from run to run of some queries."""
    with duckdb.connect() as opened:
        opened.execute(
            f"CREATE TABLE events AS SELECT i * 7919 % {COUNT} AS user_id, TIMESTAMP '2024-02-01' AS \"at\" FROM range(300_000) t(i)"
        )
        yield opened


QUERIES = {
    "distinct": 'SELECT DISTINCT user_id, "at" FROM events',
    "union": "SELECT * FROM events UNION SELECT * FROM events",
    "sample": "SELECT * FROM events USING SAMPLE 1000",
    "random": 'SELECT (random() * 2999)::BIGINT AS user_id, "at" FROM range(2000), (SELECT "at" FROM events LIMIT 1)',
    "random order": "SELECT * FROM events ORDER BY random() LIMIT 2000",
    "numbers without an order": 'SELECT (row_number() OVER () - 1) % 3000 AS user_id, "at", user_id AS other FROM events',
    "groups": 'SELECT user_id, min("at") AS "at" FROM events GROUP BY user_id',
    "nextval": "SELECT nextval('numbers') AS user_id, \"at\" FROM events LIMIT 500",
}


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("query", QUERIES)
def test_each_row_of_a_relation_gets_the_features_of_its_own_entity(numbered, connection, query, in_order):
    connection.execute("CREATE SEQUENCE numbers")
    connection.execute(f"SET preserve_insertion_order = {in_order}")
    spine = connection.sql(QUERIES[query])
    hist = HistoricalFeaturesDuckDB([FeatureLookup(numbered)]).using_spine(spine, "at")
    for answer in (
        hist.to_dataframe(),
        hist.to_dataframe(output="arrow"),
        hist.to_dataframe(output="pandas"),
        hist.to_batches().read_all(),
        hist.save(f"set_{query.replace(' ', '_')}").to_dataframe("arrow"),
    ):
        table = pa.table(answer.to_arrow_table() if isinstance(answer, duckdb.DuckDBPyRelation) else answer)
        assert len(table) > 400
        assert table["user_id"].to_pylist() == table["x"].to_pylist()


def test_rows_of_a_relation_are_written_from_one_run(connection):
    fg = written(
        connection.sql('SELECT *, user_id AS x, random() AS y FROM (SELECT DISTINCT user_id, "at" FROM events)')
    )
    found = history(fg)
    assert found["user_id"].to_pylist() == found["x"].to_pylist()
    assert len(found) == COUNT


def test_an_answer_in_duckdb_keeps_the_types_of_a_relation_and_is_used_on_its_connection(numbered, connection):
    spine = connection.sql(
        "SELECT 7 AS user_id, TIMESTAMPTZ '2024-02-01 00:00:00+00' AS \"at\", 340282366920938463463374607431768211455::UHUGEINT AS a, "
        "TIMETZ '23:30:00+05' AS b, [{'b': '101'::BIT}] AS c, 42::VARIANT AS d, 1::BIGNUM AS e, 'x'::ENUM('x') AS f, "
        "union_value(k := 1) AS g, 'POINT(1 2)'::GEOMETRY AS h, INTERVAL '1 month' AS i, TIME '24:00' AS j, 'infinity'::DATE AS k"
    )
    answer = look(numbered, spine)
    assert answer.types[:-1] == spine.types
    assert answer.columns == [*spine.columns, "x"]
    assert answer.fetchall() == [(*spine.fetchall()[0], 7)]
    assert connection.sql("SELECT x + 1 FROM answer JOIN events USING (user_id) LIMIT 1").fetchall() == [(8,)]
    assert answer.fetchall() == answer.fetchall()
    assert connection.sql("FROM duckdb_tables() WHERE table_name <> 'events'").fetchall() == []


LOST = {
    "170141183460469231731687303715884105727::HUGEINT": "39 digits",
    "1::UHUGEINT": "UHUGEINT",
    "TIMETZ '23:30:00+05'": "TIME WITH TIME ZONE",
    "TIME '24:00'": "24:00",
    "1::BIGNUM": "BIGNUM",
    "42::VARIANT": "VARIANT",
    "[{'b': '101'::BIT}]": "BIT",
    "map {'a': 1::UHUGEINT}": "UHUGEINT",
    "'infinity'::TIMESTAMP": "infinite",
    "['-infinity'::DATE]": "infinite",
}


@pytest.mark.parametrize("value", LOST)
def test_duckdb_types_that_arrow_lacks_are_refused_with_a_fix_that_works(numbered, value):
    def rows_of(column: str, more: str) -> duckdb.DuckDBPyRelation:
        columns = {"user_id": "1", "at": "TIMESTAMP '2024-01-01'", "x": "1"} | {
            column: value if not more else f"CAST({value} AS VARCHAR)"
        }
        return duckdb.sql("SELECT " + ", ".join(f'{what} AS "{name}"' for name, what in columns.items()))

    for place in ("x", "user_id"):
        fg = group(place)
        with pytest.raises(DataError, match=rf'Column \'{place}\' has DuckDB\'s type .*CAST\("{place}" AS VARCHAR\)'):
            write(fg, rows_of(place, ""))
        assert write(fg, rows_of(place, "cast")).rows == 1
        text = duckdb.sql(f"SELECT CAST({value} AS VARCHAR)").fetchall()[0][0]
        assert history(fg)[place].to_pylist() == [text]
    spine = duckdb.sql(f"SELECT 1 AS user_id, TIMESTAMP '2024-02-01' AS \"at\", {value} AS kept")
    hist = HistoricalFeaturesDuckDB([FeatureLookup(numbered)])
    for ask in (
        lambda asked: asked.to_dataframe(output="arrow"),
        lambda asked: asked.to_dataframe(output="pandas"),
        lambda asked: asked.save("kept"),
        lambda asked: asked.to_batches(),
    ):
        with pytest.raises(DataError, match=r"Column 'kept' has DuckDB's type .*CAST.*keep_cols="):
            ask(hist.using_spine(spine, "at"))
    assert hist.using_spine(spine, "at", keep_cols=[]).to_dataframe(output="arrow")["x"].to_pylist() == [1]


def test_a_connection_that_cannot_read_arrow_tables_is_an_error_that_says_so(numbered):
    with duckdb.connect(config={"python_enable_replacements": False}) as connection:
        spine = connection.sql("SELECT 1 AS user_id, TIMESTAMP '2024-02-01' AS \"at\"")
        with pytest.raises(DataError, match="SET python_enable_replacements = true"):
            look(numbered, spine)
        assert look(numbered, spine, output="arrow")["x"].to_pylist() == [1]
        connection.execute("SET python_enable_replacements = true")
        assert look(numbered, spine).fetchall()[0][2] == 1


def test_a_relation_whose_query_fails_is_named(numbered):
    with pytest.raises(DataError, match="relation cannot be read"):
        look(numbered, duckdb.sql("SELECT error('no') AS user_id, TIMESTAMP '2024-02-01' AS \"at\""))


def test_columns_of_a_relation_that_differ_in_case_only_are_kept_apart(numbered):
    spine = duckdb.sql('SELECT 1 AS user_id, TIMESTAMP \'2024-02-01\' AS "at", 5 AS y, 6 AS "Y"')
    with pytest.raises(DataError, match="Columns 'y' and 'Y' differ in case only"):
        look(numbered, spine)
    assert look(numbered, spine, output="arrow").select(["y", "Y"]).to_pylist() == [{"y": 5, "Y": 6}]


def test_results_in_duckdb_can_be_used_in_any_thread(numbered):
    def ask(number: int) -> object:
        answer = history_of(numbered, "duckdb").filter(f"user_id = {number}")
        return answer.project("x + 1").fetchall()[0][0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(80))) == list(range(1, 81))


def history_of(fg: object, output: str):
    return HistoricalFeaturesDuckDB([FeatureLookup(fg)]).to_dataframe(output=output)  # type: ignore[arg-type]


def test_a_lazy_frame_is_collected_once(numbered):
    runs = []

    def noted(frame: pl.DataFrame) -> pl.DataFrame:
        runs.append(1)
        return frame.sample(fraction=1, shuffle=True)

    lazy = pl.LazyFrame({"user_id": range(100), "at": [NOON] * 100}).map_batches(
        noted, schema={"user_id": pl.Int64, "at": pl.Datetime}
    )
    hist = HistoricalFeaturesDuckDB([FeatureLookup(numbered)]).using_spine(lazy, "at")
    for ask in (
        hist.to_dataframe,
        lambda: hist.to_batches().read_all(),
        lambda: hist.save("lazy").to_dataframe("arrow"),
    ):
        before = len(runs)
        found = ask()
        assert len(runs) == before + 1
        assert list(found["user_id"].to_pylist() if isinstance(found, pa.Table) else found["user_id"]) == list(
            found["x"].to_pylist() if isinstance(found, pa.Table) else found["x"]
        )
    with pytest.raises(DataError, match="lazy Polars frame cannot be read"):
        look(numbered, pl.LazyFrame({"user_id": [1], "at": [NOON]}).select("user_id", "nothing"))


class Capsules:
    """An object of no known library, which gives its columns to Arrow."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


class OneCapsule(SimpleNamespace):
    """An object that gives its columns to Arrow as one array."""

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.batch.__arrow_c_array__(requested_schema)


ONCE = {
    "reader": lambda table: pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches())),
    "stream": Capsules,
    "stream that is spent": lambda table: Capsules(
        pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches()))
    ),
    "array": lambda table: OneCapsule(batch=table.to_batches()[0]),
    "batch": lambda table: table.to_batches()[0],
    "dataset": pyarrow.dataset.dataset,
}


@pytest.mark.parametrize("kind", ONCE)
def test_what_can_be_read_once_has_the_same_rows_the_second_time(kind):
    fg = group().set_dataframe(ONCE[kind](rows(10, 20)))
    assert [fg.write().rows, fg.write().rows] == [2, 2]
    spine = pa.table({"user_id": [1, 2], "at": pa.array([NOON, NOON], US)})
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(ONCE[kind](spine), "at")
    hist.check()
    for _ in range(2):
        found = hist.to_dataframe()
        assert isinstance(found, pa.Table)
        assert found["x"].to_pylist() == [10, None]
        assert hist.to_batches().read_all()["x"].to_pylist() == [10, None]
    assert hist.save("kept").rows == 2
    serving = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve("table")
    assert isinstance(serving, OnlineFeaturesDuckDB)
    keys = ONCE[kind](pa.table({"user_id": [2, 1]}))
    assert serving.get_features(keys, "dicts") == [{"user_id": 2, "x": None}, {"user_id": 1, "x": 20}]
    assert fg.push(ONCE[kind](rows(30, times=[datetime_after()]))).rows == 1


def datetime_after():
    return NOON.replace(year=2025)


def test_a_stream_that_breaks_off_is_named():
    def broken():
        yield rows(1).to_batches()[0]
        raise OSError("the disk is gone")

    with pytest.raises(DataError, match="the disk is gone"):
        group().set_dataframe(pa.RecordBatchReader.from_batches(rows(1).schema, broken()))


@pytest.mark.parametrize(
    "thing", [[1], iter([rows(1)]), pa.array([1]), pl.Series([1]), pd.Series([1]), 5, None, {"x": [1]}]
)
def test_an_object_without_columns_is_refused_as_a_frame(thing):
    with pytest.raises(
        DataError, match=r"Expected a frame, not|is a single column, not a frame|not an array of columns"
    ):
        group().set_dataframe(thing)


class MyPandas(pd.DataFrame):
    """A frame of a library that builds on pandas."""

    @property
    def _constructor(self):
        return MyPandas


class MyPolars(pl.DataFrame):
    """A frame of a library that builds on Polars."""


@pytest.mark.parametrize("kind", [MyPandas, MyPolars])
def test_subclasses_of_pandas_and_polars_frames_are_frames(kind):
    fg = written(kind({"user_id": [1, 2], "at": [NOON, NOON], "x": [10, 20]}))
    found = look(fg, kind({"user_id": [2, 1], "at": [NOON, NOON]}))
    assert isinstance(found, kind.__mro__[1])
    assert list(found["x"]) == [20, 10]


def test_columns_that_are_not_kept_are_not_read(tmp_path):
    fg = written(rows(1, 2))
    spine = pd.DataFrame(
        {
            "user_id": [1] * 2,
            "at": [NOON] * 2,
            "month": pd.period_range("2024-01", periods=2, freq="M"),
            "o": [{1}, "b"],
        }
    )
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    for keep in (["user_id"], []):
        asked = hist.using_spine(spine, "at", keep_cols=keep)
        assert asked.save(f"kept_{len(keep)}").rows == asked.to_parquet(tmp_path / "x.parquet") == 2
        assert asked.check() == []
    for ask in (
        lambda one: one.save("all"),
        lambda one: one.to_parquet(tmp_path / "x.parquet"),
        lambda one: one.check(),
    ):
        with pytest.raises(DataError, match=r"'(o|month)'.*keep_cols="):
            ask(hist.using_spine(spine, "at"))
    with pytest.raises(DataError, match=r"Column 'month'.*keep_cols="):
        hist.using_spine(spine.drop(columns="o"), "at").save("period")
    assert look(fg, spine)["o"].tolist() == [{1}, "b"]


UNFIT = {
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array(["a"])),
    "union": pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
    "interval": pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
    "nothing": pa.array([{}], pa.struct([])),
    "lists by number": pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([[1]])),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "views by number": pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(["a"], pa.string_view())),
    "wide": pa.array([10**45], pa.decimal256(50, 0)),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_column_of_the_spine_comes_out_everywhere_or_is_refused_by_name(tmp_path, kind):
    spine = pa.table({"user_id": [1], "at": [NOON], "kept": UNFIT[kind]})
    hist = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1)))])
    ways = {
        "arrow": lambda asked: asked.to_dataframe().num_rows,
        "batches": lambda asked: asked.to_batches().read_all().num_rows,
        "pandas": lambda asked: len(asked.to_dataframe(output="pandas")),
        "polars": lambda asked: len(asked.to_dataframe(output="polars")),
        "duckdb": lambda asked: len(asked.to_dataframe(output="duckdb")),
        "parquet": lambda asked: asked.to_parquet(tmp_path / "x.parquet"),
        "save": lambda asked: asked.save("plain").rows,
        "save rows": lambda asked: asked.save("whole", rows=True).rows,
    }
    refused = {}
    for way, ask in ways.items():
        try:
            assert ask(hist.using_spine(spine, "at")) == 1
        except DataError as error:
            refused[way] = str(error)
            assert ask(hist.using_spine(spine, "at", keep_cols=[])) == 1
    assert not {"arrow", "batches"} & set(refused)
    assert all("'kept'" in text and "keep_cols=" in text for text in refused.values())
    assert not list(tmp_path.glob(".x*"))


@pytest.mark.parametrize("nested", [False, True])
def test_categories_of_two_frames_are_saved_and_reproduced(nested):
    fg = written(rows(1))
    parts = []
    for word in ("a", "b"):
        words = pa.array([word]).dictionary_encode()
        kept = pa.ListArray.from_arrays([0, 1], words) if nested else words
        parts.append(pa.table({"user_id": [1], "at": [NOON], "kept": kept}))
    hist = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).using_spine(pa.concat_tables(parts), "at")
    saved = hist.save("may")
    assert saved.reproduce("arrow")["kept"].to_pylist() == ([["a"], ["b"]] if nested else ["a", "b"])
    plain = pa.concat_tables(parts).cast(
        pa.schema([("user_id", pa.int64()), ("at", US), ("kept", pa.list_(pa.string()) if nested else pa.string())])
    )
    assert hist.using_spine(plain, "at").save("plain").content_hash == saved.content_hash
    if not nested:
        assert (
            look(
                written(pa.concat_tables(parts).rename_columns(["user_id", "at", "x"]), name="words"),
                plain.drop(["kept"]),
            )["x"][0].as_py()
            == "b"
        )
        frame = pl.concat([pl.from_arrow(part) for part in parts])
        assert hist.using_spine(frame, "at").save("polars").reproduce("arrow")["kept"].to_pylist() == ["a", "b"]


def test_frames_know_their_columns_before_a_row_is_read():
    with duckdb.connect() as connection:
        relation = connection.sql("SELECT error('read') AS x, 1 AS y")
        assert frames.opened(relation).names == ["x", "y"]
        assert frames.opened(relation).only(["y"]).table().to_pylist() == [{"y": 1}]
