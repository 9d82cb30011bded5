"""Training sets in a real MLflow store: a run has its training set, and leads back to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

import mlflow
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.data import get_source

import baskets
import seeknal.mlflow
from contract.world import rows, written
from seeknal import DataError, DefinitionError, FeatureLookup, FeatureView, HistoricalFeaturesDuckDB, TrainingSet
from seeknal.system.extras import how_to_install
from seeknal.values.content_hash import content_hash

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")


@pytest.fixture(scope="module", autouse=True)
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the runs of these tests in a database of their own."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/runs.db")
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture
def train() -> TrainingSet:
    return baskets.view().training_set(baskets.spine(), "moment", "may", split=baskets.SPLIT)


def logged(*made: TrainingSet, contexts: tuple[str, ...] = ("training", "evaluation")) -> mlflow.ActiveRun:
    with mlflow.start_run() as run:
        for one, context in zip(made, contexts, strict=False):
            one.to_mlflow(context)
    return run


def test_a_run_has_the_name_hash_view_split_and_rows_of_its_training_set(train):
    run = logged(train)
    (found,) = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.source_type) == ("shop/may", "seeknal")
    assert len(found.dataset.digest) == 36
    assert train.content_hash.startswith(found.dataset.digest)
    assert {tag.key: tag.value for tag in found.tags} == {
        "mlflow.data.context": "training",
        "seeknal.view": "shop/next_basket@1",
    }
    source = json.loads(found.dataset.source)
    assert source["view"] == "shop/next_basket@1"
    assert source["content_hash"] == train.content_hash
    assert source["split"] == train.split.to_json()
    assert source["snapshots"] == train.snapshots
    profile = json.loads(found.dataset.profile)
    parts = {part: len(train.part(part)) for part in ("train", "validation", "test")}
    assert profile["parts"] == parts
    assert (profile["rows"], profile["unfinished"]) == (train.rows, train.unfinished)
    assert (profile["features"], profile["label"]) == (train.features, "returns")


def test_a_run_has_the_columns_and_their_types(train):
    run = logged(train)
    (found,) = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    columns = json.loads(found.dataset.schema)["mlflow_colspec"]
    types = {column["name"]: column["type"] for column in columns}
    assert list(types) == train.to_dataframe("arrow").column_names
    assert types == {
        "note": "string",
        "household": "long",
        "moment": "datetime",
        "cart_value": "double",
        "spend_7d": "double",
        "trips_7d": "long",
        "area": "string",
        "size": "long",
        "income": "any",
        "returns": "boolean",
    }


def test_no_value_of_a_row_is_sent_to_mlflow(train):
    told = seeknal.mlflow.TrainingSetDataset(train).to_json()
    assert "row 17" in train.to_dataframe()["note"].tolist()
    assert "row 17" not in told
    assert "north" not in told


def test_a_run_leads_back_to_its_training_set_which_reproduces_with_the_same_hash(train):
    run = logged(train)
    for named in (run, run.info.run_id):
        found = seeknal.mlflow.training_set(named)
        assert found.name == "may"
        assert content_hash(found.reproduce("arrow")) == train.content_hash
        assert found.view.version == 1


def test_mlflow_itself_finds_the_training_set_of_an_input(train):
    (found,) = mlflow.get_run(logged(train).info.run_id).inputs.dataset_inputs
    assert get_source(found).load().content_hash == train.content_hash
    assert mlflow.data.dataset_source_registry.resolve_dataset_source(train).load().name == "may"


def test_another_training_set_of_the_same_name_is_never_taken_for_that_of_the_run(train):
    run = logged(train)
    view = train.view
    train.delete()
    with pytest.raises(DefinitionError, match="No training set"):
        seeknal.mlflow.training_set(run)
    view.training_set(baskets.spine().slice(1), "moment", "may")
    with pytest.raises(DataError, match=rf"with the content hash {train.content_hash}. That of the store has"):
        seeknal.mlflow.training_set(run)


def test_a_run_without_a_training_set_is_an_error_that_says_how_to_log_one():
    with mlflow.start_run() as run:
        mlflow.log_param("depth", 3)
    with pytest.raises(DefinitionError, match=r"has no training set. Log one in the run: train.to_mlflow\(\)"):
        seeknal.mlflow.training_set(run)


def test_of_several_training_sets_of_a_run_one_is_named_by_its_context(train):
    other = train.view.training_set(baskets.spine().slice(7), "moment", "june")
    run = logged(train, other)
    assert seeknal.mlflow.training_set(run, "training").name == "may"
    assert seeknal.mlflow.training_set(run, "evaluation").name == "june"
    with pytest.raises(
        DefinitionError, match=r"several training sets: shop/may \(training\), shop/june \(evaluation\)"
    ):
        seeknal.mlflow.training_set(run)
    with pytest.raises(DefinitionError, match="has no training set in the context 'serving'"):
        seeknal.mlflow.training_set(run, "serving")


def test_a_training_set_that_is_logged_twice_is_one(train):
    run = logged(train, train, contexts=("training", "training"))
    assert seeknal.mlflow.training_set(run).name == "may"


def test_a_second_context_is_refused_because_mlflow_would_drop_it(train):
    with pytest.raises(DefinitionError, match="has shop/may in the context 'training', and MLflow keeps one context"):
        logged(train, train)


def test_a_training_set_of_no_view_is_logged_and_found_too():
    features = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1, 2)))])
    spine = pd.DataFrame({"user_id": [1], "at": [datetime(2030, 1, 1)]})
    saved = features.using_spine(spine, "at").save("plain")
    run = logged(saved)
    (found,) = mlflow.get_run(run.info.run_id).inputs.dataset_inputs
    assert {tag.key for tag in found.tags} == {"mlflow.data.context"}
    assert json.loads(found.dataset.profile) == {"rows": 1, "content_hash": saved.content_hash}
    assert seeknal.mlflow.training_set(run).content_hash == saved.content_hash


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pa.array([1], pa.int16()), "integer"),
        (pa.array([1], pa.uint64()), "long"),
        (pa.array([1.0], pa.float32()), "float"),
        (pa.array([b"a"]), "binary"),
        (pa.array([[1.0]]), "array"),
        (pa.array(["a"]).dictionary_encode(), "string"),
        (pa.array([Decimal(1)]), "any"),
        (pa.array([{"a": 1}]), "any"),
    ],
)
def test_every_column_has_a_type_in_mlflow(column, told):
    spine = baskets.spine().slice(0, 1).append_column("extra", pa.chunked_array([column]))
    train = baskets.view().training_set(spine, "moment", "may")
    types = {one["name"]: one["type"] for one in seeknal.mlflow.TrainingSetDataset(train).schema.to_dict()}
    assert types["extra"] == told


def test_the_models_of_a_view_are_those_that_were_registered_with_its_training_sets(train):
    first = train.register_model("forest", "models:/forest/1")
    second = train.register_model("net")
    assert (first.version, first.training_set, first.uri, second.uri) == (1, "may", "models:/forest/1", None)
    assert FeatureView.load("next_basket").models == [first, second]
    assert train.view.retire().models == ("forest", "net")
    with pytest.raises(DefinitionError, match="name of a model is empty"):
        train.register_model(" ")


def test_what_is_no_context_is_refused_before_a_run_starts(train):
    with pytest.raises(DefinitionError, match="context"):
        train.to_mlflow(context=3)
    assert mlflow.active_run() is None


def test_without_mlflow_an_error_says_what_to_install(train, tmp_path):
    (tmp_path / "mlflow.py").write_text("raise ModuleNotFoundError(\"No module named 'mlflow'\", name='mlflow')")
    code = "from seeknal import TrainingSet; TrainingSet.load('may').to_mlflow()"
    path = [str(tmp_path), *sys.path]
    program = f"import sys; sys.path[:] = {path!r}; {code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"MLflow is not installed. {how_to_install('mlflow')}" in done.stderr
