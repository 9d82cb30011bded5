"""The log of served vectors: what it keeps, what it costs a read, and that history proves or disproves each logged answer."""

import gc
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

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
    Materialization,
    OnlineFeaturesDuckDB,
    SeeknalWarning,
    StoreError,
    Sum,
    WindowedGroup,
)
from seeknal.home import session
from seeknal.home.log_writer import HomeLogWriter
from seeknal.serve import answer_log
from seeknal.serve.answer_log import AnswerLog, Entry, Layout, flush_of
from seeknal.values.times import Interval, instant, now
from servers import wait_for
from view_functions import basket_vs_usual, costs, log_price

NOW = datetime.now(UTC)
TIME = pa.timestamp("us", "UTC")
ROW = {"household_id": 1, "product_id": 1, "cart_value": 31.0}


def day(days):
    """Return the moment some days ago."""
    return NOW - timedelta(days=days)


def purchases(rows):
    """Write purchases, as pairs of household and days ago."""
    source = EventSource("purchases", event_time_col="at", project="shop")
    frame = pa.table(
        {
            "household_id": pa.array([one[0] for one in rows], pa.int64()),
            "at": pa.array([day(one[1]) for one in rows], TIME),
            "amount": pa.array([one[2] for one in rows], pa.float64()),
        }
    )
    source.set_dataframe(frame).write(mode="append")
    return source


def products(rows=((1, 2.5), (2, None)), days=1, mode="merge"):
    """Write prices of products."""
    group = FeatureGroupDuckDB("products", Entity("product", ["product_id"]), Materialization("at"), project="shop")
    frame = pa.table(
        {
            "product_id": pa.array([one[0] for one in rows], pa.int64()),
            "at": pa.array([day(days)] * len(rows), TIME),
            "price": pa.array([one[1] for one in rows], pa.float64()),
        }
    )
    group.set_dataframe(frame).write(mode=mode)
    return group


@pytest.fixture
def view():
    """A served view of purchases and products, all of whose answers are logged."""
    activity = WindowedGroup(
        "activity",
        Entity("household", ["household_id"]),
        purchases([(1, 3, 10.0), (1, 20, 5.5), (2, 5, 1.0)]),
        {"spend": Sum("amount", over=["30d"]), "trips": Count(over=["30d"])},
    )
    return FeatureView(
        "next_basket",
        [FeatureLookup(activity), FeatureLookup(products())],
        request={"cart_value": "float64"},
        functions=[basket_vs_usual, costs, log_price],
        defaults={"price": 1.25},
    ).serve(log=1)


def logged(view):
    """Return all rows of the log of a view, oldest first."""
    session.store().tables.flush_logs()
    rows = FeatureStore().groups.sample(f"{view.name}_v{view.version}_log", project="shop", limit=10**6).to_pylist()
    return [row for _, row in sorted(enumerate(rows), key=lambda one: (one[1]["served_at"], -one[0]))]


def test_the_log_has_keys_request_values_answers_statuses_version_moment_and_snapshots(view):
    rows = [ROW, {"household_id": 7, "product_id": 7, "cart_value": None}]
    alone = [
        view.get_features([row], "dicts", with_status=with_status)[0] for row in rows for with_status in (False, True)
    ]
    answers = view.get_features(rows, "arrow").to_pylist()
    found = logged(view)
    assert len(found) == 6
    for row, answer in zip(found, [*alone, *answers], strict=True):
        assert {name: row[name] for name in answer if name in row} == {
            name: one for name, one in answer.items() if name in row
        }
        assert {*answer} <= {*row}
    first, _, third, *_ = found
    assert (first["view_version"], first["asked"], first["defaulted"]) == (1, None, [])
    assert (first["activity_status"], first["products_status"]) == ("found", "found")
    assert (first["activity_snapshot"], first["products_snapshot"]) == (1, 1)
    assert first["products_event_time"] == day(1)
    assert (third["products_status"], third["price"], third["defaulted"]) == ("not_found", 1.25, ["price"])
    assert abs(first["served_at"] - datetime.now(UTC)) < timedelta(minutes=10)
    assert view.verify(log=True).equal


def test_only_what_was_asked_for_is_logged_and_compared(view):
    view.get_features([ROW], "dicts", features=["log_price"])
    view.get_features([ROW, ROW], "dicts", features=["gap"])
    first, second, _ = logged(view)
    assert (first["asked"], first["price"], first["spend_30d"], first["activity_status"]) == (
        ["log_price"],
        2.5,
        None,
        None,
    )
    assert (second["asked"], second["gap"], second["cart_value"], second["log_price"]) == (["gap"], 28.5, 31.0, None)
    verified = view.verify(log=True)
    assert (verified.equal, verified.values) == (True, (1 + 1) + 2 * (1 + 1))  # each with the price that it is made of


def test_a_share_of_the_answers_is_logged(view):
    view.serve(log=0.5)
    for number in range(600):
        view.get_features([ROW], "dicts" if number % 2 else "arrow")
    assert 200 < len(logged(view)) < 400  # a half are 300, and the standard deviation is 12
    with pytest.raises(DefinitionError, match="log=2 is not a share"):
        view.serve(log=2)
    view.serve()  # without a log from here on
    before = len(logged(view))
    view.get_features([ROW], "dicts")
    assert len(logged(view)) == before


def test_answers_that_agree_with_history_are_equal_whichever_are_chosen(view):
    for _ in range(5):
        view.get_features([ROW], "dicts")
    purchases([(1, 50, 50.0)])  # of before the windows of the answers
    everything = view.verify(log=True)
    assert (everything.equal, everything.entities) == (True, 5)
    assert view.verify(log=2).entities == 2
    assert view.verify(log=Interval(None, instant(day(1)))).entities == 0
    assert view.verify(log=(day(1), day(-1))).entities == 5
    assert view.verify(log=1.0).entities == 5
    with pytest.raises(DefinitionError, match="log=0 is not a whole number"):
        view.verify(log=0)


def test_the_newest_answers_are_those_of_the_last_moments_and_not_those_written_last(view):
    view.get_features([ROW], "dicts")
    assert len(logged(view)) == 1
    store = FeatureStore()
    layout = store.tables.open_as_registered(store.tables.get("next_basket@1")).log.layout
    wrong = {"household_id": 1, "product_id": 1, "price": 7.0, "activity_snapshot": 1, "products_snapshot": 1}
    HomeLogWriter(store.core).write(layout, [Entry(now(), wrong | {"served_at": now() - 10**9})])
    assert view.verify(log=1).equal
    assert not view.verify(log=2).equal
    FeatureStore().entities.erase("household", {"household_id": 1}, project="shop")
    assert view.verify(log=1).entities == 0


@pytest.mark.filterwarnings("ignore:.*now at version 2:seeknal.SeeknalWarning")
def test_answers_of_before_a_key_was_widened_are_compared_too():
    def written(kind, price, days):
        group = FeatureGroupDuckDB("sold", Entity("product", ["product_id"]), Materialization("at"), project="shop")
        columns = {"product_id": pa.array([1], kind), "at": pa.array([day(days)], TIME), "price": [price]}
        group.set_dataframe(pa.table(columns)).write(mode="append")
        return FeatureLookup(group)

    asked = [{"product_id": 1}]
    FeatureView("sale", [written(pa.int32(), 2.5, 9)], defaults={"price": 1.0}).serve(log=1).get_features(
        asked, "dicts"
    )
    session.store().tables.flush_logs()
    written(pa.int64(), 3.5, 12)
    wider = FeatureView.load("sale")
    wider.refresh()
    wider.get_features([*asked, {"product_id": 2**40}], "dicts")
    session.store().tables.flush_logs()
    versions = FeatureStore().groups.versions("sale_v1_log")
    assert [one.schema.field("product_id").type for one in versions] == [pa.int32(), pa.int64()]
    verified = wider.verify(log=True)
    assert (verified.equal, verified.entities, verified.values) == (True, 3, 3)
    written(pa.int64(), 4.5, 3)
    assert [one.cause for one in wider.verify(log=True).differences] == ["late data"] * 2


def test_late_data_is_told_from_a_fault(view):
    view.get_features([ROW, {**ROW, "household_id": 2}], "dicts")
    purchases([(1, 2, 100.0)])  # of before the answer, recorded after it
    products(((1, 9.0),), days=0.5)
    verified = view.verify(log=True)
    told = {(one.keys["household_id"], one.feature): one.cause for one in verified.differences}
    assert told == {
        (1, "spend_30d"): "late data",
        (1, "trips_30d"): "late data",
        (1, "price"): "late data",
        (2, "price"): "late data",
        (1, "basket_vs_usual"): "late data",
        (1, "gap"): "late data",
        (2, "gap"): "late data",
        (1, "log_price"): "late data",
        (2, "log_price"): "late data",
    }
    assert verified.different == len(told)


def test_late_data_in_a_new_version_of_a_group_is_told_from_a_fault(view):
    view.get_features([ROW], "dicts")
    group = FeatureGroupDuckDB("products", Entity("product", ["product_id"]), Materialization("at"), project="shop")
    frame = pa.table({"product_id": [1], "at": pa.array([day(0.5)], TIME), "price": [9.0], "size": [3]})
    with pytest.warns(SeeknalWarning):
        group.set_dataframe(frame).write()
    told = {one.feature: one.cause for one in view.verify(log=True).differences}
    assert told == {"price": "late data", "gap": "late data", "log_price": "late data"}


def changed(function, name, outputs, monkeypatch, mode="array"):
    """Put a function of other code in the place of one of `view_functions`, as a deployment would."""
    function.__module__, function.__qualname__, function.__name__ = "view_functions", name, name
    monkeypatch.setattr(view_functions, name, type(log_price)(function, outputs, mode))


def test_changed_code_is_told_from_a_fault(view, monkeypatch):
    view.get_features([ROW], "dicts")

    def log_price(price):
        return np.log(price)

    changed(log_price, "log_price", {"log_price": "float64"}, monkeypatch)
    (difference,) = view.verify(log=True).differences
    assert (difference.feature, difference.cause) == ("log_price", "changed code")
    assert (difference.online, difference.offline) == (np.log1p(2.5), np.log(2.5))
    with pytest.raises(DefinitionError, match="its code changed"):
        FeatureView.load("next_basket")  # but the log can still be compared
    store = FeatureStore()
    assert not store.views.verify_log(store.views.get("next_basket")).equal


def test_another_type_is_told_from_a_fault(view, monkeypatch):
    view.get_features([ROW], "dicts")

    def log_price(price):
        return np.log1p(price).astype("f4")

    changed(log_price, "log_price", {"log_price": "float32"}, monkeypatch)
    (difference,) = view.verify(log=True).differences
    assert (difference.feature, difference.cause) == ("log_price", "type")


def test_a_parity_fault_is_told(view, monkeypatch):
    """An answer that history never gave, as a fault of the online store would make it."""
    from seeknal.serve.parts import Part

    read = Part.read

    def wrong(part, *arguments):
        found = read(part, *arguments)
        if part.lookup.group != "products":
            return found
        rows = [None if row is None else (row[0] + 1, *row[1:]) for row in found.rows]
        return found._replace(rows=rows, alive=rows)

    monkeypatch.setattr(Part, "read", wrong)
    view.get_features([ROW], "dicts")
    monkeypatch.undo()
    verified = view.verify(log=True)
    assert {(one.feature, one.cause) for one in verified.differences} == {
        ("price", "another value"),
        ("gap", "another value"),
        ("log_price", "another value"),
    }


def test_an_entity_that_is_erased_is_erased_from_the_log_too(view):
    other = {**ROW, "household_id": 2}
    view.get_features([ROW, other, ROW], "dicts")
    assert len(logged(view)) == 3
    view.get_features([ROW, other], "dicts")  # not written yet
    receipt = FeatureStore().entities.erase("household", {"household_id": 1}, project="shop")
    assert "shop/next_basket_v1_log" in [one.group for one in receipt.groups]
    assert "shop/next_basket_v1_log" not in receipt.beside
    rows = logged(view)
    assert {row["household_id"] for row in rows} == {2}
    view.get_features([other], "dicts")
    assert len(logged(view)) == len(rows) + 1
    assert FeatureStore().entities.erase("household", {"household_id": 2}, project="shop")
    assert logged(view) == []


def test_rows_that_were_taken_before_an_erasure_are_not_written_after_it(view):
    store = FeatureStore()
    layout = store.tables.open_as_registered(store.tables.get("next_basket@1")).log.layout
    before = Entry(now(), {"household_id": 1, "served_at": now()})
    store.entities.erase("household", {"household_id": 1}, project="shop")
    HomeLogWriter(store.core).write(layout, [before, Entry(now(), {"household_id": 2, "served_at": now()})])
    assert [row["household_id"] for row in logged(view)] == [2]


def test_a_table_with_another_name_for_a_key_is_erased_from_by_that_name(view):
    lookup = FeatureLookup("shop/products", rename={"product_id": "article"})
    by_article = FeatureView("by_article", [lookup]).serve(log=1)
    by_article.get_features([{"article": 1}, {"article": 2}], "dicts")
    assert len(logged(by_article)) == 2
    FeatureStore().entities.erase("product", {"product_id": 1}, project="shop")
    assert [row["article"] for row in logged(by_article)] == [2]


def test_a_log_whose_columns_or_name_are_taken_is_refused_before_anything_is_served(view):
    lookup = FeatureLookup("shop/products", rename={"price": "asked"})
    with pytest.raises(DefinitionError, match=r"column named 'asked', as its log would have"):
        FeatureView("taken", [lookup]).serve(log=1)
    FeatureGroupDuckDB(
        "named_v1_log", Entity("product", ["product_id"]), Materialization("at"), project="shop"
    ).set_dataframe(pa.table({"product_id": [1], "at": pa.array([NOW], TIME), "price": [1.0]})).write()
    with pytest.raises(DefinitionError, match="shop/named_v1_log, which is another feature group"):
        FeatureView("named", [FeatureLookup("shop/products")]).serve(log=1)
    with pytest.raises(DefinitionError, match="not served"):
        FeatureView.load("named").get_features([{"product_id": 1}])
    with pytest.raises(DefinitionError, match="No answer of shop/named@1 was logged yet"):
        FeatureView.load("named").verify(log=True)


class _Store:
    """A writer of logs that fails or waits as told, in place of a disk."""

    address = "kept"

    def __init__(self):
        self.rows, self.fails = [], False
        self.goes_on, self.began = threading.Event(), threading.Event()
        self.goes_on.set()

    def register(self, group):
        del group

    def write(self, layout, items):
        self.began.set()
        self.goes_on.wait()
        if self.fails:
            raise StoreError("The disk is full.")
        self.rows += layout.table(items).to_pylist()


@pytest.fixture
def kept():
    return _Store()


@pytest.fixture
def log(view, kept):
    """A log of its own, that is written by `kept`."""
    layout = Layout(FeatureStore().views.get(view.name), [pa.field("user", pa.int64())], {"x": pa.float64()}, ["spend"])
    return AnswerLog(layout, 1.0, kept)


def test_rows_are_written_in_the_background_after_a_second(log, kept):
    log.add({"user": 1, "x": 2.5, "spend_status": "found"})
    wait_for(lambda: kept.rows)
    assert (kept.rows[0]["user"], kept.rows[0]["x"], kept.rows[0]["spend_status"]) == (1, 2.5, "found")


def test_a_store_that_is_slow_makes_no_read_wait_and_what_does_not_fit_is_counted(log, kept, monkeypatch):
    monkeypatch.setattr(answer_log, "_MOST", 10)
    kept.goes_on.clear()
    log.add({"user": 0})
    wait_for(kept.began.is_set)
    for user in range(1, 15):
        log.add({"user": user})  # returns although the writer waits
    kept.goes_on.set()
    with pytest.warns(SeeknalWarning, match="4 answers of shop/next_basket@1 were not logged"):
        flush_of(kept.address)
    assert [row["user"] for row in kept.rows] == [*range(11)]


def test_verify_finds_what_was_logged_by_a_table_that_is_gone(view):
    OnlineFeaturesDuckDB("next_basket").get_features([ROW], "dicts")
    gc.collect()
    assert view.verify(log=True).entities == 1


def test_rows_that_cannot_be_written_are_kept_and_tried_again(log, kept, recwarn):
    kept.fails = True
    log.add({"user": 1})
    with pytest.raises(StoreError, match="disk is full"):
        flush_of(kept.address)
    kept.fails = False
    flush_of(kept.address)
    assert [row["user"] for row in kept.rows] == [1]


def run(code):
    """Run code in another process."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, env=env)


def test_a_forked_process_logs_its_own_answers_and_none_of_its_parents(view):
    run(f"""
import os
from seeknal import OnlineFeaturesDuckDB
from seeknal.serve.answer_log import flush_all

view = OnlineFeaturesDuckDB("next_basket")  # which opens no offline table, so that a process forked from it may write one
view.get_features([{ROW!r}], "dicts")  # not written yet when the process forks
if (child := os.fork()) == 0:
    view.get_features([{ROW | {"household_id": 2}!r}], "dicts")
    flush_all()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""")
    assert sorted(row["household_id"] for row in logged(view)) == [1, 2]


def test_what_was_logged_is_written_when_a_process_ends_and_when_a_store_is_closed(view):
    run(f"from seeknal import FeatureView; FeatureView.load('next_basket').get_features([{ROW!r}], 'dicts')")
    assert len(logged(view)) == 1
    view.get_features([ROW], "dicts")
    session.store().close()
    assert FeatureStore().groups.version("next_basket_v1_log", project="shop").rows == 2


def test_a_function_that_fails_logs_nothing(view):
    with pytest.raises(DataError):
        view.get_features([{**ROW, "cart_value": "x"}], "dicts")
    view.get_features([ROW], "dicts")
    assert len(logged(view)) == 1


def test_a_function_is_recomputed_only_where_it_was_asked_for(view):
    """Its inputs are null in the rows of calls that asked for something else, and it fails for null."""
    sized = FeatureGroupDuckDB("sizes", Entity("household", ["household_id"]), Materialization("at"), project="shop")
    sized.set_dataframe(
        pa.table({"household_id": [1], "at": pa.array([NOW], TIME), "size": pa.array([4], pa.int64())})
    ).write()
    halved = FeatureView(
        "halved", [FeatureLookup(sized), FeatureLookup("shop/products")], functions=[view_functions.half]
    )
    halved.serve(log=1)
    halved.get_features([{"household_id": 1, "product_id": 1}], "dicts")
    halved.get_features([{"household_id": 9, "product_id": 1}], "dicts", features=["price"])
    verified = halved.verify(log=True)
    assert (verified.equal, verified.values) == (True, 3 + 1)
