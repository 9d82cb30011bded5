"""Types at their edges: where a library has none of the kind, or another one."""

from datetime import time

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from contract.world import HOUR, NOON, group, history, look, rows, write, written
from seeknal import DataError, FeatureLookup, HistoricalFeaturesDuckDB, types


def test_halves_are_whole_in_duckdb_which_has_none():
    fg = written(
        rows(1).set_column(2, "x", pa.array([np.float16(65504)])).append_column("y", pa.array([[np.float16(2)]]))
    )
    relation = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).to_dataframe(output="duckdb")
    assert list(map(str, relation.types[2:])) == ["FLOAT", "FLOAT[]"]
    assert relation.project("x, y").fetchall() == [(65504.0, [2.0])]


def test_times_of_day_end_at_microseconds_where_they_are_values_of_python():
    last = pa.array([86_399_999_999_999]).cast(pa.time64("ns"))
    fg = written(rows(1).set_column(2, "x", last).append_column("y", pa.ListArray.from_arrays([0, 1], last)))
    past = HistoricalFeaturesDuckDB([FeatureLookup(fg)])
    cut = time.max
    assert past.to_dataframe()["y"][0] == [cut]
    assert past.serve().get_features([{"user_id": 1}], "dicts")[0]["x"] == cut


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["a", "b"])])
def test_categories_of_polars_are_text_as_feature_and_as_key(kind):
    texts = pl.Series(["b", "a", None], dtype=kind)
    table = pl.DataFrame({"user_id": texts, "at": [NOON] * 3, "x": texts, "y": [texts] * 3})
    fg = written(table[:2])
    assert look(fg, table[:, :2])["x"].to_list() == ["b", "a", None]
    assert history(fg)["y"].to_pylist() == [["b", "a", None]] * 2


def test_a_list_of_nulls_takes_a_type_with_its_first_value():
    fg = written(rows([], [None]))
    with pytest.warns(match="version 2"):
        write(fg, rows([1], times=[NOON + 2 * HOUR]), mode="append")
    assert history(fg)["x"].to_pylist() == [[], [None], [1]]
    write(fg, rows([], times=[NOON + 3 * HOUR]), mode="append")
    assert fg.version == 2


def test_lists_are_named_inside_as_arrow_names_them():
    fg = written(rows([1]).append_column("y", pa.array([{"a": [[1]]}])))
    kinds = ["list<item: int64>", "struct<a: list<item: list<item: int64>>>"]
    assert list(map(str, history(fg).drop(["user_id", "at"]).schema.types)) == kinds
    online = HistoricalFeaturesDuckDB([FeatureLookup(fg)]).serve().get_features([{"user_id": 1}], "arrow")
    assert list(map(str, online.drop(["user_id"]).schema.types)) == kinds


def test_a_feature_cannot_be_declared_as_null():
    fg = group()
    with pytest.raises(DataError, match="type is unknown"):
        fg.set_dataframe(rows(None)).set_features({"x": "null"}).write()


def test_lists_of_one_length_are_cast_beside_nulls():
    """Arrow 26.0.1 alone reads out of bounds here, and may end the process."""
    values = [[["a"], ["b", "c"]], None, [["d"], []], None] * 50
    kind = pa.list_(pa.list_(pa.string()), 2)
    table = pa.table(
        {"x": pa.chunked_array([pa.array(values[i : i + 7], pa.list_(kind.value_type)) for i in range(0, 200, 7)])}
    )
    found = types.recast(table, [kind])
    found.validate(full=True)
    assert (found["x"].type, found["x"].to_pylist()) == (kind, values)
