"""A whole Feast repository, imported and compared by Feast itself."""

import json
import os
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import feast_repository
from commands import seeknal, seeknal_process
from feast_repository import ROOT, feast_python, make_repository
from seeknal import FeatureStore
from seeknal.feast.described import read_schema
from seeknal.feast.process import Feast
from seeknal.views.feature_views import ViewSpine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python():
    """The Python that has Feast."""
    return feast_python()


@pytest.fixture(scope="module")
def applied(python, tmp_path_factory):
    """The repository after feast apply, with a file that is gone since."""
    folder = make_repository(tmp_path_factory.mktemp("feast") / "market")
    feast_repository.run(python, folder, "apply")
    (folder / "data/gone.parquet").unlink()
    return folder


def files_of(folder):
    """Return the content of all files below a folder."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def imported(python, applied, tmp_path_factory):
    """A home with the imported repository, the exit code, and what the command said."""
    folder = tmp_path_factory.mktemp("imported")
    before = files_of(applied)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEKNAL_HOME", str(folder / "home"))
        patch.chdir(folder)
        done = seeknal("import-feast", str(applied), "--python", str(python), "--functions", "market.py", "-f", "json")
    assert done.stdout, done.stderr
    assert files_of(applied) == before
    return folder, done.returncode, json.loads(done.stdout)


def differences(told, what, when):
    """Return the differences of a service or view."""
    return [one for one in told["differences"] if (one["what"], one["when"]) == (what, when)]


def test_each_object_is_imported_or_named_with_a_reason(imported):
    told = imported[2]
    assert [one["from"] for one in told["imported"]] == [
        *(f"feature view {name}" for name in ("clicks", "prices", "sales", "stock")),
        *(f"on-demand feature view {name}" for name in ("after", "percent", "share", "twice")),
        *(f"feature service {name}" for name in ("basket", "between", "helped", "single")),
    ]
    reasons = {one["what"]: one["why"] for one in told["not_imported"]}
    assert reasons.keys() == {
        "feature view gone",
        "feature view world",
        "on-demand feature view looked",
        "on-demand feature view rank",
        "feature service lookup",
        "feature service ranked",
    }
    assert "gone.parquet does not exist" in reasons["feature view gone"]
    assert reasons["feature view world"] == "it has no entity, and a group is looked up by a key"
    assert "rank as" in reasons["feature service ranked"]
    assert all(one["instead"] for one in told["not_imported"])


def test_a_group_has_the_rows_types_and_names_of_its_view(imported):
    store = FeatureStore(imported[0] / "home")
    group = store.groups.get("sales", project="market").group
    assert (group.entity.name, group.keys, group.entity.description) == ("shop", ("shop_id",), "A shop")
    assert (group.event_time_col, group.materialization.created_time_col) == ("at", "noted")
    assert group.materialization.ttl.days == 2
    assert group.description == "Of a day"
    columns = {name: kind for name, kind, role in store.groups.version("sales").columns if role == "feature"}
    # The declared type of turnover is float32, and the file has float64: nothing is rounded.
    assert {name: str(kind) for name, kind in columns.items()} == {
        "turnover": "double",
        "visits": "int64",
        "city": "string",
    }
    assert store.groups.get("prices").group.materialization.ttl is None
    assert store.groups.get("prices").group.entity.name == "shop_product"


def test_a_service_is_a_view_that_computes_what_its_functions_do(imported, monkeypatch):
    monkeypatch.syspath_prepend(imported[0])
    store = FeatureStore(imported[0] / "home")
    view = store.views.get("helped")
    moment = pa.array([feast_repository.DAY], pa.timestamp("us", "UTC"))
    spine = pa.table({"shop_id": [1], "when": moment, "cart": [2.5]})
    found = store.views.frame(view, ViewSpine(spine, "when"), "arrow").to_pylist()
    assert [(one["city"], one["percent"]) for one in found] == [("Oslo", 250.0)]
    basket = store.views.get("basket")
    assert list(basket.content.features) == ["turnover", "left", "share", "busy", "after"]
    assert {"basket@1", "between@1", "clicks"} <= {one.name for one in store.tables.all(project="market")}
    assert (basket.description, basket.owner, basket.tags) == ("For the basket", "growth", ("model=b1",))


def test_one_view_can_be_read_by_two_keys(imported):
    store = FeatureStore(imported[0] / "home")
    view = store.views.get("between")
    assert list(view.content.features) == ["origin__visits", "target__visits"]
    moment = pa.array([feast_repository.DAY] * 2, pa.timestamp("us", "UTC"))
    spine = pa.table({"origin_id": [1, 3], "target_id": [2, 1], "at": moment})
    found = store.views.frame(view, ViewSpine(spine, "at"), "arrow").select(view.content.features)
    assert found.to_pylist() == [
        {"origin__visits": 1, "target__visits": None},
        {"origin__visits": None, "target__visits": 1},
    ]


def test_a_row_that_feast_drops_is_reported_with_the_reason(imported):
    found = [one for one in differences(imported[2], "clicks", "past") if not one["feature"]]
    assert {one["why"] for one in found} == {
        "Feast drops a row of the spine if clicks has rows of its key, but all later."
    }
    reasons = {one["why"] for one in differences(imported[2], "between", "past")}
    assert "Feast drops a row of the spine if sales has rows of its key, but none within the ttl." in reasons
    reasons = {one["why"] for one in differences(imported[2], "basket", "past")}
    assert "Another row of the spine has the same shop_id and moment, and Feast keeps one of them." in reasons


def test_a_value_past_its_ttl_is_reported_where_feast_serves_it(imported):
    found = [one for one in differences(imported[2], "basket", "online") if one["feature"] == "turnover"]
    assert (60.0, None) in [(one["feast"], one["seeknal"]) for one in found]
    assert {one["why"] for one in found} == {
        "The row is older than the ttl of 2 days, which Feast does not apply online."
    }


def test_a_computed_value_is_explained_by_its_inputs(imported):
    found = {one["why"] for one in differences(imported[2], "basket", "online") if one["feature"] == "share"}
    assert "Feast computes it from another turnover and visits." in found


def test_a_number_that_float64_lacks_is_reported_where_feast_rounds_it(imported):
    found = [one for one in differences(imported[2], "prices", "past") if one["feature"]]
    assert {(one["feature"], one["feast"], one["seeknal"]) for one in found} <= {("visits", 2.0**53, 2**53 + 1)}


def test_what_no_reason_explains_says_so_and_the_command_fails(imported):
    found = [one for one in differences(imported[2], "basket", "past") if one["why"] == "not explained"]
    # The function takes the length of a number's text, and Feast gives it floats where a row of the spine has no number.
    assert {(one["feature"], one["feast"], one["seeknal"]) for one in found} >= {("busy", 3, 1)}
    assert imported[1] == 1


def test_a_failure_of_feast_is_reported_as_such(imported):
    notes = {(one["what"], one["when"]): one["note"] for one in imported[2]["compared"]}
    assert notes["helped", "past"] == "Feast failed: NameError: name 'scaled' is not defined"
    assert notes["prices", "online"] == "Feast does not serve prices: it has online=False."


def test_a_given_spine_and_file_are_used(python, applied, tmp_path):
    moments = pa.array(["2024-05-01", "2024-05-02"]).cast(pa.timestamp("us"))
    pq.write_table(pa.table({"shop_id": [1, 2], "moment": moments, "other": ["x", "y"]}), "spine.parquet")
    rows = {"shop_id": [1, 2], "at": moments, "x": [7.0, 8.0]}
    pq.write_table(pa.table(rows), "gone.parquet")
    options = ["--spine", "spine.parquet", "--date-col", "moment", "--data", "gone=gone.parquet", "--no-online"]
    done = seeknal("import-feast", str(applied), "--python", str(python), "-p", "other", *options, "-f", "json")
    told = json.loads(done.stdout)
    assert "feature view gone" in [one["from"] for one in told["imported"]]
    counts = {
        one["what"]: (one["rows"], one["differ"], one["note"]) for one in told["compared"] if one["when"] == "past"
    }
    assert counts["clicks"] == (2, 0, "")
    assert counts["basket"] == (0, 0, "The spine has no column sku, cart.")
    assert done.returncode == 1
    pq.write_table(pa.table({"moment": pa.array([None], pa.timestamp("us"))}), "spine.parquet")
    missing = seeknal("import-feast", str(applied), "--python", str(python), *options)
    assert "moment of spine.parquet has rows without a time" in missing.stderr
    pq.write_table(pa.table({"shop_id": [1], "moment": moments[:1]}), "spine.parquet")
    again = seeknal("import-feast", str(applied), "--python", str(python), "-p", "other", *options)
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_a_dry_run_stores_nothing(python, applied, home):
    relative = os.path.relpath(python)
    done = seeknal("import-feast", str(applied), "--python", relative, "--dry-run", "-f", "json")
    assert done.returncode == 0
    assert {"from": "feature view sales", "to": "group market/sales"} in json.loads(done.stdout)["would_import"]
    assert not home.exists()


def test_a_repository_that_was_not_applied_is_named(python, tmp_path):
    folder = make_repository(tmp_path / "market")
    done = seeknal("import-feast", str(folder), "--python", str(python))
    assert done.returncode == 1
    assert f"The registry of {folder} is empty. Run feast apply in {folder}." in done.stderr


@pytest.mark.parametrize(("template", "project"), [("local", "drivers"), ("pytorch_nlp", "sentiment")])
def test_the_page_shows_what_an_import_of_a_template_says(python, template, project, tmp_path):
    feast_repository.run(python, tmp_path, "init", "-t", template, project)
    feast_repository.run(python, tmp_path / project / "feature_repo", "apply")
    done = seeknal_process("import-feast", str(tmp_path / project), "--python", str(python), "-f", "json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    page = (ROOT / "docs/how-to/coming-from-feast.md").read_text()
    (shown,) = (part for part in page.split("```") if part.startswith(f"console\n$ seeknal import-feast {project} "))
    for one in told["imported"]:
        assert f"{one['from']} " in shown
    for one in told["not_imported"]:
        assert one["what"].rpartition(" ")[2] in shown
    known = [re.escape(one).replace(r"\.\.\.", ".+") for one in re.findall(r"^\| \*(.+?)\* \|", page, re.MULTILINE)]
    reasons = {one["why"] for one in told["differences"]}
    assert any(why in shown for why in reasons)
    for why in reasons:
        assert any(re.match(pattern, why) for pattern in known), why
    assert not [one["note"] for one in told["compared"] if one["note"]]


def test_types_pass_from_one_python_to_the_other(python, applied, tmp_path):
    shutil.copytree(applied, tmp_path / "market")
    described = Feast(tmp_path / "market", tmp_path, str(python)).describe()
    asked = next(one for one in described.on_demand if one.name == "share")
    assert read_schema(asked.outputs) == {"share": pa.float64(), "busy": pa.int64()}
