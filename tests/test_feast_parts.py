"""What an import from Feast does without Feast: the code of functions, the calls of functions, and what it refuses at once."""

import base64
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from commands import seeknal
from feast_repository import SETTINGS
from seeknal import DataError, DefinitionError, Entity, FeatureGroup, FeatureLookup, Materialization
from seeknal.feast import written
from seeknal.feast.code import Module, NotPortableError, add_function
from seeknal.feast.described import Source, View
from seeknal.feast.history import History
from seeknal.feast.plan import PlannedGroup
from seeknal.feast.reasons import ONLINE, PAST, UNEXPLAINED, Place, Reasons
from seeknal.feast.rows import rows_of
from seeknal.feast.spines import MOMENT
from seeknal.feast.udf import of_frame, of_lists, of_values
from seeknal.feast.units import Unit

MODULE = """
import math
import nobody_has_this
import numpy as np
from feast import Field
from functools import lru_cache

RATE = 2.5
TWICE = RATE * 2
KNOWN = {}
KNOWN["a"] = 1
COUNT = 0
COUNT += 1


class Rule:
    floor = math.floor


@lru_cache
def helper(x):
    return Rule.floor(x * TWICE)  # with its comment


@on_demand_feature_view(schema=[Field])
def good(inputs):
    return {name: [helper(one) for one in values] for name, values in inputs.items()}


@on_demand_feature_view(schema=[Field])
def table(inputs):
    return KNOWN["a"]


@on_demand_feature_view(schema=[Field])
def counted(inputs):
    return COUNT


@on_demand_feature_view(schema=[Field])
def of_feast(inputs):
    return Field(name="x")


@on_demand_feature_view(schema=[Field])
def missing(inputs):
    return nowhere(inputs)


@on_demand_feature_view(schema=[Field])
def local(inputs):
    from prices import euros

    return euros(inputs)


@on_demand_feature_view(schema=[Field])
def foreign(inputs):
    return nobody_has_this.run(inputs)
"""


@pytest.fixture
def repo(tmp_path):
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "definitions.py").write_text(MODULE)
    (folder / "prices.py").write_text("def euros(amount):\n    return amount\n")
    return folder


def code_of(name: str) -> str:
    """Return the text of a function with its decorator, as Feast's registry has it."""
    start = MODULE.index(f"@on_demand_feature_view(schema=[Field])\ndef {name}(")
    return MODULE[start:].partition("\n\n\n")[0]


def test_a_function_takes_along_what_it_uses_and_nothing_else(repo):
    module = Module()
    assert add_function(code_of("good"), repo, module) == "good"
    assert set(module.imports) == {"import math", "from functools import lru_cache"}
    text = "\n\n".join([*module.imports, *module.bodies])
    assert "# with its comment" in text
    assert "on_demand" not in text
    assert "KNOWN" not in text
    names = {}
    exec(text, names)
    assert names["good"]({"a": [1.3, 2]}) == {"a": [6, 10]}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("table", "its module binds or changes KNOWN in more than one statement"),
        ("counted", "its module binds or changes COUNT in more than one statement"),
        ("of_feast", "it uses Field of Feast"),
        ("local", "it imports euros of the module 'prices' of the repository"),
        ("foreign", "it imports nobody_has_this, which is not installed where Seeknal runs"),
        ("missing", "it uses nowhere, which its module does not define"),
    ],
)
def test_a_function_that_would_not_run_alike_without_its_module_is_refused(repo, name, why):
    module = Module()
    with pytest.raises(NotPortableError, match=why):
        add_function(code_of(name), repo, module)
    assert not module.imports
    assert not module.bodies


def test_a_function_whose_module_is_unknown_gets_pandas_and_numpy_as_in_feast(tmp_path):
    module = Module()
    add_function("def f(df):\n    return pd.DataFrame({'x': np.sqrt(df['x'])})", tmp_path, module)
    assert set(module.imports) == {"import pandas as pd", "import numpy as np"}


def test_two_modules_with_different_things_of_one_name_are_refused(tmp_path):
    for name, value in (("one", 1), ("other", 2)):
        (tmp_path / f"{name}.py").write_text(f"RATE = {value}\n\ndef {name}(inputs):\n    return RATE\n")
    module = Module()
    add_function("def one(inputs):\n    return RATE", tmp_path, module)
    with pytest.raises(NotPortableError, match="two modules of the repository have different things named RATE"):
        add_function("def other(inputs):\n    return RATE", tmp_path, module)


def test_a_function_that_two_modules_define_with_other_surroundings_is_refused(repo):
    (repo / "old.py").write_text(MODULE.replace("RATE = 2.5", "RATE = 3"))
    with pytest.raises(NotPortableError, match="two modules of the repository define it, and differ in what it uses"):
        add_function(code_of("good"), repo, Module())
    (repo / "old.py").write_text(MODULE + "\nOTHER = 1\n")
    assert add_function(code_of("good"), repo, Module()) == "good"


def test_a_lambda_is_refused(tmp_path):
    with pytest.raises(NotPortableError, match="no function with def"):
        add_function("view = on_demand(udf=lambda x: x)", tmp_path, Module())


INPUTS = {
    "whole": (np.array([1.0, np.nan, 3.0]), "int64"),
    "real": (np.array([0.1, 0.2, np.nan]), "float32"),
    "sure": (np.array([1.0, 0.0, np.nan]), "bool"),
    "text": (np.array(["a", None, "c"], dtype=object), "object"),
    "when": (np.array(["2024-05-01", "NaT", "2024-05-03"], "M8[us]"), "datetime64[ns]"),
}


def kinds(frame):
    """Return the type and value of each column, row by row, as text."""
    return pd.DataFrame({"seen": [str([(str(frame[name].dtype), frame[name].iloc[row]) for name in frame]) for row in range(len(frame))]})  # fmt: skip


def test_each_row_gets_the_types_that_feast_gives_to_it_alone():
    together = of_frame(kinds, INPUTS, ["seen"])["seen"]
    for row in range(3):
        alone = of_frame(
            kinds, {name: (array[row : row + 1], kind) for name, (array, kind) in INPUTS.items()}, ["seen"]
        )
        assert alone["seen"][0] == together[row]
    assert "('int64', np.int64(1)), ('float32', np.float32(0.1)), ('bool', np.True_)" in together[0]
    assert "('float64', np.float64(nan))" in together[1]
    assert "('object', None)" in together[2]
    assert "datetime64[ns, UTC]" in together[0]


def test_no_rows_are_no_rows():
    made = of_frame(lambda frame: frame, {name: (array[:0], kind) for name, (array, kind) in INPUTS.items()}, ["whole"])
    assert made["whole"].tolist() == []


def test_a_function_that_leaves_out_rows_is_refused():
    with pytest.raises(ValueError, match="<lambda> returned 1 rows for 2"):
        of_frame(lambda frame: frame[:1], {"real": (np.array([1.0, 2.0]), "float64")}, ["real"])


def test_times_come_back_in_utc():
    made = of_frame(lambda frame: frame, {"when": INPUTS["when"]}, ["when"])["when"]
    assert made.dtype == "M8[us]"
    assert made.tolist() == INPUTS["when"][0].tolist()


def test_python_functions_get_lists_or_values_as_in_feast():
    assert of_lists(lambda inputs: {"x": [one + 1 for one in inputs["a"]]}, {"a": 1}, ["x"]) == {"x": 2}
    assert of_values(lambda inputs: {"x": inputs["a"] + 1}, {"a": 1}, ["x"]) == {"x": 2}


def test_a_written_module_is_never_overwritten(tmp_path):
    file = tmp_path / "features_from_feast.py"
    written.write(file, "X = 1\n")
    written.write(file, "X = 1\n")
    with pytest.raises(DefinitionError, match="has another content"):
        written.write(file, "X = 2\n")
    assert file.read_text() == "X = 1\n"
    with pytest.raises(DefinitionError, match="cannot be imported"):
        written.write(tmp_path / "features-from-feast.py", "")


def test_a_folder_without_a_repository_is_named(tmp_path):
    done = seeknal("import-feast", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path} has no feature_store.yaml" in done.stderr


def test_a_python_without_feast_is_named_with_the_way_to_get_one(tmp_path):
    (tmp_path / "feature_store.yaml").write_text(SETTINGS)
    done = seeknal("import-feast", str(tmp_path))
    assert done.returncode == 1
    assert f"{sys.executable} does not have Feast. Pass --python" in done.stderr
    done = seeknal("import-feast", str(tmp_path), "--python", "/no/such/python")
    assert "/no/such/python is no program" in done.stderr


def test_an_import_that_fails_creates_no_home(tmp_path, home):
    (tmp_path / "feature_store.yaml").write_text(SETTINGS)
    assert seeknal("import-feast", str(tmp_path)).returncode == 1
    assert not Path(home).exists()


def view(source: Source | None) -> View:
    """Return a feature view with one feature, as Feast would describe it."""
    features = base64.b64encode(pa.schema({"total": pa.int64()}).serialize().to_pybytes()).decode()
    told = {
        "name": "spend",
        "description": None,
        "owner": None,
        "tags": {},
        "kind": "FeatureView",
        "entities": ("user",),
    }
    rest = {"features": features, "ttl_seconds": None, "source": source, "stream": None, "is_online": True}
    return View(**told, **rest, is_computed=False)


def source(path: str | None, **other) -> Source:
    """Return a source of Parquet, unless something else is said."""
    told = {"kind": "FileSource", "format": "ParquetFormat", "event_time": "at", "created_time": None}
    return Source(path=path, **(told | {"renames": {"sum": "total"}} | other))


ROWS = pa.table({"user": [1, 2], "at": pa.array([0, 1], pa.timestamp("us")), "sum": [10, 20]})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "it has a stream and no source of past rows"),
        (source(None, kind="BigQuerySource"), "its rows are in a BigQuerySource, which Seeknal does not read"),
        (source("s3://bucket/spend.parquet"), "its rows are in s3://bucket/spend.parquet, which is no local file"),
        (source("spend.avro", format="AvroFormat"), "its rows are in a file of AvroFormat"),
    ],
)
def test_rows_that_cannot_be_read_are_named_with_where_they_are(given, why):
    with pytest.raises(NotPortableError, match=why):
        rows_of(view(given), ("user",), None)


def test_rows_of_a_file_that_lacks_a_column_are_refused(tmp_path):
    pq.write_table(ROWS.drop_columns(["sum"]), tmp_path / "spend.parquet")
    with pytest.raises(DataError, match=r"spend\.parquet has no column 'sum'"):
        rows_of(view(source(str(tmp_path / "spend.parquet"))), ("user",), None)


def test_rows_of_delta_lake_and_of_folders_are_read_by_the_names_of_the_view(tmp_path):
    write_deltalake(tmp_path / "delta", ROWS)
    (tmp_path / "folder").mkdir()
    pq.write_table(ROWS, tmp_path / "folder/one.parquet")
    for made in (source(str(tmp_path / "delta"), format="DeltaFormat"), source(str(tmp_path / "folder"))):
        rows = rows_of(view(made), ("user",), None)
        assert rows.kinds == {"user": pa.int64(), "at": rows.kinds["at"], "total": pa.int64()}
        assert rows.read(["user", "total"]).read_all().to_pylist() == [
            {"user": 1, "total": 10},
            {"user": 2, "total": 20},
        ]
        assert rows.read(["total"], among=("user", [2])).read_all().to_pylist() == [{"total": 20}]


def test_a_given_file_is_read_in_place_of_the_source(tmp_path):
    pq.write_table(ROWS, tmp_path / "exported.parquet")
    rows = rows_of(view(source(None, kind="BigQuerySource")), ("user",), str(tmp_path / "exported.parquet"))
    assert rows.read(["total"]).read_all()["total"].to_pylist() == [10, 20]


TIED = pa.table(
    {
        "user": [1, 1, 1],
        "at": pa.array([0, 5_000_000, 5_000_000], pa.timestamp("us", "UTC")),
        "noted": pa.array([0, 9, 8], pa.timestamp("us")),
        "sum": [10, 20, 30],
    }
)


@pytest.fixture
def unit(tmp_path):
    """A group with a ttl of a second, and two rows at its last time."""
    pq.write_table(TIED, tmp_path / "spend.parquet")
    made = view(source(str(tmp_path / "spend.parquet"), created_time="noted"))
    dated = Materialization("at", "noted", ttl=timedelta(seconds=1))
    group = PlannedGroup(
        made, FeatureGroup("spend", Entity("user", ["user"]), dated, "shop"), rows_of(made, ("user",), None)
    )
    return Unit("spend", None, ((FeatureLookup("shop/spend", ["total"]), group),), ("total",), {}, full_names=False)


def reasons(unit, *asked):
    """Return the reasons for rows of a spine."""
    return Reasons(unit, asked, {"spend": History(unit.lookups[0][1], [(1,)])})


def test_a_reason_is_given_only_if_it_leads_to_the_value_of_feast(unit):
    def why(kind: str, moment: int, ours: object, theirs: object) -> str:
        return reasons(unit).of_value("total", Place(kind, {"user": 1}, moment), {"total": ours}, {"total": theirs})

    assert (
        why(ONLINE, 3_000_000, None, 10)
        == "The row is older than the ttl of 0:00:01, which Feast does not apply online."
    )
    assert why(ONLINE, 3_000_000, None, 11) == UNEXPLAINED
    assert why(ONLINE, 1_000_000, None, 10) == UNEXPLAINED, "the row is within its ttl"
    assert why(PAST, 3_000_000, None, 10) == UNEXPLAINED, "Feast applies the ttl to the past"
    tie = "2 rows have the event time 1970-01-01 00:00:05; Feast took one with the created time 1970-01-01 00:00:00.000008, Seeknal the one "
    assert why(PAST, 5_000_000, 20, 30) == f"{tie}created last."
    assert why(PAST, 5_000_000, 20, 10) == UNEXPLAINED
    assert why(PAST, 4_999_999, 20, 30) == UNEXPLAINED, "both rows are later"
    assert why(PAST, 5_000_000, 2**53 + 1, float(2**53)).startswith("Feast returns integers as float64")
    assert why(ONLINE, 5_000_000, 2**53 + 1, 2**53).startswith("Feast returns integers as float64")
    assert why(PAST, 5_000_000, 2**53 + 1, 7.0) == UNEXPLAINED


def test_a_reason_for_a_missing_row_is_given_only_if_the_rows_show_it(unit):
    def why(moment: int, *others: dict[str, int], user: int = 1) -> str:
        asked = [{**row, MOMENT: moment} for row in ({"user": user}, *others)]
        return reasons(unit, *asked).of_missing_row(Place(PAST, asked[0], moment))

    assert why(-1) == "Feast drops a row of the spine if spend has rows of its key, but all later."
    assert why(1_000_001) == "Feast drops a row of the spine if spend has rows of its key, but none within the ttl."
    assert why(1_000_000) == UNEXPLAINED
    assert why(-1, user=2) == UNEXPLAINED, "spend has no rows of this key"
    assert why(0, {"user": 2}) == UNEXPLAINED
    assert why(0, {"user": 1}).startswith("Another row of the spine has the same user and moment")


def test_a_row_that_repeats_only_the_keys_of_a_later_view_is_not_said_to_be_repeated(unit):
    ((lookup, group),) = unit.lookups
    other = replace(lookup, rename={"user": "other"})
    twice = replace(unit, lookups=((other, group), (lookup, group)))
    asked = [{"user": 1, "other": 1, MOMENT: 0}, {"user": 1, "other": 2, MOMENT: 0}]
    assert reasons(twice, *asked).of_missing_row(Place(PAST, asked[0], 0)) == UNEXPLAINED
    asked[1] = {"user": 2, "other": 1, MOMENT: 0}
    why = reasons(twice, *asked).of_missing_row(Place(PAST, asked[0], 0))
    assert why.startswith("Another row of the spine has the same other and moment")
