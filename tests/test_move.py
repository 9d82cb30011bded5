"""Moving a home to shared services: the same answers afterwards, whatever interrupts it, and never two places that are written."""

from __future__ import annotations

import json
import signal
from contextlib import nullcontext
from pathlib import Path

import obstore
import pytest

from contract.world import HOUR, NOON, group, history, python, rows, seen, write
from faults import Proxy
from seeknal import (
    DefinitionError,
    Entity,
    FeatureLookup,
    FeatureStore,
    Materialization,
    StoreError,
    TrainingSet,
    config,
)
from seeknal.define.feature_group import FeatureGroup
from seeknal.home.migration import migrate_registry
from seeknal.home.move import move
from seeknal.join.inquiry import Inquiry
from seeknal.registry import open_registry
from seeknal.registry.sql.copying import content_of
from seeknal.system.storage import Address

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]
LATER = NOON + 20 * HOUR


@pytest.fixture
def full(home: Path, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A home with several snapshots and versions, an erasure, online rows in Redis, and a training set whose rows are kept."""
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", valkey_url)
    store = FeatureStore(home)
    write(group(), rows(1, 2))
    write(group(), rows(3, extra=["a"], times=[NOON + 9 * HOUR]), mode="append")
    write(group(), rows(4, user=2, extra=["b"]), mode="merge")
    write(group("other"), rows(7))
    store.groups.erase("spend", {"user_id": 2})
    store.tables.serve([FeatureLookup("spend", features=["x"])], "serving")
    store.training_sets.save("kept", Inquiry([FeatureLookup("shop/spend")]), keep_rows=True)
    return store


def apply(monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...]) -> None:
    """Set what a move printed, as `seeknal.toml` would."""
    for line in lines:
        name, value = line.split(" = ")
        monkeypatch.setenv(f"SEEKNAL_{name.upper()}", json.loads(value))


def answers(home: Path) -> list[object]:
    """Return what a store answers, offline, saved and online."""
    store = FeatureStore(home)
    kept = TrainingSet.load("kept")
    table = store.tables.open("serving")
    found = [
        history("shop/spend").to_pylist(),
        history("shop/other").to_pylist(),
        history("shop/spend", as_of=2).to_pylist(),
        kept.reproduce("arrow").to_pylist(),
        kept.to_dataframe("arrow").to_pylist(),
        kept.content_hash,
        table.get_features([{"user_id": 1}]).to_dict("list"),
        [one.label for one in store.groups.all()],
    ]
    store.close()
    return found


ORDERS = {
    "both at once": [("storage", "registry")],
    "the storage first": [("storage",), ("registry",)],
    "the registry first": [("registry",), ("storage",)],
}


@pytest.mark.parametrize("order", ORDERS)
def test_a_moved_home_answers_as_before_and_goes_on(full, home, s3, postgres_url, order, monkeypatch):
    before = answers(home)
    targets = {"storage": s3, "registry": postgres_url}
    for names in ORDERS[order]:
        done = move(config.load(), **{name: targets[name] for name in names})
        apply(monkeypatch, done.settings)
        assert answers(home) == before
    assert full.settings.storage is None
    write(group(), rows(9, extra=["c"], times=[LATER]), mode="append")
    FeatureStore().tables.refresh(["serving"])  # over rows that the home loaded before it was moved
    assert seen(group(), LATER) == [9]
    assert FeatureStore().tables.open("serving").get_features([{"user_id": 1}])["x"].tolist() == [9]
    again = FeatureStore(home.with_name("elsewhere"))  # another machine, with the same settings
    assert [one.label for one in again.groups.all()] == ["shop/other", "shop/spend"]
    assert again.groups.sample("spend", limit=9)["x"].to_pylist().count(9) == 1
    again.tables.refresh(["serving"], full=True)


def plain(name: str) -> FeatureGroup:
    """Define a group for the calls of a store."""
    return FeatureGroup(name, Entity(f"{name}_entity", ["user_id"]), Materialization("at"), "shop")


CALLS = {
    "append": lambda store: store.groups.write(plain("spend"), rows(5, extra=["z"], times=[LATER]), mode="append"),
    "a new group": lambda store: store.groups.write(plain("fresh"), rows(5)),
    "push": lambda store: store.groups.push("other", {"user_id": 1, "at": LATER, "x": 5}),
    "load": lambda store: store.groups.load("other"),
    "serve": lambda store: store.tables.serve([FeatureLookup("other", features=["x"])], "late"),
    "save": lambda store: store.training_sets.save("late", Inquiry([FeatureLookup("shop/other")])),
    "erase": lambda store: store.groups.erase("other", {"user_id": 1}),
    "optimize": lambda store: store.groups.optimize("spend", keep_days=0),
    "rollback": lambda store: store.groups.rollback("spend", 1),
    "delete": lambda store: store.groups.delete("other"),
    "delete a training set": lambda store: store.training_sets.delete(store.training_sets.get("kept")),
    "a token": lambda store: store.tokens.create("late", "shop", ["read"]),
    "history": lambda store: store.groups.sample("other", limit=5),
}
OF_THE_REGISTRY = {"a token", "delete a training set"}
"""What the registry alone does, which stays in use if only the tables were moved."""


@pytest.mark.parametrize("names", [("storage", "registry"), ("storage",), ("registry",)], ids=" and ".join)
def test_a_process_that_was_open_changes_nothing_any_more_and_says_why(
    full, home, s3, postgres_url, names, monkeypatch
):
    table = full.tables.open("serving")
    assert table.get_features([{"user_id": 1}])["x"].tolist() == [3]
    full.groups.sample("other", limit=5)
    done = move(config.load(), **{name: {"storage": s3, "registry": postgres_url}[name] for name in names})
    files, content = listing(home), open_registry_of(done).take(content_of)
    for name, call in CALLS.items():
        if name in OF_THE_REGISTRY and "registry" not in names:
            continue
        with pytest.raises(StoreError, match="was moved"):
            call(full)
    assert table.get_features([{"user_id": 1}])["x"].tolist() == [3]
    assert listing(home) == files
    assert open_registry_of(done).take(content_of) == content
    with pytest.raises(
        StoreError, match=r"was moved\. Write into seeknal\.toml, and begin anew: (storage|registry) = "
    ):
        FeatureStore(home).groups.all()
    assert (
        move(config.load(), **{name: {"storage": s3, "registry": postgres_url}[name] for name in names}).settings
        == done.settings
    )
    apply(monkeypatch, done.settings)
    assert sorted(one.label for one in FeatureStore().groups.all()) == ["shop/other", "shop/spend"]


def listing(home: Path) -> dict[str, int]:
    """Return the files of tables and training sets in a home, with their sizes."""
    folders = [home / name for name in ("offline", "datasets", "moved")]
    return {
        str(path): path.stat().st_size for folder in folders for path in folder.rglob("*") if path.suffix != ".lock"
    }


def open_registry_of(done) -> object:
    """Open the registry of a home that was moved."""
    named = dict(line.split(" = ") for line in done.settings)
    values = {name: json.loads(value) for name, value in named.items()}
    return open_registry(Address(done.home, values.get("storage"), values.get("registry")))


KILLED = """
import os, signal, sys
from seeknal import config
from seeknal.home.migration import migrate_registry
from seeknal.home.move import move
storage, registry, mark, number = sys.argv[1:]
home, left = os.environ["SEEKNAL_HOME"], int(number)
def watch(event, arguments):
    global left
    place = {"os.rename": 1, "open": 0}.get(event)
    if place is None or not isinstance(arguments[place], str | os.PathLike) or (event == "open" and arguments[1] not in {"a", "ab", "w"}):
        return
    if f"{event} {os.path.relpath(arguments[place], home)}" == mark:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
move(config.load(), storage=storage, registry=registry)
"""
POINTS = [
    ("open moving.jsonl", 6, "some files were copied"),
    ("os.rename moved.json", 1, "all was copied"),
    ("os.rename moved/offline", 1, "the move was noted"),
    ("os.rename moved/datasets", 1, "nothing can create tables again"),
    ("os.rename storage.json", 1, "the object store was opened"),
    ("os.rename moved.json", 1, "all was opened"),
]
"""What a move is about to do when it is killed, for which time, and what was done before."""


def test_a_move_that_is_killed_at_any_step_is_completed_by_the_next_run(full, home, s3, postgres_url, monkeypatch):
    before = answers(home)
    targets = {"storage": s3, "registry": postgres_url}
    last = POINTS[-1][2]
    for mark, number, done in POINTS:
        with python(KILLED, *targets.values(), mark, str(number)) as process:
            assert process.wait() == -signal.SIGKILL, (done, process.stderr.read())
        if (home / "moved.json").exists():
            with pytest.raises(
                StoreError, match=r"being moved.* Run: seeknal move --storage s3://\S+ --registry postgresql://"
            ):
                FeatureStore(home)
        else:  # nobody was told of a new place, and the old one is as it was
            assert answers(home) == before
        with pytest.raises(StoreError, match="being moved to") if done != last else nullcontext():
            FeatureStore(home.with_name("early"), **targets).groups.all()
    result = move(config.load(), **targets)
    apply(monkeypatch, result.settings)
    assert answers(home) == before
    assert not (home / "moving.jsonl").exists()


def test_what_was_written_after_a_move_was_killed_is_moved_by_the_next_run(full, home, s3, postgres_url, monkeypatch):
    targets = {"storage": s3, "registry": postgres_url}
    with python(KILLED, *targets.values(), "os.rename moved.json", "1") as process:
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
    write(group(), rows(9, extra=["c"], times=[LATER]), mode="append")
    full.groups.delete("other")
    write(group("other"), rows(8))
    full.training_sets.delete(full.training_sets.get("kept"))
    full.training_sets.save("kept", Inquiry([FeatureLookup("shop/other")]))
    before = answers(home)
    apply(monkeypatch, move(config.load(), **targets).settings)
    assert answers(home) == before
    assert seen(group("other"), NOON) == [8]
    store = FeatureStore().core.storage.store
    folders = {key.rsplit("/", 2)[0] for key in store.client.under("tables") if "/_delta_log/" in key}
    assert len(folders) == 2  # nothing of the deleted table
    assert len(store.client.under("datasets")) == 0  # a history has no spine, and its rows were not kept


def test_a_registry_that_is_migrated_alone_takes_its_tables_in_an_object_store_along(
    home, s3, postgres_url, monkeypatch
):
    monkeypatch.setenv("SEEKNAL_STORAGE", s3)
    write(group(), rows(1, 2))
    migrate_registry(str(home), postgres_url)
    with pytest.raises(StoreError, match="belongs to a store whose registry is in a database"):
        FeatureStore(home).groups.sample("spend", limit=1)
    monkeypatch.setenv("SEEKNAL_REGISTRY", postgres_url)
    write(group(), rows(3, times=[LATER]), mode="append")
    assert seen(group(), LATER) == [3]
    copied = f"{postgres_url}_copy"
    migrate_registry(postgres_url, copied, storage=s3)
    monkeypatch.setenv("SEEKNAL_REGISTRY", copied)
    assert seen(group(), LATER) == [3]
    monkeypatch.delenv("SEEKNAL_REGISTRY")
    (home / "registry.db").unlink()
    migrate_registry(copied, str(home))
    assert seen(group(), LATER) == [3]
    with pytest.raises(StoreError, match="belongs to another home"):
        FeatureStore(home, registry=copied).groups.sample("spend", limit=1)


def test_a_moved_registry_can_be_brought_back_to_a_file(full, home, postgres_url, monkeypatch):
    before = answers(home)
    apply(monkeypatch, move(config.load(), registry=postgres_url).settings)
    migrate_registry(postgres_url, str(home))
    monkeypatch.delenv("SEEKNAL_REGISTRY")
    assert answers(home) == before
    write(group(), rows(9, extra=["c"], times=[LATER]), mode="append")
    assert seen(group(), LATER) == [9]


def test_a_place_that_returns_other_bytes_than_were_written_ends_the_move_and_changes_nothing(
    full, home, s3, seaweed, monkeypatch
):
    before, direct = answers(home), seaweed.client(s3.removeprefix("s3://"))

    def spoil() -> None:
        for one in (one for some in obstore.list(direct) for one in some if one["path"].endswith(".parquet")):
            obstore.put(direct, one["path"], b"0" * one["size"])

    with Proxy(seaweed.port).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.fail("GET", r"\.parquet", spoil)
        with pytest.raises(StoreError, match=r"is missing, or is not what was written there\..* The home is as it was"):
            move(config.load(), storage=s3)
        assert answers(home) == before
        apply(monkeypatch, move(config.load(), storage=s3).settings)
        assert answers(home) == before


def test_a_place_or_a_registry_of_others_is_refused_before_anything_is_copied(full, home, s3, postgres_url, tmp_path):
    other = FeatureStore(tmp_path / "other", storage=s3, registry=postgres_url)
    other.groups.write(plain("theirs"), rows(1))
    with pytest.raises(DefinitionError, match=r"belongs to another home\. Choose another prefix"):
        move(config.load(), storage=s3)
    with pytest.raises(StoreError, match="is that of another home"):
        move(config.load(), storage=f"{s3}/free", registry=postgres_url)
    other.core.storage.store.client.delete(["seeknal.json"])
    with pytest.raises(DefinitionError, match="has objects that are not of a move"):
        move(config.load(), storage=s3)
    with pytest.raises(DefinitionError, match="Say where to: --storage"):
        move(config.load())
    assert not (home / "moving.jsonl").exists()
    assert [one.label for one in full.groups.all()] == ["shop/other", "shop/spend"]
