"""Feature views as they are used: definitions that change, values of every kind, functions that go wrong, and logs of odd answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import odd_functions as odd
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
    Label,
    Materialization,
    SeeknalWarning,
    Std,
    Sum,
    WindowedGroup,
    request_feature,
)
from seeknal.home import session

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUSEHOLD, PRODUCT = Entity("household", ["household_id"]), Entity("product", ["product_id"])
TIME = pa.timestamp("us", "UTC")


def day(number):
    return START + timedelta(days=number)


def receipts(name="receipts"):
    """Write what household 1 buys: product 7 first and last, other products between."""
    source = EventSource(name, event_time_col="at", project="shop")
    rows = {"household_id": [1, 1, 1, 1], "product_id": [7, 8, 9, 7], "at": list(map(day, (0, 1, 2, 30)))}
    source.set_dataframe(pa.table(rows | {"amount": [1.0, 2.0, 3.0, 4.0]})).write()
    return source


def sizes(values=(3, 4), key=pa.int64(), **columns):
    """Write the sizes of households."""
    group = FeatureGroupDuckDB("sizes", HOUSEHOLD, Materialization("at"), project="shop")
    ids = pa.array(range(1, len(values) + 1), key)
    table = {"household_id": ids, "at": pa.array([START] * len(values), TIME), "size": pa.array(values)}
    group.set_dataframe(pa.table(table | columns)).write()
    return FeatureLookup(group)


def bought(source):
    return FeatureLookup(WindowedGroup("activity", HOUSEHOLD, source, {"spend": Sum("amount", over="30d")}))


def sold(source):
    return FeatureLookup(WindowedGroup("demand", PRODUCT, source, {"sold": Count(over="30d")}))


def spine(**columns):
    given = {"household_id": [1], "product_id": [7], "moment": pa.array([START], TIME)}
    return pa.table(given | columns)


# What a view is, when it changes.


def test_a_label_may_change_its_entity_its_source_and_its_window_while_training_sets_of_it_stay():
    source = receipts()
    again = Label(source, aggregation="any", within="7d", name="again")
    first = FeatureView("repeat", [bought(source)], label=again)
    kept = first.training_set(spine(), "moment", "kept").to_dataframe("arrow")
    by_both = FeatureView("repeat", [bought(source), sold(source)], label=again)
    elsewhere = FeatureView("repeat", [bought(source)], label=Label(receipts("others"), "amount", within="1d"))
    assert [first.version, by_both.version, elsewhere.version] == [1, 2, 3]
    found = by_both.to_dataframe(spine(), "moment")["again"].to_pylist()
    assert (kept["again"].to_pylist(), found) == ([True], [False])
    (changed,) = [one for one in by_both.difference(1) if one.startswith("label")]
    assert (
        "by household_id, left out until it is known -> any event of shop/receipts within 7 days, by household_id, product_id"
        in changed
    )
    assert session.store().training_sets.reproduce(session.store().training_sets.get("kept")).equals(kept)


def test_another_window_of_a_label_gives_one_notice_which_names_both():
    source = receipts()
    FeatureView("repeat", [bought(source)], label=Label(source, "amount", within="7d")).register()
    with pytest.warns(SeeknalWarning) as told:
        FeatureView("repeat", [bought(source)], label=Label(source, within="14d", aggregation=Sum("amount"))).register()
    (text,) = [str(one.message) for one in told]
    assert "first amount of shop/receipts within 7 days" in text
    assert "Sum(column='amount') of shop/receipts within 14 days" in text


def test_a_view_whose_function_fails_leaves_nothing_behind_and_can_be_registered_once_it_is_mended():
    source, lookup = receipts(), sizes(values=("a b", "c"))
    bad = FeatureView("repeat", lookup, functions=[odd.sizes], label=Label(source, aggregation="any", within="7d"))
    with pytest.raises(DataError, match="odd_functions:sizes returned what does not fit"):
        bad.register()
    assert [one.group.name for one in FeatureStore().groups.all()] == ["receipts", "sizes"]
    assert FeatureView("repeat", lookup, label=Label(source, aggregation="any", within="7d")).version == 1


def test_a_group_that_has_the_name_of_a_labels_group_stays_as_it_is():
    source = receipts()
    FeatureStore().groups.register(WindowedGroup("repeat_label", HOUSEHOLD, source, {"mine": Count(over="1d")}))
    view = FeatureView("repeat", [bought(source)], label=Label(source, aggregation="any", within="7d", name="again"))
    assert view.to_dataframe(spine(), "moment")["again"].to_pylist() == [True]
    assert FeatureStore().groups.version("repeat_label").number == 1


def test_a_retired_version_is_not_served_by_an_object_that_was_opened_before():
    view = FeatureView("size", sizes()).serve()
    before = FeatureView.load("size@1")
    before.retire()
    for one in (view, before):
        with pytest.raises(DefinitionError, match=r"shop/size@1 was retired\. Register its definition again"):
            one.serve()
    assert FeatureStore().tables.all() == []


# Request values.


@pytest.mark.parametrize("kind", ["decimal128(5, 0)", "decimal128(10, 2)", "decimal128(38, 30)"])
def test_a_request_value_may_be_a_decimal_of_any_length(kind):
    view = FeatureView("coupons", sizes(), request={"coupon": kind}, functions=[odd.cents]).serve()
    assert view.get_features([{"household_id": 1, "coupon": Decimal(3)}], "dicts")[0]["cents"] == 300


ZONES = ["UTC", "Etc/UTC", "Asia/Jakarta", "+05:30", None]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_moments_in_frames_of_requests_are_converted_as_those_of_single_rows_are(zone, unit):
    view = FeatureView("asked", sizes(), request={"asked_at": "timestamp[us, tz=UTC]"}).serve()
    there = pa.array([day(5)], TIME).cast(pa.timestamp(unit, zone))
    alone = view.get_features([{"household_id": 1, "asked_at": day(5)}], "arrow")
    assert view.get_features(pa.table({"household_id": [1], "asked_at": there}), "arrow").equals(alone)
    found = view.to_dataframe(spine(asked_at=there), "moment")
    assert found["asked_at"].cast(TIME).to_pylist() == [day(5)]


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("timestamp[s]", pl.Series([datetime(2024, 1, 1, 1, 2, 3)])),
        ("duration[s]", pl.Series([timedelta(seconds=5)])),
        ("time64[us]", pl.Series([datetime(2024, 1, 1, 1, 2, 3).time()])),
        ("int64", pl.Series([3.0])),
        (pa.list_(pa.int32()), pl.Series([[1, 2]])),
    ],
)
def test_a_frame_whose_library_lacks_the_type_may_give_values_that_are_exact_in_it(kind, given):
    view = FeatureView("odd_kinds", sizes(), request={"given": kind}).serve()
    alone = view.get_features([{"household_id": 1, "given": given.to_list()[0]}], "arrow")
    frame = pl.DataFrame({"household_id": [1], "given": given})
    assert view.get_features(frame, "arrow").equals(alone)


def test_a_spine_of_duckdb_may_have_moments_as_request_values():
    view = FeatureView("asked", sizes(), request={"asked_at": "timestamp[us, tz=UTC]"})
    with duckdb.connect() as connection:
        rows = connection.sql(
            "SELECT 1 AS household_id, TIMESTAMPTZ '2024-03-02 00:00+00' AS moment, moment AS asked_at"
        )
        assert view.to_dataframe(rows, "moment", output="arrow")["size"].to_pylist() == [3]


def test_rows_may_be_a_stream_that_can_be_read_once():
    view = FeatureView("carts", sizes(), request={"cart_value": "float64"}).serve()
    table = pa.table({"household_id": [1, 2], "cart_value": [0.5, 2.0]})
    expected = view.get_features(table, "arrow")
    assert view.get_features(table.to_reader(1), "arrow").equals(expected)


# Functions.


def test_a_function_that_raises_stopiteration_fails_and_shifts_no_row():
    view = FeatureView("words", sizes(), request={"words": "string"}, functions=[odd.first_long]).serve()
    rows = [
        {"household_id": 1, "words": "a long word"},
        {"household_id": 2, "words": "a b"},
        {"household_id": 1, "words": "last word"},
    ]
    for output in ("dicts", "arrow"):
        with pytest.raises(DataError, match="first_long failed for household_id=2: StopIteration"):
            view.get_features(rows, output)
    with pytest.raises(DataError, match="first_long failed for household_id=2: StopIteration"):
        view.to_dataframe(
            pa.table({"household_id": [1, 2], "words": ["a long word", "a b"], "moment": pa.array([day(1)] * 2, TIME)}),
            "moment",
        )


def test_a_function_that_only_takes_real_request_values_can_be_registered_and_trained():
    view = FeatureView("rates", sizes(), request={"channel": "string"}, functions=[odd.rate])
    assert view.to_dataframe(spine(channel=["web"]), "moment")["rate"].to_pylist() == [0.5]
    with pytest.raises(DataError, match="rate failed for household_id=1: KeyError: 'fax'"):
        view.to_dataframe(spine(channel=["fax"]), "moment")


def test_a_function_of_request_values_that_depends_on_chance_is_refused():
    view = FeatureView("chance", sizes(), request={"cart_value": "float64"}, functions=[odd.counts_calls])
    with pytest.raises(DefinitionError, match="must depend on its own row only"):
        view.register()


def test_the_rows_of_a_training_set_try_what_no_example_could(monkeypatch):
    view = FeatureView("rates", sizes(), request={"channel": "string"}, functions=[odd.rate]).register()
    calls = []
    monkeypatch.setattr(odd, "RATES", _Counting(calls))
    twice = pa.concat_tables([spine(channel=["web"])] * 2)
    with pytest.raises(DefinitionError, match="must depend on its own row only"):
        view.to_dataframe(twice, "moment")


class _Counting(dict):
    def __init__(self, calls):
        super().__init__()
        self._calls = calls

    def __missing__(self, key):
        self._calls.append(key)
        return float(len(self._calls))


# Defaults, and answers that are changed by who asked.


def test_who_changes_an_answer_changes_no_later_answer_and_no_log():
    lookup = sizes(words=pa.array([["a"], None]))
    view = FeatureView("lists", lookup, functions=[odd.sizes], defaults={"words": ["none"]}).serve(log=1)
    expected = {n: view.get_features([{"household_id": n}], "arrow").to_pylist() for n in (1, 2, 3)}
    for n in (1, 2, 3):
        (row,) = view.get_features([{"household_id": n}], "dicts")
        for name in ("words", "sizes"):
            if row[name] is not None:
                row[name].append(row[name][0])
    for n in (1, 2, 3):
        assert view.get_features([{"household_id": n}], "dicts") == expected[n]
    assert view.verify(log=True).equal


@pytest.mark.parametrize("kind", ["timestamp[ns]", "duration[ns]", "timestamp[ns, tz=UTC]"])
def test_a_default_never_loses_its_nanoseconds(kind):
    value = pa.scalar(1, pa.int64()).cast(pa.duration("ns") if "duration" in kind else pa.timestamp("ns"))
    view = FeatureView("nanos", sizes(), request={"at": kind}, defaults={"at": value})
    with pytest.raises(DefinitionError, match=r"The default of 'at' cannot be kept: it has nanoseconds"):
        view.register()


# The log.


def logged(view, **columns):
    """Return the logged rows of a view, oldest first."""
    session.store().tables.flush_logs()
    log = FeatureStore().groups.sample(f"{view.name}_v{view.version}_log", project="shop", limit=10**6)
    return log.to_pylist()[::-1]


def test_a_call_that_fails_logs_none_of_its_rows():
    view = FeatureView("shares", sizes(), request={"cart_value": "float64"}, functions=[odd.share]).serve(log=1)
    for output in ("dicts", "arrow"):
        with pytest.raises(DataError, match="ZeroDivisionError"):
            view.get_features([{"household_id": 1, "cart_value": 2.0}, {"household_id": 2, "cart_value": 0.0}], output)
    view.get_features([{"household_id": 2, "cart_value": 2.0}], "dicts")
    assert [row["share"] for row in logged(view)] == [2.0]


@pytest.mark.parametrize("output", ["dicts", "arrow"])
@pytest.mark.parametrize(("kind", "key"), [(pa.int32(), 2**40), (pa.int8(), -129), (pa.uint64(), -1)])
def test_a_key_that_no_entity_can_have_is_null_in_the_log_and_costs_no_other_answer(kind, key, output):
    view = FeatureView("size", sizes(key=kind)).serve(log=1)
    for one in (1, key, 2):
        view.get_features([{"household_id": one}], output)
    assert [(row["household_id"], row["size"]) for row in logged(view)] == [(1, 3), (None, None), (2, 4)]
    assert view.verify(log=True).equal


def test_an_answer_between_two_pushes_that_are_stored_together_is_no_fault():
    lookup = sizes()
    view = FeatureView("size", lookup).serve(log=1)
    group = FeatureGroupDuckDB("sizes", HOUSEHOLD, Materialization("at"), project="shop")
    group.push({"household_id": 1, "at": day(1), "size": 25})
    (answer,) = view.get_features([{"household_id": 1}], "dicts")
    group.push({"household_id": 1, "at": day(2), "size": 68})
    assert answer["size"] == 25
    causes = view.verify(log=True).causes
    assert not causes or set(causes) <= {
        "late data",
        "not known: rows of the entity were pushed at that time, and stored together",
    }


def product(size, cart_value):
    """Return another feature, under the name of the one before."""
    return size * cart_value


product.__module__, product.__qualname__, product.__name__ = "odd_functions", "share", "share"


def test_the_causes_that_matter_most_are_told_first_and_all_are_counted(monkeypatch):
    lookup = sizes()
    view = FeatureView("shares", lookup, request={"cart_value": "float64"}, functions=[odd.share]).serve(log=1)
    for n in range(1, 13):
        view.get_features([{"household_id": 1, "cart_value": float(n)}], "dicts")
    logged(view)
    sizes(values=(5, 4))
    monkeypatch.setattr(odd, "share", request_feature(outputs={"share": "float64"})(product))
    found = view.verify(log=True)
    assert found.causes == {"changed code": 11, "late data": 13}
    assert {one.cause for one in found.differences} == {"changed code"}
    assert str(found).startswith(
        "shop/shares@1: 24 values of 12 answers compared, 24 differ (changed code: 11, late data: 13)"
    )
    assert str(found).endswith("and 14 more")
    assert found.differences[0].time.date() == datetime.now(UTC).date()


# What is verified.


def test_a_variance_keeps_no_other_feature_from_being_compared():
    source, lookup = receipts(), sizes(values=(None, 4))
    spread = FeatureLookup(WindowedGroup("spread", HOUSEHOLD, source, {"spread": Std("amount", over="300d")}))
    view = FeatureView("both", [lookup, spread], functions=[odd.sizes], defaults={"size": 2, "spread": 1.0}).serve()
    assert view.verify().not_compared == ("spread: it is made of variances, which agree up to a tolerance only",)


def test_a_group_that_no_longer_feeds_a_view_is_named_as_the_reason():
    view = FeatureView("size", sizes(), functions=[odd.sizes]).serve()
    group = FeatureGroupDuckDB("sizes", HOUSEHOLD, Materialization("at"), project="shop")
    group.set_dataframe(pa.table({"household_id": [1], "at": pa.array([day(3)], TIME), "other": [1]})).set_features()
    group.write()
    found = view.verify()
    assert found.cut_off
    assert found.not_compared == ("sizes: a group no longer feeds the table",)


# Frames.


def test_a_label_has_its_own_type_and_the_rows_their_index_where_rows_are_left_out():
    source = receipts()
    rows = pd.DataFrame({"household_id": [1, 1], "moment": pd.to_datetime([day(0), day(29)])}, index=["a", "b"])
    for aggregation, kind in (("any", np.dtype(bool)), ("count", np.dtype("int64"))):
        label = Label(source, aggregation=aggregation, within="7d", name="label")
        found = FeatureView("repeat", [bought(source)], label=label).to_dataframe(rows, "moment")
        assert (list(found.index), found["label"].dtype) == (["a"], kind)
