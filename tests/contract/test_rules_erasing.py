"""An entity is erased from all groups that it keys, in one call and with one receipt; or nothing is, and the error says why."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pyarrow as pa
import pytest

from commands import seeknal
from seeknal import (
    DataError,
    DefinitionError,
    Entity,
    FeatureGroup,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
    SeeknalWarning,
    StoreError,
    TrainingSet,
)
from servers import Valkey

from .world import HOUR, NOON, history, write

ON_BOTH = True  # see `pytest_generate_tests`

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")

CUSTOMER = Entity("customer", ["customer_id"])


def keyed(name: str, project: str = "shop", ids: Any = (1, 2), entity: Entity = CUSTOMER) -> FeatureGroupDuckDB:
    """Write a group of some customers, one row each, whose feature has the group's name."""
    fg = FeatureGroupDuckDB(name, entity, Materialization("at"), project)
    frame = {entity.join_keys[0]: list(ids), "at": [NOON] * len(ids), name: [10 * i for i in range(1, len(ids) + 1)]}
    write(fg, pa.table(frame))
    return fg


def ids(fg: FeatureGroupDuckDB) -> list[Any]:
    return history(fg)["customer_id"].to_pylist()


def test_an_entity_is_erased_from_all_its_groups_with_one_receipt():
    spend, visits, other = keyed("spend"), keyed("visits"), keyed("other", entity=Entity("client", ["customer_id"]))
    elsewhere = keyed("spend", project="office")
    never = FeatureGroupDuckDB("never_written", CUSTOMER, Materialization("at"), "shop").get_or_create()
    table = HistoricalFeaturesDuckDB([FeatureLookup(spend), FeatureLookup(visits)]).serve("both")
    spine = pa.table({"customer_id": [1], "at": [NOON]})
    HistoricalFeaturesDuckDB([FeatureLookup(spend), FeatureLookup(visits)]).using_spine(spine, "at").save("with_it")
    store = FeatureStore()
    with pytest.raises(DefinitionError, match="Several projects have an entity named 'customer'"):
        store.entities.erase("customer", {"customer_id": 1})
    with pytest.raises(DefinitionError, match="'shop/with_it' holds that entity"):
        store.entities.erase("shop/customer", {"customer_id": 1})
    assert TrainingSet.load("with_it").reproduce("arrow").num_rows == 1
    receipt = store.entities.erase("customer", {"customer_id": 1}, project="shop", delete_training_sets=True)
    assert [(one.group, one.rows, one.online) for one in receipt.groups] == [
        ("shop/spend", 1, 1),
        ("shop/visits", 1, 1),
    ]
    assert (receipt.rows, receipt.keys, receipt.training_sets) == (2, {"customer_id": 1}, ("shop/with_it",))
    assert str(receipt).startswith("2 rows of customer_id=1 erased from 2 feature groups\n  shop/spend: 1 row of")
    assert [ids(one) for one in (spend, visits, other, elsewhere)] == [[2], [2], [1, 2], [1, 2]]
    assert table.get_features([{"customer_id": 1}], "dicts") == [{"customer_id": 1, "spend": None, "visits": None}]
    assert store.entities.erase("customer", {"customer_id": 1}, project="shop").rows == 0
    assert never.version is None


def test_nothing_is_erased_if_the_keys_do_not_fit_one_of_the_groups():
    spend, texts = keyed("spend"), keyed("texts", ids=("1", "2"))
    store = FeatureStore()
    with pytest.raises(DataError, match="customer_id is string"):
        store.entities.erase("customer", {"customer_id": 1})
    with pytest.raises(DataError, match="'customer_id' is missing and 'id' is not a join key"):
        store.entities.erase("customer", {"id": 1})
    with pytest.raises(DefinitionError, match=r"No entity named 'custommer' in .* Did you mean 'customer'"):
        store.entities.erase("custommer", {"customer_id": 1})
    assert [ids(one) for one in (spend, texts)] == [[1, 2], ["1", "2"]]


def test_an_entity_that_was_never_written_cannot_be_erased():
    FeatureGroupDuckDB("spend", CUSTOMER, Materialization("at"), "shop").get_or_create()
    with pytest.raises(DefinitionError, match="Nothing was written yet"):
        FeatureStore().entities.erase("customer", {"customer_id": 1})


def test_an_erasure_that_ends_half_way_says_how_far_it_came_and_can_be_repeated(tmp_path):
    server = Valkey(tmp_path / "valkey").start()
    spend, visits = keyed("spend"), keyed("visits")
    HistoricalFeaturesDuckDB([FeatureLookup(visits)]).serve("far", target=server.url)
    with server.client() as client:
        client.config_set("min-replicas-to-write", 1)  # it can be read, but not written
    with pytest.raises(StoreError, match=r"is erased from shop/spend, but not yet from shop/visits: .* Erase it again"):
        FeatureStore().entities.erase("customer", {"customer_id": 1})
    assert (ids(spend), ids(visits)) == ([2], [1, 2])
    with server.client() as client:
        client.config_set("min-replicas-to-write", 0)
    FeatureStore().entities.erase("customer", {"customer_id": 1})
    server.stop()
    assert ids(visits) == [2]


def test_the_command_line_erases_from_a_group_or_from_all_groups_of_an_entity():
    spend, visits = keyed("spend"), keyed("visits")
    done = seeknal("erase", "spend", "customer_id=2", "--yes", "--format", "json")
    assert (json.loads(done.stdout)["rows"], ids(spend), ids(visits)) == (1, [1], [1, 2])
    done = seeknal("erase", "--entity", "customer", "customer_id=1", "--yes", "--format", "json")
    receipt = json.loads(done.stdout)
    assert (receipt["entity"], receipt["erased"], receipt["rows"]) == ("customer", "customer_id=1", 2)
    assert [one["feature_group"] for one in receipt["feature_groups"]] == ["shop/spend", "shop/visits"]
    assert (ids(spend), ids(visits)) == ([], [2])
    assert "Erase customer_id=2 from shop/spend, shop/visits for good?" in (
        seeknal("erase", "--entity", "customer", "customer_id=2").stderr
    )
    for wrong in (["spend"], ["customer_id=1"], ["--entity", "customer"], ["--entity", "customer", "spend"]):
        assert seeknal("erase", *wrong, "--yes").returncode == 2


def test_groups_of_other_entities_that_may_hold_the_entity_are_named(home):
    keyed("spend")
    items = FeatureGroupDuckDB("items", Entity("bought", ["customer_id", "item"]), Materialization("at"), "shop")
    write(items, pa.table({"customer_id": [1], "item": [7], "at": [NOON], "n": [1]}))
    keyed("shadow", entity=Entity("client", ["customer_id"]))
    receipt = FeatureStore().entities.erase("customer", {"customer_id": 1})
    assert receipt.beside == ("shop/items", "shop/shadow")
    assert "nothing was erased from shop/items, shop/shadow" in str(receipt)
    told = json.loads(seeknal("erase", "--entity", "customer", "customer_id=2", "--yes", "--format", "json").stdout)
    assert told["not_erased_from"] == ["shop/items", "shop/shadow"]


def test_a_write_that_brings_an_erased_entity_back_gives_notice():
    spend = keyed("spend")
    FeatureStore().groups.erase("spend", {"customer_id": 1})
    frame = pa.table({"customer_id": [1, 2], "at": [NOON] * 2, "spend": [10, 20]})
    with pytest.warns(SeeknalWarning, match="1 row of erased entities, dated at or before the erasure, stored again"):
        write(spend, frame, mode="merge")


def test_an_entity_whose_key_python_has_no_value_for_is_erased_from_all_groups_and_verified():
    far = pa.array([10_000_000, 1], pa.int32()).cast(pa.date32())  # a day in the year 29349
    store, entity = FeatureStore(), Entity("day", ["day"])
    for name in ("first", "second"):
        table = pa.table({"day": far, "at": [NOON, NOON], "x": [1, 2]})
        store.groups.write(FeatureGroup(name, entity, Materialization("at")), table)
    store.tables.serve([FeatureLookup("second")], "second")
    later = pa.table({"day": far, "at": [NOON + HOUR] * 2, "x": far})
    store.groups.write(FeatureGroup("far", entity, Materialization("at")), later)
    store.tables.serve([FeatureLookup("far")], "far")
    store.groups.write(FeatureGroup("far", entity, Materialization("at")), later.set_column(2, "x", far[::-1]))
    found = store.tables.verify("far")
    assert [(one.keys, one.online) for one in found.differences] == [
        ({"day": "1970-01-02"}, date(1970, 1, 2)),
        ({"day": "29349-01-26"}, "29349-01-26"),
    ]
    receipt = store.entities.erase("day", {"day": far[0]})
    assert [(one.group, one.keys, one.rows) for one in receipt.groups] == [
        (f"default/{name}", {"day": "29349-01-26"}, 1) for name in ("far", "first", "second")
    ]
    assert store.tables.verify("second").equal
