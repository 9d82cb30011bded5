"""Feature views: their versions, what they compute, and what their training sets keep."""

from __future__ import annotations

import json
import math
import multiprocessing
import subprocess
import sys
import textwrap
from datetime import timedelta

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import request_functions as functions
from commands import seeknal
from seeknal import (
    Count,
    DataError,
    DefinitionError,
    Entity,
    EventSource,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    FeatureView,
    HistoricalFeaturesDuckDB,
    Label,
    Materialization,
    SeeknalWarning,
    Sum,
    TrainingSet,
    WindowedGroup,
)
from seeknal.home import session

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

START = pd.Timestamp("2024-03-01", tz="UTC")


def day(number, hours=0):
    return START + timedelta(days=number, hours=hours)


def events():
    rows = [(1, 10, 0, 5.0), (1, 10, 3, 7.5), (1, 11, 40, 2.5), (2, 10, 5, 1.0), (2, 11, 9, 4.0), (1, 10, 60, 1.0)]
    return pd.DataFrame(
        {
            "household_id": [row[0] for row in rows],
            "product_id": [row[1] for row in rows],
            "at": [day(row[2]) for row in rows],
            "amount": [row[3] for row in rows],
            "bought": True,
        }
    )


def spine(**columns):
    given = {
        "household_id": [1, 2, 3, 1, 1],
        "product_id": [10, 11, 10, 11, 10],
        "moment": [day(4), day(10), day(10), day(41), day(58)],
        "cart_value": [12.5, 4.0, 3.0, 2.0, 9.0],
    }
    return pd.DataFrame(given | columns)


def shop():
    purchases = EventSource("purchases", event_time_col="at", project="shop").set_dataframe(events())
    purchases.write()
    activity = WindowedGroup(
        "activity",
        Entity("household", ["household_id"], pii_keys=["household_id"]),
        purchases,
        {"spend": Sum("amount", over=["30d"]), "trips": Count(over=["30d"])},
    )
    products = FeatureGroupDuckDB(
        "products", Entity("product", ["product_id"]), Materialization(event_time_col="at"), project="shop"
    )
    products.set_dataframe(prices(1.0, 20.0)).write()
    return purchases, activity, products


def prices(*values, at=0):
    return pd.DataFrame({"product_id": [10, 11][: len(values)], "at": day(at), "price": values})


def view_of(purchases, activity, products, **changed):
    given = {
        "request": {"cart_value": "float64"},
        "functions": [functions.both, functions.basket_vs_usual, functions.large],
        "label": Label(purchases, feature="bought", within="7d"),
        "project": "shop",
    } | changed
    return FeatureView("next_basket", [FeatureLookup(activity), FeatureLookup(products, features=["price"])], **given)


def test_a_view_computes_what_its_functions_say_of_what_the_join_finds():
    parts = shop()
    found = view_of(*parts).to_dataframe(spine(), "moment", label=False, output="arrow").to_pylist()
    joined = HistoricalFeaturesDuckDB([FeatureLookup(parts[1]), FeatureLookup(parts[2], features=["price"])])
    plain = joined.using_spine(spine(), "moment").to_dataframe(output="arrow").to_pylist()
    assert len(found) == len(plain) == 5
    for row, looked_up in zip(found, plain, strict=True):
        cart, spend, trips, price = (looked_up[name] for name in ("cart_value", "spend_30d", "trips_30d", "price"))
        usual = spend / trips if trips else None
        ratio = cart / usual if usual and cart is not None else None
        log = None if cart is None else math.log1p(cart)
        expected = looked_up | {
            "both": None if ratio is None or log is None else ratio + log,
            "basket_vs_usual": ratio,
            "is_large": None if price is None else bool(cart is not None and cart > 0.5 * price),
            "log_cart": log,
        }
        del row["moment"], expected["moment"]
        assert row == pytest.approx(expected)


def test_functions_that_fail_on_a_row_name_it_without_the_values_of_personal_keys():
    parts = shop()
    view = view_of(*parts)
    view.register()
    with pytest.raises(DataError) as error:
        view.to_dataframe(spine(cart_value=["x"] * 5), "moment")
    assert "cart_value is string" in str(error.value) or "cart_value" in str(error.value)
    with pytest.raises(
        DataError,
        match=r"basket_vs_usual failed for household_id=\*\*\*, product_id=10: TypeError.*cart_value is null",
    ):
        view.to_dataframe(spine(cart_value=[1.0, 1.0, 1.0, 1.0, None]), "moment", label=False)


def test_a_label_is_the_first_event_after_the_moment_and_rows_are_left_out_until_its_window_is_over():
    view = view_of(*shop(), functions=[functions.large])
    with pytest.warns(SeeknalWarning, match="1 row was left out: the window of 'bought' ends after 2024-04-30"):
        found = view.to_dataframe(spine(), "moment")
    # Household 1 buys product 10 on day 60, and no window of the others has a purchase of the same product.
    assert found["moment"].tolist() == [day(4), day(10), day(10), day(41)]
    assert found["bought"].isna().all()
    until = view.to_dataframe(spine(), "moment", label_until=day(70))
    assert until["bought"].isna().tolist() == [True, True, True, True, False]


def test_the_index_and_types_of_a_pandas_spine_stay_when_rows_are_left_out():
    view = view_of(*shop(), functions=[])
    frame = spine().set_index(pd.Index(list("abcde")))
    frame["household_id"] = frame["household_id"].astype("Int16")
    found = view.to_dataframe(frame, "moment")
    assert list(found.index) == list("abcd")
    assert found["household_id"].dtype == "Int16"


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow", "duckdb"])
def test_all_kinds_of_spines_get_the_same_rows(kind):
    import duckdb

    view = view_of(*shop(), functions=[functions.large])
    frame = spine()
    table = pa.Table.from_pandas(frame, preserve_index=False)
    given = {"pandas": frame, "polars": pl.from_pandas(frame), "arrow": table, "duckdb": duckdb.from_arrow(table)}[kind]
    expected = view.to_dataframe(frame, "moment", output="arrow")
    assert view.to_dataframe(given, "moment", output="arrow").to_pylist() == expected.to_pylist()
    saved = view.training_set(given, "moment", name=f"from-{kind}", split=(day(5), day(30)))
    assert type(saved.train).__module__.partition(".")[0].strip("_") in {"pandas", "polars", "pyarrow", "duckdb"}
    assert len(saved.part("train", "arrow")) == 1
    assert len(saved.part("validation", "arrow")) == 2
    assert len(saved.part("test", "arrow")) == 1


def test_the_same_definition_registers_nothing_and_another_one_is_the_next_version():
    parts = shop()
    assert view_of(*parts).version == 1
    assert view_of(*parts).version == 1
    with pytest.warns(SeeknalWarning, match="shop/next_basket is now at version 2: request value hour added"):
        assert view_of(*parts, request={"cart_value": "float64", "hour": "int64"}).version == 2
    with pytest.warns(SeeknalWarning, match="version 3: .*default of price added"):
        assert view_of(*parts, defaults={"price": 0.0}).version == 3
    assert view_of(*parts).version == 1  # an earlier definition is the earlier version
    assert FeatureView.load("next_basket").version == 3
    assert FeatureView.load("shop/next_basket@2").version == 2
    assert FeatureView.load("next_basket", version=1).version == 1
    with pytest.raises(DefinitionError, match=r"has no version 4. There are: 1, 2, 3"):
        FeatureView.load("next_basket@4")
    with pytest.raises(DefinitionError, match="names no version"):
        FeatureView.load("next_basket@x")
    assert FeatureView.load("next_basket@3").difference(1) == ["default of price added (0.0)"]


def test_a_windowed_definition_that_changes_makes_a_version_and_another_column_of_a_group_does_not():
    purchases, activity, products = shop()
    assert view_of(purchases, activity, products).version == 1
    products.set_dataframe(prices(3.0, 4.0, at=1).assign(other="x")).write()
    assert view_of(purchases, activity, products).version == 1
    found = view_of(purchases, activity, products).to_dataframe(spine(), "moment", label=False)
    assert found["price"].tolist() == [3.0, 4.0, 3.0, 4.0, 3.0]  # it follows the group
    other = WindowedGroup(
        "activity", activity.entity, purchases, {**activity.features, "spend": Sum("amount", over=["30d", "7d"])}
    )
    assert view_of(purchases, other, products).version == 2
    old = FeatureView.load("next_basket@1").to_dataframe(spine(), "moment", label=False)
    assert "spend_7d" not in old


def test_a_version_stays_with_the_types_that_it_was_registered_with():
    stock = FeatureGroupDuckDB("stock", Entity("product", ["product_id"]), Materialization(event_time_col="at"))
    stock.set_dataframe(pd.DataFrame({"product_id": [10], "at": day(0), "left": [5]}).astype({"left": "int32"})).write()
    view = FeatureView("stocked", [FeatureLookup(stock)])
    assert view.to_dataframe(spine(), "moment", output="arrow")["left"].type == pa.int32()
    stock.set_dataframe(pd.DataFrame({"product_id": [10], "at": day(1), "left": [6]})).write()
    again = FeatureView.load("stocked").to_dataframe(spine(), "moment", output="arrow")
    assert again["left"].to_pylist() == [5, None, 5, None, 5]
    assert FeatureView("stocked", [FeatureLookup(stock)]).version == 2
    both = [
        FeatureView.load(f"stocked@{n}").to_dataframe(spine(), "moment", output="arrow")["left"][0].as_py()
        for n in (1, 2)
    ]
    assert both == [5, 6]


def test_a_default_takes_the_place_of_null_before_the_functions_run():
    parts = shop()
    view = view_of(*parts, functions=[functions.large], defaults={"price": 1000.0, "cart_value": 0.0})
    unknown = spine(product_id=[99] * 5)
    found = view.to_dataframe(unknown, "moment", label=False)
    assert found["price"].tolist() == [1000.0] * 5
    assert found["is_large"].tolist() == [False] * 5
    with pytest.raises(DefinitionError, match=r"default of 'price' does not fit its type double"):
        view_of(*parts, defaults={"price": "x"}).register()
    with pytest.raises(DefinitionError, match=r"names 'prize', which it does not have\. Did you mean 'price'"):
        view_of(*parts, defaults={"prize": 1.0}).register()


def test_features_names_what_the_model_reads_and_its_order():
    view = view_of(*shop(), features=["both", "price", "cart_value"])
    found = view.to_dataframe(spine(), "moment", label=False)
    assert view.features == ["both", "price", "cart_value"]
    assert list(found.columns) == ["household_id", "product_id", "moment", "cart_value", "both", "price"]


def test_names_that_clash_are_refused_with_both_owners():
    parts = shop()
    with pytest.raises(DefinitionError, match="'price' is a request value and a looked-up feature"):
        view_of(*parts, request={"price": "float64", "cart_value": "float64"}).register()
    with pytest.raises(DefinitionError, match="'household_id', which is a join key"):
        view_of(*parts, request={"household_id": "int64", "cart_value": "float64"}).register()
    with pytest.raises(DefinitionError, match="needs 'cart_value'"):
        view_of(*parts, request={}).register()
    with pytest.raises(DefinitionError, match="label of view 'next_basket' has the name of a feature or key, 'price'"):
        view_of(*parts, label=Label(parts[0], feature="bought", within="7d", name="price")).register()
    view = view_of(*parts)
    with pytest.raises(DefinitionError, match="Two columns would be named 'both'"):
        view.to_dataframe(spine(both=1), "moment")
    with pytest.raises(DefinitionError, match="Two columns would be named 'bought'"):
        view.to_dataframe(spine(bought=1), "moment")


def test_a_saved_training_set_comes_back_to_the_byte_whatever_comes_later():
    purchases, activity, products = shop()
    view = view_of(purchases, activity, products)
    saved = view.training_set(spine(), "moment", name="may", split=(day(5), day(30)))
    rows = saved.to_dataframe("arrow")
    purchases.set_dataframe(events().assign(amount=100.0)).write()
    products.set_dataframe(prices(9.0, 9.0, at=1)).write()
    view_of(purchases, activity, products, label=None)
    session.close()
    again = TrainingSet.load("may")
    assert again.reproduce("arrow").equals(rows)
    assert (again.view.version, again.label, again.unfinished) == (1, "bought", 1)
    assert again.features == view.features
    assert [one.name for one in view.training_sets] == ["may"]
    assert again.train.equals(saved.train)


def test_a_training_set_without_a_view_says_how_to_get_one():
    parts = shop()
    saved = HistoricalFeaturesDuckDB([FeatureLookup(parts[1])]).using_spine(spine(), "moment").save("plain")
    for use in (lambda: saved.view, lambda: saved.train, lambda: saved.label):
        with pytest.raises(DefinitionError, match="made with no feature view"):
            use()
    unsplit = view_of(*parts).training_set(spine(), "moment", name="unsplit")
    with pytest.raises(DefinitionError, match=r"is not split\. Pass split="):
        _ = unsplit.train


def test_an_erased_entity_leaves_the_training_sets_of_a_view_or_stops_the_erasure():
    parts = shop()
    saved = view_of(*parts).training_set(spine(), "moment", name="may", rows=True)
    held = FeatureStore().core.training_sets.holding(
        FeatureStore().groups.get("next_basket_label"), pa.table({"household_id": [2], "product_id": [11]})
    )
    assert [one.name for one in held] == [saved.name]


def test_retiring_a_version_names_what_knows_it_and_a_plain_name_then_means_another():
    parts = shop()
    first, second = view_of(*parts).register(), view_of(*parts, label=None).register()
    saved = second.training_set(spine(), "moment", name="may")
    assert (first.version, second.version, FeatureView.load("next_basket").version) == (1, 2, 2)
    retired = second.retire()
    assert retired.training_sets == ("shop/may",)
    assert FeatureView.load("next_basket").version == 1
    assert FeatureView.load("next_basket@2").version == 2
    assert saved.reproduce("arrow").num_rows == 5
    with pytest.warns(SeeknalWarning, match="was retired, and is in use again"):
        assert view_of(*parts, label=None).version == 2
    assert FeatureView.load("next_basket").version == 2


def _register(number):
    purchases, activity, products = EventSource("purchases", event_time_col="at", project="shop"), None, None
    del purchases, activity, products
    lookup = FeatureLookup("shop/products", features=["price"], prefix=f"p{number}_")
    return FeatureView("raced", [lookup]).version


def test_versions_registered_by_several_processes_at_once_get_a_number_each(home):
    shop()
    session.close()
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        numbers = pool.map(_register, range(8), chunksize=1)
    assert sorted(numbers) == list(range(1, 9))
    assert [one.number for one in FeatureStore().views.versions("raced")] == list(range(1, 9))


def test_a_view_whose_code_has_changed_is_refused_by_name(tmp_path):
    shop()
    module = tmp_path / "code" / "churn.py"
    module.parent.mkdir()
    text = textwrap.dedent(
        """
        from seeknal import FeatureLookup, FeatureView, request_feature

        FACTOR = 2

        @request_feature({"double_price": "float64"})
        def double_price(price):
            return None if price is None else FACTOR * price

        def view():
            return FeatureView("doubled", [FeatureLookup("shop/products")], functions=[double_price])
        """
    )
    module.write_text(text)

    def run(code):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=module.parent, capture_output=True, text=True, check=False, timeout=120
        )
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    session.close()
    assert run("import churn; print(churn.view().version)") == "1"
    load = "from seeknal import FeatureView; print(FeatureView.load('doubled').version)"
    assert run(load) == "1"
    module.write_text(text.replace('"float64"})', '"float64"})  # a comment'))
    assert run(load) == "1"
    module.write_text(text.replace("FACTOR = 2", "FACTOR = 3"))
    assert "churn:double_price is not what was registered: its code changed." in run(load)
    assert run("import churn; print(churn.view().version)") == "2"
    module.unlink()
    assert "churn:double_price cannot be imported" in run(load)


def test_the_command_line_lists_shows_compares_and_retires_views():
    parts = shop()
    view_of(*parts).training_set(spine(), "moment", name="may")
    view_of(*parts, defaults={"price": 0.0}, owner="growth").register()
    listed = json.loads(seeknal("view", "list", "--format", "json").stdout)
    assert [(one["view"], one["version"], one["label"]) for one in listed] == [
        ("next_basket", 1, "bought"),
        ("next_basket", 2, "bought"),
    ]
    shown = json.loads(seeknal("view", "show", "next_basket@1", "--format", "json").stdout)
    assert shown["training_sets"] == ["shop/may"]
    assert shown["owner"] == "growth"
    assert [one["feature"] for one in shown["reads"]][:2] == ["cart_value", "spend_30d"]
    changes = json.loads(seeknal("view", "diff", "next_basket", "--format", "json").stdout)["changes"]
    assert changes == ["default of price added (0.0)"]
    done = json.loads(seeknal("view", "retire", "next_basket@1", "-y", "--format", "json").stdout)
    assert done["training_sets"] == ["shop/may"]
    assert json.loads(seeknal("view", "list", "--format", "json").stdout)[0]["retired"] is not None


def test_a_split_with_a_gap_and_the_check_of_a_view_name_what_they_found():
    parts = shop()
    view = view_of(*parts, functions=[functions.large])
    report = view.check(spine(), "moment").report
    assert "its windows end at the moment, where the window of bought begins" in report
    created = FeatureGroupDuckDB(
        "late",
        Entity("product", ["product_id"]),
        Materialization(event_time_col="at", created_time_col="made"),
        project="shop",
    )
    created.set_dataframe(prices(1.0, 2.0).assign(made=day(3))).write()
    late = FeatureView(
        "late_view",
        [FeatureLookup(created)],
        label=Label(parts[0], feature="bought", within="7d", entity=Entity("product", ["product_id"])),
    )
    found = late.check(spine(), "moment")
    assert any("recorded up to 3 days, 0:00:00 after their event time, inside the 7 days" in one for one in found)


def test_deleting_a_group_names_the_views_that_read_it_and_a_project_takes_its_views_along():
    parts = shop()
    view_of(*parts, label=None).register()
    with pytest.warns(SeeknalWarning, match="Feature view shop/next_basket@1 reads what is deleted"):
        parts[2].delete()
    with pytest.raises(DefinitionError, match="No feature group named 'products'"):
        FeatureView.load("next_basket")
    deletion = FeatureStore().projects.deletion("shop")
    assert deletion.labels()["feature_views"] == ["shop/next_basket"]
    deletion.run()
    assert FeatureStore().views.all() == []


def plain_view(**changed):
    group = FeatureGroupDuckDB("plain", Entity("product", ["product_id"]), Materialization(event_time_col="at"))
    rows = pa.table(
        {"product_id": [10], "at": [day(0).to_pydatetime()], "n": [4], "sizes": [[1, 2]], "box": [{"a": 1}]}
    )
    group.set_dataframe(rows).write()
    return FeatureView("plain", [FeatureLookup(group)], **changed)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("n", np.int64(7), 7),
        ("n", np.float32(7), 7),
        ("sizes", (1,), [1]),
        ("sizes", [], []),
        ("box", {"a": 5}, {"a": 5}),
    ],
)
def test_a_default_of_any_type_is_the_same_after_the_view_is_loaded(name, given, expected):
    for view in (plain_view(defaults={name: given}).register(), FeatureView.load("plain")):
        found = view.to_dataframe(spine(), "moment", output="arrow")[name].to_pylist()
        assert found[1] == found[3] == expected
        assert found[0] != expected


def test_a_stream_with_an_empty_batch_is_a_spine_like_any_other():
    table = pa.Table.from_pandas(spine(), preserve_index=False)
    batches = [table.slice(start, count).to_batches()[0] for start, count in ((0, 1), (1, 2), (3, 2))]
    stream = pa.RecordBatchReader.from_batches(table.schema, [batches[0], batches[1].slice(0, 0), *batches[1:]])
    saved = plain_view().training_set(stream, "moment", name="streamed")
    assert saved.reproduce("arrow")["cart_value"].to_pylist() == spine()["cart_value"].tolist()


def test_an_event_that_was_corrected_to_an_earlier_time_ends_no_window_of_a_label():
    source = EventSource("orders", event_time_col="at", event_id=["id"])
    first = pd.DataFrame({"id": [1, 2], "product_id": 10, "at": [day(0), day(200)]})
    source.set_dataframe(first).write()
    source.set_dataframe(first.iloc[[1]].assign(at=day(2))).write()
    label = Label(source, within="7d", aggregation="count", entity=Entity("product", ["product_id"]))
    found = plain_view(label=label).to_dataframe(spine(moment=[day(-6), day(1), day(1), day(1), day(-9)]), "moment")
    assert found["label"].tolist() == [1, 0]
    assert found["moment"].tolist() == [day(-6), day(-9)]


def test_a_view_whose_versions_are_all_retired_is_only_found_by_version():
    view = plain_view().register()
    view.retire()
    with pytest.raises(
        DefinitionError, match=r"All versions of feature view 'plain' are retired\. Name one, such as plain@1"
    ):
        FeatureView.load("plain")
    assert FeatureView.load("plain@1").version == 1


def test_a_version_is_never_computed_with_other_types_than_it_was_registered_with():
    purchases, activity, products = shop()
    view_of(purchases, activity, products, functions=[]).register()
    FeatureView("prices", [FeatureLookup(products)]).register()
    purchases.set_dataframe(events().drop(columns="amount")).write(mode="overwrite")
    purchases.set_dataframe(events().assign(amount=7)).write(mode="overwrite")
    with pytest.raises(
        DefinitionError, match=r"spend_30d of shop/next_basket@1 was registered as double, and .* has it as int64"
    ):
        FeatureView.load("next_basket@1")
    products.delete()
    products.set_dataframe(prices("a", "b")).write()
    with pytest.raises(
        DefinitionError, match=r"price of shop/prices@1 was registered as double, and .* has it as string"
    ):
        FeatureView.load("prices@1")


def test_arguments_of_the_wrong_form_are_refused_by_name():
    from seeknal import ColumnSplit

    with pytest.raises(DefinitionError, match=r"parts=\['train'\] of a split is not a mapping"):
        ColumnSplit("fold", ["train"])
    for source in (None, 5, spine()):
        with pytest.raises(DefinitionError, match="of a label is neither an event source nor a feature group"):
            Label(source, within="7d", aggregation="any")
    with pytest.raises(DefinitionError, match="names 'n' twice"):
        plain_view(features=["n", "n"])
    purchases = shop()[0]
    view = plain_view(label=Label(purchases, aggregation="any", within="7d", entity=Entity("product", ["product_id"])))
    with pytest.raises(DefinitionError, match="one of the spine and the label"):
        view.to_dataframe(spine(label=1), "moment")
    FeatureStore().groups.delete("default/plain_label")
    with pytest.raises(DefinitionError, match=r"'plain_label', was deleted\. Register the definition"):
        FeatureView.load("plain").to_dataframe(spine(), "moment")
