"""What a feature view answers online equals what it computes offline, whatever it is made of."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import view_functions
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
    FillNull,
    HistoricalFeaturesDuckDB,
    Materialization,
    OnlineFeaturesDuckDB,
    Sum,
    WindowedGroup,
)
from seeknal.errors import NotOnlineError, SeeknalWarning
from seeknal.values.times import instant, now
from view_functions import basket_vs_usual, calls, costs, counted, label, log_price

from .profiles import PROFILE

NOW = datetime.now(UTC)
_names = count(1)
UTC_US = pa.timestamp("us", "UTC")


def day(days: float) -> datetime:
    """Return the moment some days ago."""
    return NOW - timedelta(days=days)


@pytest.fixture
def shop() -> dict[str, FeatureLookup]:
    """Three groups, with nulls, an expired row and unknown entities, as lookups."""
    events = EventSource("purchases", event_time_col="at", project="shop")
    rows = [(1, 3, 10.0), (1, 20, 5.5), (1, 40, 100.0), (2, 10, None), (3, 90, 7.0)]
    events.set_dataframe(
        pa.table(
            {
                "household_id": pa.array([one[0] for one in rows], pa.int64()),
                "at": pa.array([day(one[1]) for one in rows], UTC_US),
                "amount": pa.array([one[2] for one in rows], pa.float64()),
            }
        )
    ).write()
    activity = WindowedGroup(
        "activity",
        Entity("household", ["household_id"]),
        events,
        {"spend": Sum("amount", over=["30d"]), "trips": Count(over=["30d"])},
    )
    products = group("products", "product", "product_id", ttl=timedelta(days=30))
    products.set_dataframe(
        pa.table(
            {
                "product_id": pa.array([1, 2, 3], pa.int64()),
                "at": pa.array([day(1), day(2), day(60)], UTC_US),
                "price": pa.array([2.5, None, 9.0], pa.float64()),
                "name": pa.array(["milk", "bread", "wine"]),
            }
        )
    ).write()
    people = group("people", "household", "household_id")
    people.set_dataframe(
        pa.table(
            {
                "household_id": pa.array([1, 2], pa.int64()),
                "at": pa.array([day(1), day(200)], UTC_US),
                "size": pa.array([4, None], pa.int8()),
                "since": pa.array([day(900), day(800)], pa.timestamp("ms", "UTC")),
            }
        )
    ).write()
    return {
        "activity": FeatureLookup(activity),
        "products": FeatureLookup(products),
        "people": FeatureLookup(people),
    }


def group(name: str, entity: str, key: str, ttl: timedelta | None = None) -> FeatureGroupDuckDB:
    """Return a feature group of the shop."""
    return FeatureGroupDuckDB(
        name, Entity(entity, [key]), Materialization(event_time_col="at", ttl=ttl), project="shop"
    )


def basket(shop: dict[str, FeatureLookup], **options: Any) -> FeatureView:
    """Return a view of activity and products with a function."""
    return FeatureView(
        "next_basket",
        [shop["activity"], shop["products"]],
        request={"cart_value": "float64"},
        functions=[basket_vs_usual],
        **options,
    )


BASKET = {"household_id": 1, "product_id": 1, "cart_value": 31.0}
REQUEST = {"cart_value": "float64", "channel": "string", "quantity": "int16", "day": "date32"}
DEFAULTS = {"price": 1.25, "cart_value": 9.5, "spend_30d": 0.5, "gap": -1.0, "basket_vs_usual": 0.0, "channel": "none"}
request_values = st.fixed_dictionaries(
    {
        "household_id": st.sampled_from([1, 2, 3, 77]),
        "product_id": st.sampled_from([1, 2, 3, 77]),
        "cart_value": st.none() | st.integers(-5, 5) | st.floats(),
        "channel": st.none() | st.text(max_size=3),
        "quantity": st.none() | st.integers(-(2**15), 2**15 - 1),
        "day": st.none() | st.dates(),
    }
)


@st.composite
def views(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the arguments of a view that fit together."""
    of = draw(st.lists(st.sampled_from(["activity", "products", "people"]), min_size=1, unique=True))
    request = draw(st.lists(st.sampled_from(list(REQUEST)), unique=True))
    known = [*request]
    known += ["spend_30d", "trips_30d"] if "activity" in of else []
    known += ["price", "name"] if "products" in of else []
    known += ["size", "since"] if "people" in of else []
    fit = [one for one in (basket_vs_usual, costs, log_price, label) if set(one.inputs) <= set(known)]
    functions = draw(st.lists(st.sampled_from(fit), unique=True)) if fit else []
    known += [name for one in functions for name in one.outputs]
    features = draw(st.none() | st.lists(st.sampled_from(known), min_size=1, unique=True))
    able = [name for name in DEFAULTS if name in known]
    defaults = draw(st.lists(st.sampled_from(able), unique=True)) if able else []
    return {
        "of": of,
        "request": {name: REQUEST[name] for name in request},
        "functions": functions,
        "features": features,
        "defaults": {name: DEFAULTS[name] for name in defaults},
    }


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in which equal values compare equal, NaN included."""
    return [
        {name: "NaN" if isinstance(one, float) and math.isnan(one) else one for name, one in row.items()}
        for row in rows
    ]


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_a_served_view_answers_what_it_computes_offline(shop):
    @PROFILE
    @given(views(), st.lists(request_values, min_size=1, max_size=20))
    def check(arguments: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        lookups = [shop[name] for name in arguments.pop("of")]
        view = FeatureView(f"view{next(_names)}", lookups, **arguments).serve()
        keys, asked = view.served.keys, [*arguments["request"]]
        rows = [{name: row[name] for name in (*keys, *asked)} for row in rows]
        at = now()
        answers = view.served.get_features(rows, "dicts", at=at)
        kinds = {name: pa.int64() for name in keys} | {one.name: one.type for one in view.served.request_fields}
        spine = pa.table({name: pa.array([row[name] for row in rows], kinds[name]) for name in (*keys, *asked)})
        spine = spine.append_column("moment", pa.array([at] * len(rows), pa.int64()).cast(UTC_US))
        offline = view.to_dataframe(spine, "moment", label=False)
        own = [*keys, *view.features]
        assert plain(answers) == plain(offline.select(own).to_pylist())
        # One row alone takes another path, and each kind of frame another one still.
        alone = [view.served.get_features([row], "dicts", at=at)[0] for row in rows]
        assert plain(alone) == plain(answers)
        table = view.served.get_features(spine, "arrow", at=at)
        assert plain(table.to_pylist()) == plain(offline.select(own).cast(table.schema).to_pylist())
        assert view.served.get_features(spine, "polars", at=at).equals(pl.from_arrow(table))
        frame = view.served.get_features(pl.from_arrow(spine), "pandas", at=at)
        pd.testing.assert_frame_equal(frame, view.served.get_features(rows, "pandas", at=at))
        statuses = view.served.get_features(rows, "dicts", with_status=True, at=at)
        assert plain([{name: row[name] for name in own} for row in statuses]) == plain(answers)
        for row, status in zip(rows, statuses, strict=True):
            for name in status.get("defaulted", []):
                assert status[name] == arguments["defaults"][name]
            missing = {name for name in arguments["defaults"] if name in asked and name in own and row[name] is None}
            assert missing <= set(status.get("defaulted", missing))

    check()


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_history_proves_every_logged_answer(shop):
    @PROFILE
    @given(views(), st.lists(request_values, min_size=1, max_size=4), st.data())
    def check(arguments: dict[str, Any], rows: list[dict[str, Any]], data: st.DataObject) -> None:
        lookups = [shop[name] for name in arguments.pop("of")]
        view = FeatureView(f"logged{next(_names)}", lookups, **arguments).serve(log=1)
        rows = [{name: row[name] for name in (*view.served.keys, *arguments["request"])} for row in rows]
        some = data.draw(st.lists(st.sampled_from(view.features), min_size=1, unique=True))
        for output in ("dicts", "arrow"):
            for features in (None, some):
                view.get_features(rows, output, features)
                view.get_features(rows[:1], output, features)
        verified = view.verify(log=True)
        assert verified.equal, verified
        assert verified.entities == 4 * (len(rows) + 1)
        assert (
            verified.values > 0
            or set(view.features) <= set(arguments["request"])
            or set(some) <= {*arguments["request"]}
        )

    check()


def test_a_request_value_that_one_of_several_rows_lacks_is_an_error_and_no_null(shop):
    view = basket(shop).serve()
    with pytest.raises(DataError, match="lack 'cart_value'"):
        view.get_features([BASKET, {"household_id": 1, "product_id": 1}], "dicts")


def test_two_versions_of_a_view_are_served_side_by_side_until_one_is_retired(shop):
    first = basket(shop).serve()
    with pytest.warns(SeeknalWarning, match="version 2"):
        second = basket(shop, defaults={"price": 0.0}).serve()
    unknown = [BASKET | {"product_id": 77}]
    assert first.get_features(unknown, "dicts")[0]["price"] is None
    assert second.get_features(unknown, "dicts")[0]["price"] == 0.0
    assert OnlineFeaturesDuckDB("next_basket").get_features(unknown, "dicts")[0]["price"] == 0.0
    assert OnlineFeaturesDuckDB("shop/next_basket@1").get_features(unknown, "dicts")[0]["price"] is None
    assert second.retire().was_served
    assert not second.retire().was_served
    assert OnlineFeaturesDuckDB("next_basket").get_features(unknown, "dicts")[0]["price"] is None
    with pytest.raises(NotOnlineError, match="next_basket@2"):
        second.get_features(unknown)
    with pytest.raises(DefinitionError, match="not served"):
        FeatureView.load("next_basket@2").get_features(unknown)
    with pytest.raises(DefinitionError, match="retired"):
        FeatureView.load("next_basket@2").serve()


def test_a_view_that_is_served_again_keeps_its_name_and_version(shop):
    view = basket(shop).serve()
    with pytest.warns(SeeknalWarning, match="was replaced"):
        again = view.serve(ttl=timedelta(hours=1)).served.record
    assert (again.name, again.view, again.ttl) == ("next_basket@1", 1, 3_600_000_000)
    # The price is a day old, so that ttl has passed; windows have none.
    assert view.get_features([BASKET], "dicts")[0]["price"] is None
    assert view.get_features([BASKET], "dicts")[0]["trips_30d"] == 2


def test_the_guides_serve_registers_a_view_and_keeps_the_name_of_its_table(shop):
    table = HistoricalFeaturesDuckDB([shop["products"]]).serve("offers")
    assert table.name == "offers"
    view = FeatureView.load("offers")
    assert (view.version, view.features) == (1, ["price", "name"])
    keys = [{"product_id": 1}]
    assert view.get_features(keys, "dicts") == table.get_features(keys, "dicts")
    assert OnlineFeaturesDuckDB("offers@1").name == "offers"
    assert view.retire().was_served
    with pytest.raises(DefinitionError, match="No online table"):
        OnlineFeaturesDuckDB("offers")


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_the_nulls_that_are_filled_for_training_are_filled_where_the_features_are_served(shop):
    fills = [FillNull("0.5", "double"), FillNull("?", "string", ["name"])]
    lookups = [shop["products"], shop["activity"]]
    asked = HistoricalFeaturesDuckDB(lookups, fills)
    table = asked.serve("offers", ttl=None)
    keys = pa.table({"product_id": [1, 2, 3, 77], "household_id": [1, 2, 3, 77]})
    spine = keys.append_column("at", pa.array([datetime.now(UTC)] * 4, UTC_US))
    trained = asked.using_spine(spine, "at").to_dataframe(output="arrow").drop_columns(["at"])
    assert trained.column("price").to_pylist() == [2.5, 0.5, 0.5, 0.5]  # given, null, expired and unknown
    assert table.get_features(keys, "arrow").equals(
        trained.select([*keys.column_names, "price", "name", "spend_30d", "trips_30d"])
    )
    assert table.get_features(keys.to_pylist(), "dicts") == trained.to_pylist()
    statuses = table.get_features(keys.slice(2), "dicts", with_status=True)
    assert [(one["products_status"], one["defaulted"][:2]) for one in statuses] == [
        ("expired", ["price", "name"]),
        ("not_found", ["price", "name"]),
    ]
    assert table.verify().equal
    assert FeatureView.load("offers").get_features(keys, "arrow").equals(table.get_features(keys, "arrow"))
    assert table.verify().values > FeatureStore().tables.verify("offers").values  # which knows of no defaults


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_serving_again_with_other_fills_or_none_replaces_them(shop):
    asked = [{"product_id": 77}]

    def price(*fills):
        served = HistoricalFeaturesDuckDB([shop["products"]], list(fills)).serve()
        return [one.get_features(asked, "dicts")[0]["price"] for one in (served, OnlineFeaturesDuckDB("products"))]

    half, one = FillNull("0.5", "double"), FillNull("1", "double")
    assert [price(half), price(), price(one), price(half)] == [[0.5] * 2, [None] * 2, [1.0] * 2, [0.5] * 2]
    assert [view.number for view in FeatureView.load("products").versions] == [1, 2, 3]
    assert [(table.name, table.view) for table in FeatureStore().tables.all()] == [("products", 1)]


def test_a_name_without_version_means_the_newest_served_version_of_table_and_view(shop):
    HistoricalFeaturesDuckDB([shop["products"]]).serve("offers")
    with pytest.warns(SeeknalWarning, match="version 2"):
        FeatureView("offers", [shop["products"]], defaults={"price": 0.0}).serve()
    assert OnlineFeaturesDuckDB("offers").name == "offers@2"
    table = OnlineFeaturesDuckDB("offers@1")
    table.delete()  # its own table, not that of the newest version
    assert OnlineFeaturesDuckDB("offers").name == "offers@2"
    HistoricalFeaturesDuckDB([FeatureLookup(shop["products"].source, features=["name"])]).serve("offers")
    with pytest.warns(SeeknalWarning, match="version 4"):
        FeatureView("offers", [shop["people"]]).register()  # without serving it
    assert OnlineFeaturesDuckDB("offers").get_features([{"product_id": 1}], "dicts") == [
        {"product_id": 1, "name": "milk"}
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"household_id": 1, "product_id": 1}, "lack 'cart_value'.*cart_value: double"),
        (
            BASKET | {"cart_vaule": 1},
            "'cart_vaule' is neither a join key nor a request value. Did you mean 'cart_value'",
        ),
        (BASKET | {"cart_value": "much"}, "cart_value is double, and 'much' in row 0 does not fit"),
        (BASKET | {"household_id": "x"}, "household_id is int64"),
        ({"household_id": 1, "cart_value": 1.0}, "lacks 'product_id'"),
        ({"household_id": 2, "product_id": 1}, "lack 'cart_value'"),
        (5, "not a mapping"),
    ],
    ids=["missing", "unknown", "type", "key", "no key", "missing too", "no row"],
)
@pytest.mark.parametrize("output", ["dicts", "arrow"])
def test_a_row_that_does_not_fit_a_view_is_refused_with_what_a_row_needs(shop, row, message, output):
    with pytest.raises(DataError, match=message):
        basket(shop).serve().get_features([row], output)


def test_a_request_value_with_a_default_may_be_left_out(shop):
    view = basket(shop, defaults={"cart_value": 15.5}).serve()
    row = {"household_id": 1, "product_id": 1}
    (answer,) = view.get_features([row], "dicts", with_status=True)
    assert (answer["cart_value"], answer["defaulted"]) == (15.5, ["cart_value"])
    assert answer["basket_vs_usual"] == 15.5 / (15.5 / 2)
    assert view.get_features(pd.DataFrame([row]), "dicts") == view.get_features([row], "dicts")


def test_features_that_are_not_asked_for_are_neither_looked_up_nor_computed(shop):
    view = FeatureView("few", list(shop.values()), request={"cart_value": "float64"}, functions=[counted, log_price])
    view.serve()
    calls.clear()
    row = {"household_id": 1, "product_id": 1}
    (answer,) = view.get_features([row], "dicts", features=["log_price"], with_status=True)  # without its request value
    assert [*answer] == ["household_id", "product_id", "log_price", "products_status", "products_event_time"]
    assert calls == []
    assert view.get_features([row | {"cart_value": 2}], "dicts", features=["counted"]) == [row | {"counted": 4.0}]
    assert calls == [1]


def test_a_function_over_arrays_is_called_once_for_many_rows(shop):
    view = FeatureView("many", [shop["products"]], request={"cart_value": "float64"}, functions=[counted]).serve()
    calls.clear()
    for output in ("dicts", "pandas", "polars", "arrow"):
        view.get_features([{"product_id": i, "cart_value": 1} for i in range(7)], output)
    assert calls == [7] * 4


def test_a_handle_follows_the_rows_of_its_version_and_no_other_version(shop):
    view = basket(shop).serve()
    handle = OnlineFeaturesDuckDB("next_basket")
    products = group("products", "product", "product_id", ttl=timedelta(days=30))
    with pytest.warns(SeeknalWarning, match="version 2"):
        basket(shop, defaults={"price": 0.0}).serve()
    frame = pa.table({"product_id": [77], "at": pa.array([NOW], UTC_US), "price": [3.0], "name": ["tea"]})
    products.set_dataframe(frame).write(mode="merge")
    view.refresh()
    (answer,) = handle.get_features([BASKET | {"product_id": 77}], "dicts", with_status=True)
    assert answer["price"] == 3.0
    assert "defaulted" not in answer
    assert handle.name == "next_basket@1"


def test_code_that_changed_is_not_served(shop, monkeypatch):
    basket(shop).serve()

    def other(cart_value, spend_30d, trips_30d):
        return cart_value + spend_30d + trips_30d

    other.__module__, other.__qualname__, other.__name__ = "view_functions", "basket_vs_usual", "basket_vs_usual"
    changed = type(basket_vs_usual)(other, {"basket_vs_usual": "float64"}, "array")
    monkeypatch.setattr(view_functions, "basket_vs_usual", changed)
    with pytest.raises(DefinitionError, match="not what was registered: its code changed"):
        OnlineFeaturesDuckDB("next_basket")


def test_verify_compares_what_is_computed_and_says_what_is_not(shop):
    view = FeatureView(
        "priced",
        [shop["products"]],
        request={"cart_value": "float64"},
        functions=[log_price, costs],
        defaults={"price": 1.0},
    ).serve()
    verified = view.verify()
    assert verified.equal
    assert verified.values == 2 * 3 + 2 * 3  # price and name of each product; then price and log_price of each
    assert [one.partition(":")[0] for one in verified.not_compared] == ["costs_more", "gap"]
    products = group("products", "product", "product_id", ttl=timedelta(days=30))
    frame = pa.table({"product_id": [1], "at": pa.array([NOW], UTC_US), "price": [3.0], "name": ["milk"]})
    products.set_dataframe(frame).write(mode="merge")
    behind = view.verify()
    assert not behind.equal
    assert {one.partition(":")[0] for one in behind.not_compared} == {"price", "log_price", "costs_more", "gap"}


def test_an_error_of_a_function_names_the_row_but_no_personal_key(shop):
    people = FeatureGroupDuckDB(
        "patients", Entity("patient", ["patient_id"], pii_keys=["patient_id"]), Materialization("at"), project="shop"
    )
    people.set_dataframe(
        pa.table({"patient_id": ["ada"], "at": pa.array([NOW], UTC_US), "size": pa.array([8], pa.int64())})
    ).write()
    view = FeatureView("fails", [FeatureLookup(people)], functions=[view_functions.half]).serve()
    for rows in ([{"patient_id": "bob"}], [{"patient_id": "bob"}] * 30):
        with pytest.raises(DataError, match=r"view_functions:half failed for patient_id=\*\*\*"):
            view.get_features(rows, "dicts")


def test_a_view_is_at_the_moment_of_its_read(shop):
    view = basket(shop).serve()
    (then,) = view.served.get_features([BASKET], "dicts", at=instant(day(-15)))
    assert then["trips_30d"] == 1  # the other trip of the 30 days has left the window by then
