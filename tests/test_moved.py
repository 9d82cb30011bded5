"""The calls that FeatureStore had itself in earlier releases still work, and name the new call."""

import pyarrow as pa
import pytest

from seeknal import Entity, FeatureGroup, FeatureLookup, FeatureStore, Materialization, Question
from seeknal.home import moved

AT = pa.array([0, 3_600_000_000], pa.timestamp("us", "UTC"))
ROWS = pa.table({"user": [1, 2], "at": AT, "x": [1, 2]})
GROUP = FeatureGroup("spend", Entity("user", ["user"]), Materialization("at", online=True), "shop")
LOOKUPS = [FeatureLookup("shop/spend")]


@pytest.fixture
def store(home) -> FeatureStore:
    return FeatureStore(home)


@pytest.mark.parametrize(("name", "place"), [(name, place) for name, (place, _) in moved.CALLS.items()])
def test_each_former_call_is_there_and_names_the_new_one(store, name, place):
    with pytest.warns(DeprecationWarning, match=rf"^FeatureStore\.{name}\(\.\.\.\) has moved: use store\.{place}\.$"):
        assert callable(getattr(store, name))


def test_a_name_that_never_existed_is_no_attribute(store):
    with pytest.raises(AttributeError, match="'FeatureStore' object has no attribute 'wirte'"):
        store.wirte  # noqa: B018 - it is what raises


@pytest.mark.filterwarnings("ignore:FeatureStore:DeprecationWarning")
def test_former_calls_take_the_same_arguments_and_return_the_same(store):
    assert store.write(GROUP, ROWS).rows == 2
    assert store.push("spend", {"user": 2, "at": "1970-01-01T02:00:00Z", "x": 3}, "shop").rows == 1
    assert store.version("spend", "shop", 1).number == store.versions("spend", "shop")[0].number == 1
    assert store.counts("spend", 1, "shop") == (3, {"user": 0, "at": 0, "x": 0})
    assert store.diff("spend", 1, 1, "shop") == []
    assert len(store.sample("spend", "shop", limit=1)) == 1
    assert store.load("spend", "shop").online == 2
    assert store.clean("spend", 1, "shop", dry_run=True) == 1
    assert store.serve(LOOKUPS, "table", target=None).get_features([{"user": 2}], "dicts") == [{"user": 2, "x": 3}]
    assert store.online_table("table", "shop").features == ["x"]
    assert store.verify("table", "shop").equal
    assert [one.table for one in store.refresh(["table"], "shop")] == ["shop/table"]
    assert store.ledger("spend", "shop")[0].is_fresh
    assert {load.version for load in store.loads("spend", "shop")} == {1}
    spine = ROWS.select(["user", "at"])
    assert store.training_set(LOOKUPS, spine, "at")["x"].to_pylist() == [1, 2]
    assert store.history(LOOKUPS, output="arrow").num_rows == 3
    assert store.explain(LOOKUPS, {"user": 1}, "1970-01-02", limit=1)[0].features == {"x": 1}
    assert list(store.check(LOOKUPS, spine, "at")) == []
    assert [one.record.label for one in store.sources(LOOKUPS)] == ["shop/spend"]
    made = store.save_training_set("may", LOOKUPS, Question("spine", date_col="at"), spine, keep_rows=True)
    store.delete_training_set(made)
    assert store.erase("spend", {"user": 1}, "shop").rows == 1
    assert store.erase_entity("user", {"user": 2}, "shop").rows == 2
    store.delete_table("table", "shop")
    store.delete_group("spend", "shop")
    assert store.registry.groups() == store.catalog.registry.tables() == store.online_tables.all() == []
    assert store.engine is store.core.engine()
