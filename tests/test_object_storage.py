"""Tables in an object store: what a place must be able to do, faults of the network and the server, and several machines at once."""

import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import obstore
import pytest

from contract.world import HOUR, NOON, group, history, rows, seen, write, written
from faults import Proxy
from seeknal import Client, DefinitionError, FeatureLookup, FeatureStore, StoreError, config
from seeknal.home.doctor import examine
from seeknal.offline.commit import commit_files
from seeknal.system.object_url import storage_of
from servers import SeaweedFS, Server

pytestmark = pytest.mark.slow


@pytest.fixture
def place(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own, in which the tables of the test lie."""
    monkeypatch.setenv("SEEKNAL_STORAGE", s3)
    return s3


@pytest.fixture
def proxy(seaweed: SeaweedFS, place: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy through which the place is reached."""
    with Proxy(seaweed.port).running() as found:
        for name, value in seaweed.env_of(found.url).items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SeaweedFS]:
    """A server that the test may kill."""
    server = SeaweedFS(tmp_path / "server").start()
    monkeypatch.setenv("SEEKNAL_STORAGE", "s3://tests/own")
    yield server
    server.stop()


class Restarted:
    """Kills a server, and starts it again while its clients wait for it.

    Args:
        server: The server.
    """

    def __init__(self, server: SeaweedFS):
        self._server = server
        self._start: threading.Thread | None = None

    def cut(self) -> None:
        self.join()
        self._server.kill()
        self._start = threading.Thread(target=self._server.start)
        self._start.start()

    def join(self) -> None:
        if self._start:
            self._start.join()


@pytest.fixture
def restarted(own_server: SeaweedFS) -> Iterator[Restarted]:
    """Restarts of the test's own server."""
    found = Restarted(own_server)
    yield found
    found.join()


def copies(home: Path) -> list[Path]:
    """Return the local copies that a home keeps."""
    return [
        path
        for path in home.glob("scratch/objects/*/*")
        if path.is_file() and path.suffix != ".json" and not path.name.startswith("_")
    ]


def forget_copies(home: Path) -> None:
    """Remove all local copies, as on another machine."""
    for path in home.glob("scratch/objects/*/*"):
        if path.is_file():
            path.unlink()


# What a place must be able to do


def test_a_server_that_ignores_conditions_is_refused_before_anything_is_stored(proxy):
    proxy.fail("PUT", "_probe", "accepted", times=9)
    with pytest.raises(StoreError, match=r"wrote an object that existed.* Use a server that keeps conditional writes"):
        written(rows(1))
    assert proxy.faults_made == 2  # both writes of the probe went through
    assert not [path for method, path in proxy.requests if method == "PUT" and "_probe" not in path]


def test_doctor_finds_a_server_that_began_to_ignore_conditions(proxy):
    written(rows(1))
    (fine,) = [one for one in examine(FeatureStore()) if one.what == "storage"]
    proxy.fail("PUT", "_probe", "accepted", times=9)
    (found,) = examine(FeatureStore())
    assert (fine.fine, found.what, found.fine) == (True, "storage", False)
    assert "two writers at once would lose rows" in found.found.lower()


def test_another_server_behind_the_same_url_is_tried_before_it_is_used(place, seaweed, monkeypatch):
    written(rows(1))
    with Proxy(seaweed.port).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.fail("PUT", "_probe", "accepted", times=9)
        with pytest.raises(StoreError, match="wrote an object that existed"):
            FeatureStore().core.catalog.offline("shop", "spend").newest()


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("PUT", "", "cannot be written"),
        ("GET", "list-type", "cannot be listed"),
        ("GET", "seeknal.json", "cannot be read"),
    ],
)
def test_a_place_that_may_not_be_used_is_named_with_what_is_wrong(proxy, place, method, path, message):
    proxy.fail(method, path, "forbidden", times=99)
    with pytest.raises(StoreError, match=f"{place} {message}") as raised:
        written(rows(1))
    assert SeaweedFS.secret not in str(raised.value)


def test_the_tables_of_a_home_are_not_looked_for_elsewhere(place, monkeypatch, s3, tmp_path):
    written(rows(1))
    for other, message in (
        ("", f"lie in {place}. Set storage"),
        (f"{s3}/other", f"lie in {place}, and not in {s3}/other"),
    ):
        monkeypatch.setenv("SEEKNAL_STORAGE", other)
        with pytest.raises(StoreError, match=message):
            history(group())
    monkeypatch.setenv("SEEKNAL_STORAGE", place)
    with pytest.raises(StoreError, match="belongs to another home"):
        FeatureStore(tmp_path / "other").groups.write(group().definition, rows(2))
    assert seen(group(), NOON) == [1]


def test_a_home_with_tables_in_its_folder_does_not_look_for_them_in_a_store(s3, monkeypatch):
    written(rows(1))
    monkeypatch.setenv("SEEKNAL_STORAGE", s3)
    with pytest.raises(StoreError, match="lie in its folder, and not in"):
        history(group())


def test_a_bucket_that_was_emptied_is_not_taken_for_a_new_one(place, seaweed):
    written(rows(1))
    client = seaweed.client(place.removeprefix("s3://"))
    obstore.delete(client, "seeknal.json")
    with pytest.raises(StoreError, match="is not the place that it was"):
        FeatureStore().core.catalog.offline("shop", "spend").newest()
    assert "shop/spend" in [one.label for one in FeatureStore().groups.all()]


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hidden@bucket/x",
        "s3://hidden@bucket",
        "s3://bucket/x?secret=hidden",
        "s3://bucket#hidden",
        "http://hidden",
        "hidden/x",
        "s3://",
    ],
)
def test_a_url_that_could_hold_a_secret_is_refused_without_showing_it(url):
    with pytest.raises(DefinitionError, match="SEEKNAL_STORAGE sets storage") as raised:
        storage_of(url, "SEEKNAL_STORAGE")
    assert "hidden" not in str(raised.value)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    monkeypatch.setenv("SEEKNAL_STORAGE", "gs://bucket/x")
    with pytest.raises(DefinitionError, match=r"gs://bucket/x need the extra 'gcs'.*pip install"):
        written(rows(1))


def test_a_size_of_the_cache_is_read_as_text(monkeypatch):
    monkeypatch.setenv("SEEKNAL_CACHE_SIZE", "1.5GB")
    assert config.load().cache_size == 1_500_000_000
    monkeypatch.setenv("SEEKNAL_CACHE_SIZE", "much")
    with pytest.raises(DefinitionError, match="sets cache_size to 'much'"):
        config.load()


# Faults


def test_a_commit_whose_answer_was_lost_is_recognised_as_ones_own(proxy, recwarn):
    fg = written(rows(1))
    proxy.fail("PUT", r"_delta_log/0+2\.json", "lost")
    assert write(fg, rows(2, times=[NOON + HOUR]), mode="append").snapshot == 2
    assert proxy.faults_made == 1
    assert history(fg)["x"].to_pylist() == [1, 2]


def test_a_lost_race_whose_answer_was_lost_too_is_a_race_lost(proxy):
    fg, store = written(rows(1)), FeatureStore()
    offline = store.core.catalog.offline("shop", "spend")
    base = offline.snapshot()
    write(fg, rows(2, user=2), mode="append")
    proxy.fail("PUT", r"_delta_log/0+2\.json", "lost")
    write(fg, rows(3, user=3), mode="append")
    assert base.number == 1
    assert sorted(history(fg)["x"].to_pylist()) == [1, 2, 3]


def test_answers_of_an_overloaded_server_are_waited_for(proxy, home):
    fg = written(rows(1))
    for method in ("GET", "PUT", "HEAD"):
        proxy.fail(method, "", "busy", times=2)
    write(fg, rows(2, times=[NOON + HOUR]), mode="append")
    forget_copies(home)
    for method in ("GET", "HEAD"):
        proxy.fail(method, "", "busy", times=2)
    assert history(fg)["x"].to_pylist() == [1, 2]
    assert proxy.faults_made == 10


def test_an_answer_that_breaks_off_is_read_again(proxy, home):
    fg = written(rows(*range(1000)))
    forget_copies(home)
    proxy.fail("GET", r"\.parquet", "broken", times=2)
    proxy.fail("GET", r"_delta_log/0+1\.json", "broken", times=1)
    assert history(fg)["x"].to_pylist() == list(range(1000))
    assert proxy.faults_made >= 2


def test_a_file_that_always_breaks_off_is_an_error_and_never_fewer_rows(proxy, home, monkeypatch):
    monkeypatch.setattr("seeknal.system.object_client._PATIENCE", timedelta(seconds=2))
    fg = written(rows(*range(1000)))
    forget_copies(home)
    proxy.fail("GET", r"\.parquet", "broken", times=999)
    with pytest.raises(StoreError, match="could not be read"):
        history(fg)
    assert not [
        path for path in copies(home) if path.stat().st_size and list(home.glob(f"scratch/objects/*/{path.stem}.json"))
    ]


def test_a_server_that_is_killed_in_mid_write_loses_and_doubles_nothing(own_server, restarted, monkeypatch):
    with Proxy(own_server.port).running() as proxy:
        for name, value in own_server.env_of(proxy.url).items():
            monkeypatch.setenv(name, value)
        fg = written(rows(0))

        for number, path in enumerate((r"\.parquet", r"_delta_log/0+3\.json"), 1):
            proxy.fail("PUT", path, restarted.cut)
            assert write(fg, rows(number, times=[NOON + number * HOUR]), mode="append").snapshot == number + 1
        assert proxy.faults_made == 2
        assert history(fg)["x"].to_pylist() == [0, 1, 2]


def test_a_server_that_is_killed_in_mid_read_delays_the_answer(own_server, restarted, monkeypatch, home):
    with Proxy(own_server.port).running() as proxy:
        for name, value in own_server.env_of(proxy.url).items():
            monkeypatch.setenv(name, value)
        fg = written(rows(*range(1000)))
        forget_copies(home)

        proxy.fail("GET", r"\.parquet", restarted.cut)
        assert history(fg)["x"].to_pylist() == list(range(1000))
        assert proxy.faults_made == 1


def test_a_store_that_stays_away_is_an_error_that_says_what_is_not_known(own_server, monkeypatch):
    for name, value in own_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("seeknal.system.object_client._PATIENCE", timedelta(seconds=1))
    fg = written(rows(0))
    real = commit_files

    def overtaken(*arguments):
        own_server.kill()
        return real(*arguments)

    monkeypatch.setattr("seeknal.offline.table.commit_files", overtaken)
    with pytest.raises(StoreError) as raised:
        write(fg, rows(1, times=[NOON + HOUR]), mode="append")
    assert SeaweedFS.secret not in str(raised.value)
    monkeypatch.setattr("seeknal.offline.table.commit_files", real)
    own_server.start()
    write(fg, rows(1, times=[NOON + HOUR]), mode="append")
    assert history(fg)["x"].to_pylist() == [0, 1]


def test_a_server_with_workers_looks_up_and_takes_pushes_of_a_table_in_a_store(place, home):
    fg = written(rows(1), online=True)
    FeatureStore().tables.serve([FeatureLookup(fg)], "spend")
    server = Server(home, "--workers", "2").start()
    try:
        with Client(server.url) as client:
            assert client.get_features("spend", [{"user_id": 1}], "dicts")[0]["x"] == 1
            client.push("spend", {"user_id": 1, "at": NOON + HOUR, "x": 2})
            assert client.get_features("spend", [{"user_id": 1}], "dicts")[0]["x"] == 2
    finally:
        assert server.stop() == 0
    assert history(fg)["x"].to_pylist() == [1, 2]


def test_two_homes_with_one_registry_share_the_tables_in_a_store(place, postgres_url, tmp_path):
    first, second = (FeatureStore(tmp_path / name, registry=postgres_url) for name in ("one", "two"))
    for number, store in enumerate((first, second, first, second)):
        store.groups.write(group().definition, rows(number, times=[NOON + number * HOUR]), mode="append")
    for store in (first, second):
        assert store.features.history([FeatureLookup("spend")], output="arrow")["x"].to_pylist() == [0, 1, 2, 3]
    second.groups.delete("spend")
    assert first.groups.all() == []
