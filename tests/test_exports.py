"""Training sets as files, and as what scikit-learn and PyTorch are trained on."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

import baskets
from contract.profiles import PROFILE
from contract.world import rows, written
from seeknal import DataError, DefinitionError, FeatureLookup, HistoricalFeaturesDuckDB, Label, StoreError, TrainingSet
from seeknal.featurestore.arrays import matrix, vector
from seeknal.system.extras import how_to_install

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

NUMBERS = [name for name in baskets.FEATURES if name != "area"]
INTEGERS = {kind: (np.iinfo(str(kind)).min, np.iinfo(str(kind)).max) for kind in (pa.int8(), pa.int64(), pa.uint64())}


def made(**options) -> TrainingSet:
    return baskets.view().training_set(baskets.spine(), "moment", "may", **options)


def unlabelled() -> TrainingSet:
    """Return a training set in which labels are missing: households that buy nothing within a day have no first amount."""
    label = Label("shop/purchases", "amount", within="1d")
    return baskets.view(label=label).training_set(baskets.spine(), "moment", "may", split=baskets.SPLIT)


def test_a_training_set_without_a_split_becomes_one_parquet_file(tmp_path):
    train = made()
    assert train.to_parquet(tmp_path / "may.parquet") == train.rows
    assert pq.read_table(tmp_path / "may.parquet").equals(train.to_dataframe("arrow"))


def test_a_split_training_set_becomes_a_folder_with_a_file_for_each_part(tmp_path):
    train = made(split=baskets.SPLIT)
    assert train.to_parquet(tmp_path / "may") == train.rows
    assert sorted(file.name for file in (tmp_path / "may").iterdir()) == [
        "test.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    for part in ("train", "validation", "test"):
        assert pq.read_table(tmp_path / "may" / f"{part}.parquet").equals(train.part(part, "arrow"))


def test_the_files_of_two_split_training_sets_never_mix(tmp_path):
    train = made(split=baskets.SPLIT)
    train.to_parquet(tmp_path / "may")
    before = (tmp_path / "may" / "train.parquet").read_bytes()
    with pytest.raises(StoreError, match=r"may cannot be written: it exists. Name a new folder"):
        train.to_parquet(tmp_path / "may")
    assert (tmp_path / "may" / "train.parquet").read_bytes() == before


def test_a_folder_for_parts_has_to_be_in_a_folder_that_exists(tmp_path):
    with pytest.raises(StoreError, match=r"cannot be written: there is no folder .*missing"):
        made(split=baskets.SPLIT).to_parquet(tmp_path / "missing" / "may")


def test_a_training_set_of_no_view_becomes_a_file_too(tmp_path):
    features = HistoricalFeaturesDuckDB([FeatureLookup(written(rows(1, 2)))])
    spine = pd.DataFrame({"user_id": [1], "at": [datetime(2030, 1, 1)]})
    saved = features.using_spine(spine, "at").save("may")
    assert saved.to_parquet(tmp_path / "may.parquet") == 1
    with pytest.raises(DefinitionError, match="was made with no feature view"):
        saved.to_sklearn()


@pytest.mark.parametrize("output", ["pandas", "polars", "arrow"])
def test_x_has_exactly_the_features_of_the_view_in_order_and_y_is_the_label(output):
    train = made(split=baskets.SPLIT)
    x, y = train.to_sklearn("validation", output)
    whole = train.part("validation", "arrow")
    names = x.column_names if output == "arrow" else list(x.columns)
    assert names == train.features == baskets.FEATURES
    assert list(y.to_pylist() if output == "arrow" else y) == whole["returns"].to_pylist()
    expected = train.part("validation", output)
    if output == "pandas":
        pd.testing.assert_frame_equal(x, expected[baskets.FEATURES])
    else:
        assert x.equals(expected.select(baskets.FEATURES))


def test_x_is_of_the_kind_of_the_spine_unless_another_is_requested():
    view = baskets.view()
    of_polars = view.training_set(pl.from_arrow(baskets.spine()), "moment", "one")
    assert isinstance(of_polars.to_sklearn()[0], pl.DataFrame)
    assert isinstance(of_polars.to_sklearn(output="pandas")[0], pd.DataFrame)


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_a_pipeline_of_scikit_learn_is_fitted_on_one_part_and_judged_on_another(output):
    train = made(split=baskets.SPLIT)
    encode = make_column_transformer((OrdinalEncoder(), ["area"]), (SimpleImputer(), NUMBERS))
    model = make_pipeline(encode, HistGradientBoostingClassifier(max_iter=20, random_state=0))
    model.fit(*train.to_sklearn("train", output))
    test = train.part("test", "pandas")
    right = model.predict(train.to_sklearn("test", output)[0]) == test["returns"].to_numpy()
    assert model.score(*train.to_sklearn("test", output)) == right.mean()
    np.testing.assert_array_equal(model.feature_names_in_, baskets.FEATURES)


@pytest.mark.parametrize(
    "to", [lambda train: train.to_sklearn("train"), lambda train: train.to_sklearn(output="numpy")]
)
def test_a_label_that_is_null_is_an_error_that_counts_the_rows(to):
    train = unlabelled()
    with pytest.raises(DataError, match=r"The label 'amount' is null in [\d,]+ of [\d,]+ rows.*drop_unlabelled=True"):
        to(train)


def test_rows_without_a_label_are_left_out_on_request():
    train = unlabelled()
    table = train.part("train", "arrow")
    assert 0 < table["amount"].null_count < len(table)
    x, y = train.to_sklearn("train", "arrow", drop_unlabelled=True)
    having = table.filter(table["amount"].is_valid())
    assert x.equals(having.select(baskets.FEATURES))
    assert y.to_pylist() == having["amount"].to_pylist()


def test_a_view_without_a_label_has_nothing_to_fit():
    view = baskets.view()
    plain = type(view)("plain", [FeatureLookup("shop/about")])
    saved = plain.training_set(baskets.spine(), "moment", "plain")
    with pytest.raises(DefinitionError, match="shop/plain has no label"):
        saved.to_sklearn()


def test_what_is_no_output_and_no_part_is_named():
    train = made()
    with pytest.raises(DefinitionError, match="is not split"):
        train.to_sklearn("train")
    with pytest.raises(DefinitionError, match="scikit-learn takes no relations of DuckDB"):
        train.to_sklearn(output="duckdb")
    with pytest.raises(DefinitionError, match="output='torch' is unknown"):
        train.to_sklearn(output="torch")
    with pytest.raises(DefinitionError, match="drop_unlabelled='no' is neither True nor False"):
        train.to_sklearn(drop_unlabelled="no")
    with pytest.raises(DefinitionError, match="dtype='int8' is neither"):
        train.to_torch(dtype="int8")


def test_text_has_no_number_and_is_named():
    with pytest.raises(DataError, match=r"Column 'area' is string, which is not a number. Encode it"):
        made().to_sklearn(output="numpy")


def test_a_matrix_has_nan_for_null_and_the_nearest_float_for_decimals():
    table = made().to_dataframe("arrow").select(NUMBERS)
    found = matrix(table, "float64")
    assert found.shape == (len(table), len(NUMBERS))
    for place, name in enumerate(NUMBERS):
        expected = [float("nan") if one is None else float(one) for one in table[name].to_pylist()]
        np.testing.assert_array_equal(found[:, place], expected)


numbers = {
    pa.bool_(): st.booleans(),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.decimal128(30, 7): st.decimals(-(10**20), 10**20, places=7),
    **{kind: st.integers(*bounds) | st.integers(0, 100) for kind, bounds in INTEGERS.items()},
}


@settings(PROFILE, max_examples=20 * PROFILE.max_examples)
@given(data=st.data(), kind=st.sampled_from(list(numbers)), dtype=st.sampled_from(["float32", "float64"]))
def test_a_number_is_exact_or_rounded_as_a_float_is_or_an_error(data, kind, dtype):
    values = data.draw(st.lists(st.none() | numbers[kind], max_size=5))
    table = pa.table({"x": pa.chunked_array([pa.array(values, kind)])})
    limit = 2 ** (np.finfo(dtype).nmant + 1)
    known = [one for one in values if one is not None]
    with np.errstate(over="ignore"):
        expected = np.array([np.nan if one is None else float(one) for one in values], "float64").astype(dtype)
        is_finite = all(np.isinf(float(one)) or not np.isinf(np.dtype(dtype).type(float(one))) for one in known)
    is_exact = not pa.types.is_integer(kind) or all(abs(one) <= limit for one in known)
    if is_exact and is_finite:
        np.testing.assert_array_equal(matrix(table, dtype)[:, 0], expected)
    else:
        with pytest.raises(DataError, match="Column 'x' has"):
            matrix(table, dtype)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        (pa.array([1, 2], pa.int16()), "int16"),
        (pa.array([True, False]), "bool"),
        (pa.array([1.5, 2.0]), "float32"),
        (pa.array([Decimal("1.5")]), "float32"),
    ],
)
def test_classes_keep_their_type_and_other_labels_are_floats(column, dtype):
    found = vector(pa.table({"y": column}), "float32")
    assert found.dtype == dtype
    assert found.flags.writeable
    assert found.tolist() == [float(one) if dtype == "float32" else one for one in column.to_pylist()]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_classes_with_names_are_for_scikit_learn_only(kind):
    labels = pa.table({"y": pa.chunked_array([pa.array(["a", "b"]).cast(kind)])})
    assert vector(labels, "float64", texts=True).tolist() == ["a", "b"]
    with pytest.raises(DataError, match=r"Column 'y' is .*string, which is not a number"):
        vector(labels, "float32")


def test_without_pytorch_an_error_says_what_to_install(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    made()
    code = "from seeknal import TrainingSet; TrainingSet.load('may').to_torch()"
    path = [str(tmp_path), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"to_torch needs PyTorch. {how_to_install('torch')}" in done.stderr
