"""The importer on a repository that has one of everything, against loops over the files and against Feast itself."""

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import feast_shop_data
from commands import seeknal_process
from feast_repository import feast_python
from seeknal import FeatureLookup, FeatureView, HistoricalFeaturesDuckDB

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
HOUR, TICK = timedelta(hours=1), timedelta(microseconds=1)
UNEXPLAINED = "not explained"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "repo"
    shutil.copytree(Path(__file__).parent / "feast_shop", folder, ignore=shutil.ignore_patterns("__pycache__"))
    feast_shop_data.write(folder / "data", NOW)
    subprocess.run([feast_python().with_name("feast"), "apply"], cwd=folder, check=True, capture_output=True)
    (folder / "data/gone.parquet").unlink()
    return folder


@pytest.fixture(scope="module")
def spine(tmp_path_factory):
    """Return a file with moments at all edges of all rows, for entities with and without rows, each row once."""
    rng = np.random.default_rng()
    customers, skus, airports = [1, 2, 3, 5, 6, 99], ["A", "B", "C", "Z"], ["AMS", "CGK", "XXX"]
    edges = [timedelta(0), -TICK, TICK, 2 * HOUR, 2 * HOUR + TICK]
    moments = [NOW - int(hour) * HOUR + edge for hour in rng.choice(50, 20, replace=False) for edge in edges]
    moments += [NOW - days * 24 * HOUR + edge for days in (100, 200, 300, 400) for edge in edges]
    every = [(customer, sku) for customer in customers for sku in skus]  # at random moments, and each of them now
    pairs = [every[place] for place in rng.integers(len(every), size=len(moments))] + every
    moments += [NOW] * len(every)
    rows = {
        "customer_id": [customer for customer, _ in pairs],
        "sku": [sku for _, sku in pairs],
        "from_airport": rng.choice(airports, len(moments)).tolist(),
        "to_airport": rng.choice(airports, len(moments)).tolist(),
        "moment": pa.array(moments, pa.timestamp("us", "UTC")),
        "cart_value": [float(place) for place in range(len(moments))],
        "coupon": [[None, "", "x"][place % 3] for place in range(len(moments))],
    }
    file = tmp_path_factory.mktemp("spine") / "spine.parquet"
    pq.write_table(pa.table(rows), file)
    return file


@pytest.fixture(scope="module")
def imported(repository, spine, tmp_path_factory):
    """Import once, and return the home and what the command printed."""
    folder = tmp_path_factory.mktemp("imported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEKNAL_HOME", str(folder / "home"))
        patch.chdir(folder)
        before = contents(repository)
        command = ["import-feast", str(repository), "--python", str(feast_python()), "--functions", "shop_functions.py"]
        done = seeknal_process(*command, "--spine", str(spine), "--date-col", "moment", "--format", "json")
        assert contents(repository) == before
    assert done.stdout, done.stderr
    return folder, json.loads(done.stdout)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.fixture
def at_home(imported, monkeypatch):
    folder, told = imported
    monkeypatch.setenv("SEEKNAL_HOME", str(folder / "home"))
    monkeypatch.syspath_prepend(str(folder))
    return told


# What is in the repository, by hand: nothing may be missing from what the command says.
VIEWS = ("spend", "stock", "basket", "kinds", "weather", "country", "remote", "gone", "clicks", "pushed")
ON_DEMAND = ("cart_features", "ratios", "codes", "in_euros", "coupon_of", "lottery", "share_of_all")
SERVICES = ("plain", "computed", "working", "single", "same_names", "flight", "everything", "spend", "random_service")
SERVICES += ("relative", "broken")


def test_every_object_of_the_repository_is_imported_or_named_with_a_reason(imported):
    _, told = imported
    made = {one["from"] for one in told["imported"]}
    left = {one["what"] for one in told["not_imported"]}
    assert made.isdisjoint(left)
    every = {f"feature view {name}" for name in VIEWS if name != "clicks"} | {"stream feature view clicks"}
    every |= {f"on-demand feature view {name}" for name in ON_DEMAND}
    every |= {f"feature service {name}" for name in SERVICES}
    assert every - made - left == set()
    assert all(one["why"] and one["instead"] for one in told["not_imported"])


def test_what_only_feast_can_do_is_left_out_and_all_else_is_imported(imported):
    _, told = imported
    made = {
        one["from"].removeprefix("feature service ") for one in told["imported"] if one["from"].startswith("feature s")
    }
    assert made == {"plain", "working", "single", "same_names", "flight", "everything", "spend"}
    rows = {one["from"]: one["rows"] for one in told["imported"]}
    spends = feast_shop_data.spend(NOW).num_rows
    assert rows["feature view spend"] == rows["feature view pushed"] == spends
    assert rows["feature view stock"] == 6
    why = {one["what"]: one["why"] for one in told["not_imported"]}
    assert "by chance" in why["feature service random_service"] or "chance" in why["feature service random_service"]
    assert "other rows" in why["feature service relative"]
    assert "prices" in why["on-demand feature view in_euros"]
    assert "in_euros" in why["feature service computed"]
    assert "s3://" in why["feature view remote"]


# The rule of the join in plain Python, over the files of Feast.


def rows_of(repository, name):
    data = repository / "data"
    if name == "basket":
        return deltalake.DeltaTable(data / "basket").to_pyarrow_table().to_pylist()
    found = ds.dataset(data / ("stock" if name == "stock" else f"{name}.parquet")).to_table()
    if name != "stock":
        return found.to_pylist()
    nanos = found["counted"].cast(pa.int64()).to_pylist()
    up = [datetime.fromtimestamp(0, UTC) + timedelta(microseconds=-(-one // 1000)) for one in nanos]
    named = found.drop(["counted"]).rename_columns(["sku", "in_stock", "list_price"]).to_pylist()
    return [{**row, "at": moment} for row, moment in zip(named, up, strict=True)]


def newest_of(rows, key, moment):
    """Return the rows of a key with the newest event time at or before a moment, in the order of the file."""
    seen = [row for row in rows if all(row[name] == value for name, value in key.items()) and row["at"] <= moment]
    last = max((row["at"] for row in seen), default=None)
    return [row for row in seen if row["at"] == last]


def as_of(rows, key, moment, ttl):
    newest = newest_of(rows, key, moment)
    if not newest or (ttl is not None and moment - newest[-1]["at"] > ttl):
        return None
    return max(enumerate(newest), key=lambda one: (str(one[1].get("recorded_at")), one[0]))[1]


TTLS = {"spend": 2 * HOUR, "stock": None, "basket": 30 * 24 * HOUR, "kinds": 365 * 24 * HOUR, "weather": 24 * HOUR}
KEYS = {"spend": ["customer_id"], "stock": ["sku"], "basket": ["customer_id", "sku"], "kinds": ["customer_id"]}


def expected(repository, name, spine_rows, feature, keys=None):
    rows = rows_of(repository, name)
    found = []
    for one in spine_rows:
        key = {own: one[column] for own, column in (keys or {key: key for key in KEYS[name]}).items()}
        row = as_of(rows, key, one["moment"], TTLS[name])
        found.append(None if row is None else row[feature])
    return found


@pytest.mark.parametrize("name", ["spend", "stock", "basket", "kinds"])
def test_a_group_returns_what_a_loop_over_the_file_of_feast_returns(name, repository, spine, at_home):
    table = pq.read_table(spine)
    found = HistoricalFeaturesDuckDB([FeatureLookup(f"shop/{name}")]).using_spine(table, "moment").to_dataframe()
    features = [one for one in found.column_names if one not in table.column_names]
    assert features
    for feature in features:
        assert found[feature].to_pylist() == expected(repository, name, table.to_pylist(), feature), feature
    assert any(found[features[0]].is_valid().to_pylist())


def test_a_service_that_joins_a_view_twice_keeps_each_join_key(repository, spine, at_home):
    rows = pq.read_table(spine)
    found = FeatureView.load("flight", project="shop").to_dataframe(rows, "moment")
    for feature, column in (("origin__wind", "from_airport"), ("destination__wind", "to_airport")):
        wanted = expected(repository, "weather", rows.to_pylist(), "wind", {"airport": column})
        assert found[feature].to_pylist() == wanted


def test_features_of_the_same_name_are_told_apart_by_their_view(repository, spine, at_home):
    rows = pq.read_table(spine)
    found = FeatureView.load("same_names", project="shop").to_dataframe(rows, "moment")
    for name in ("spend", "basket"):
        assert found[f"{name}__amount"].to_pylist() == expected(repository, name, rows.to_pylist(), "amount")


def test_functions_of_feast_compute_what_they_say_from_the_joined_values(repository, spine, at_home):
    rows = pq.read_table(spine).to_pylist()
    found = FeatureView.load("working", project="shop").to_dataframe(pq.read_table(spine), "moment").to_pylist()
    amounts = expected(repository, "spend", rows, "amount")
    visits = expected(repository, "spend", rows, "visits")
    for row, amount, count, made in zip(rows, amounts, visits, found, strict=True):
        assert made["visits"] == count
        assert made["ratio"] == (None if amount is None else row["cart_value"] / amount)
        assert made["next_visit"] == (None if count is None else count + 1)
        assert made["is_big"] == (row["cart_value"] > 2)
        assert len(made["code"]) == 8


# The differences, against Feast and against the files.

ASK = """
import json, sys, warnings
warnings.simplefilter("ignore")
import pandas as pd
from feast import FeatureStore
store = FeatureStore(sys.argv[1])
rows = pd.read_parquet(sys.argv[2]).rename(columns={"moment": "event_timestamp"})
rows["place"] = range(len(rows))
found = {}
for name, full in (("plain", False), ("spend", False), ("flight", True), ("same_names", True), ("working", False)):
    made = store.get_historical_features(rows, store.get_feature_service(name), full_feature_names=full).to_df()
    found[name] = json.loads(made.drop(columns="event_timestamp").to_json(orient="records", double_precision=15))
json.dump(found, open(sys.argv[3], "w"))
"""


def test_the_command_lists_exactly_the_values_in_which_feast_differs(repository, spine, at_home, tmp_path):
    answer = tmp_path / "answer.json"
    copy = tmp_path / "repo"
    shutil.copytree(repository, copy)
    subprocess.run([feast_python(), "-c", ASK, copy, spine, answer], cwd=copy, check=True, capture_output=True)
    rows = pq.read_table(spine)
    for name, theirs in json.loads(answer.read_text()).items():
        ours = FeatureView.load(name, project="shop").to_dataframe(rows, "moment").to_pylist()
        places = {one["place"]: one for one in theirs}
        missing = len(ours) - len(places)
        features = [one for one in ours[0] if one not in rows.column_names]
        different = sum(
            not close(ours[place][feature], one[feature]) for place, one in places.items() for feature in features
        )
        told = [one for one in at_home["differences"] if one["what"] == name and one["when"] == "past"]
        assert (name, sum(not one["feature"] for one in told)) == (name, missing)
        if (
            name != "working"
        ):  # Feast chooses among ties anew in each run, so that a function can differ in one run only
            assert abs(sum(bool(one["feature"]) for one in told) - different) <= ties(repository, name, rows), name
        assert missing, name


def close(one, other):
    return one == other if None in (one, other) or isinstance(one, str) else abs(one - other) <= 1e-9 * abs(one)


def ties(repository, name, spine_rows):
    """Return how many values Feast may take from another row in each run."""
    views = {"plain": ["spend", "stock"], "spend": ["spend"], "same_names": ["spend", "basket"]}.get(name, [])
    count = 0
    for view in views:
        rows = rows_of(repository, view)
        for one in spine_rows.to_pylist():
            count += 4 * (len(newest_of(rows, {key: one[key] for key in KEYS[view]}, one["moment"])) > 1)
    return count


def test_each_difference_has_a_reason_that_the_files_confirm(repository, spine, at_home):
    seen = set()
    for one in at_home["differences"]:
        kind = next((kind for kind in CONFIRMED if kind in one["why"]), None)
        assert kind, json.dumps(one)
        seen.add(kind)
        CONFIRMED[kind](repository, one, at_home["differences"])
    assert {
        "all later",
        "none within the ttl",
        "older than the ttl",
        "have the event time",
        "computes it from another",
    } <= seen
    assert not [one for one in at_home["differences"] if UNEXPLAINED in one["why"]]


def place_of(one):
    keys, _, moment = one["of"].partition(" at ")
    key = dict(part.split("=") for part in keys.split(", "))
    key = {name: int(value) if name == "customer_id" else value for name, value in key.items()}
    return key, datetime.fromisoformat(moment).replace(tzinfo=UTC) if moment else datetime.now(UTC)


def views_of(one, key):
    """Return the views that a difference can be about, each with its rows and the key of the row."""
    named = {
        "plain": ["spend", "stock"],
        "working": ["spend"],
        "same_names": ["spend", "basket"],
        "everything": ["kinds"],
    }
    if one["what"] == "flight":
        return [("weather", {"airport": key["from_airport"]}), ("weather", {"airport": key["to_airport"]})]
    views = named.get(one["what"], ["spend" if one["what"] in ("pushed", "single") else one["what"]])
    return [(view, {name: key[name] for name in KEYS[view]}) for view in views]


def confirm_later(repository, one, _):
    key, moment = place_of(one)
    views = [(rows_of(repository, view), own) for view, own in views_of(one, key)]
    assert any(
        not newest_of(rows, own, moment) and newest_of(rows, own, datetime.max.replace(tzinfo=UTC))
        for rows, own in views
    )


def confirm_expired(repository, one, _):
    key, moment = place_of(one)
    views = [(newest_of(rows_of(repository, view), own, moment), TTLS[view]) for view, own in views_of(one, key)]
    assert any(newest and ttl and moment - newest[0]["at"] > ttl for newest, ttl in views)


def confirm_tie(repository, one, _):
    key, moment = place_of(one)
    newest = [newest_of(rows_of(repository, view), own, moment) for view, own in views_of(one, key)]
    name = one["feature"].rpartition("__")[2]
    tied = [rows for rows in newest if len(rows) > 1 and name in rows[0]]
    values = [row[name] for rows in tied for row in rows]
    assert any(
        close(value, one["feast"]) or (value and close(float(np.float32(value)), one["feast"])) for value in values
    )


def confirm_input(_, one, __):
    inputs = one["why"].removeprefix("Feast computes it from another ").removesuffix(".").split(" and ")
    assert set(inputs) <= {"amount", "visits", "currency", "is_member"}
    assert one["feature"] in ("ratio", "next_visit", "is_big", "code")


def confirm_duplicate(_, one, __):
    assert not one["feature"]


def confirm_rounding(_, one, __):
    assert one["feast"] == pytest.approx(one["seeknal"], rel=1e-6)
    assert one["feast"] != one["seeknal"]


def confirm_integers(_, one, __):
    assert one["feast"] == float(one["seeknal"]) != one["seeknal"]


CONFIRMED = {
    "all later": confirm_later,
    "none within the ttl": confirm_expired,
    "older than the ttl": confirm_expired,
    "have the event time": confirm_tie,
    "computes it from another": confirm_input,
    "Another row of the spine": confirm_duplicate,
    "rounds": confirm_rounding,
    "integers": confirm_integers,
}


def test_serving_for_the_comparison_makes_no_version_of_an_imported_view(at_home):
    for service in ("plain", "working", "single", "same_names", "flight", "everything", "spend"):
        assert FeatureView.load(service, project="shop").version == 1


def test_a_second_import_replaces_rows_only_if_asked(repository, imported, monkeypatch):
    folder, _ = imported
    monkeypatch.setenv("SEEKNAL_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    command = ["import-feast", str(repository), "--python", str(feast_python()), "--functions", "shop_functions.py"]
    command += ["--no-compare", "--format", "json"]
    refused = seeknal_process(*command)
    assert refused.returncode == 1
    assert "--replace" in refused.stderr
    again = json.loads(seeknal_process(*command, "--replace").stdout)
    assert {one["rows"] for one in again["imported"] if one["from"] == "feature view stock"} == {6}


def test_a_dry_run_stores_nothing(repository, home):
    command = ["import-feast", str(repository), "--python", str(feast_python()), "--dry-run", "--format", "json"]
    assert json.loads(seeknal_process(*command).stdout)["would_import"]
    assert not home.exists()
    assert not list(Path().iterdir())


def test_a_python_without_feast_is_an_error_that_names_it(repository, home):
    done = seeknal_process("import-feast", str(repository))
    assert done.returncode == 1
    assert "does not have Feast" in done.stderr
    assert "--python" in done.stderr
    assert not home.exists()
