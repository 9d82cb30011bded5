"""The export to PyTorch, with PyTorch: `make torch` runs it. The name keeps it out of the other runs, which have no PyTorch."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import baskets
from seeknal import DataError, FeatureLookup, FeatureView, Label, TrainingSet
from seeknal.featurestore.arrays import matrix

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
PAGE = Path(__file__).parents[1] / "docs/how-to/train-with.md"
NUMBERS = [name for name in baskets.FEATURES if name != "area"]


def made(**options: object) -> TrainingSet:
    """Return a training set of the features that are numbers."""
    baskets.view().register()
    lookups = [FeatureLookup("shop/activity"), FeatureLookup("shop/about", features=["size", "income"])]
    label = Label("shop/purchases", within="3d", aggregation="any", name="returns")
    view = FeatureView("numbers", lookups, request={"cart_value": "float64"}, label=label)
    return view.training_set(baskets.spine(), "moment", "may", **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_tensors_have_the_features_of_the_view_in_order_and_the_label(dtype):
    import torch

    train = made(split=baskets.SPLIT)
    x, y = train.to_torch("train", dtype).tensors
    rows = train.part("train", "arrow")
    assert train.features == NUMBERS
    assert (x.dtype, y.dtype) == (getattr(torch, dtype), torch.bool)
    np.testing.assert_array_equal(x.numpy(), matrix(rows.select(NUMBERS), dtype))
    assert y.tolist() == rows["returns"].to_pylist()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_has_each_row_once_with_any_number_of_workers(workers):
    from torch.utils.data import DataLoader

    data = made().to_torch()
    loader = DataLoader(data, batch_size=50, shuffle=True, num_workers=workers)
    carts = [value for x, _ in loader for value in x[:, 0].tolist()]
    assert sorted(carts) == sorted(data.tensors[0][:, 0].tolist())
    assert len(set(carts)) == len(data)


def test_text_is_named():
    saved = baskets.view().training_set(baskets.spine(), "moment", "may")
    with pytest.raises(DataError, match="Column 'area' is string, which is not a number"):
        saved.to_torch()


def test_the_code_of_the_page_runs():
    blocks = re.findall(r"^```(python|py)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    namespace: dict[str, object] = {}
    for _, code in blocks:
        exec(compile(code, str(PAGE), "exec"), namespace)
    assert "torch" in namespace
