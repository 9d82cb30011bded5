"""What goes on while a service is away or a server ends; `scripts/kill_services.py` takes away real services under load."""

import asyncio
import signal
import threading
from contextlib import closing

import httpx2
import pytest

from contract.world import rows, written
from seeknal import FeatureLookup, FeatureStore, StoreError
from seeknal.server.http import Request
from seeknal.server.options import Limits
from seeknal.server.threads import Threads
from seeknal.system.postgres import sessions, watched
from servers import Postgres, Server, wait_for

pytestmark = pytest.mark.slow
LOOKUP = "/v1/online/shop/serving?user_id=1"


@pytest.fixture
def store(home):
    """A store with a served table."""
    written(rows(1))
    found = FeatureStore(home)
    found.tables.serve([FeatureLookup("spend")], "serving")
    return found


@pytest.fixture(scope="module")
def halting():
    """A PostgreSQL server of this module."""
    found = Postgres().start()
    yield found
    found.stop()


@pytest.fixture
def server(halting):
    """A PostgreSQL server that the test may halt."""
    yield halting
    halting.resume()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_is_asked_to_end_says_so_and_answers_until_it_is_asked_again(store, workers):
    with Server(store.home, "--workers", workers, "--drain", "600") as server:
        with httpx2.Client(base_url=server.url, timeout=60) as kept:
            assert "connection" not in kept.get(LOOKUP).headers
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: httpx2.get(server.url + "/readyz").status_code == 503)
            wait_for(lambda: kept.get("/healthz").headers.get("connection") == "close")
            assert [httpx2.get(server.url + LOOKUP).status_code for _ in range(20)] == [200] * 20
        assert server.stop() == 0


def test_what_a_killed_server_has_acknowledged_is_committed_by_the_next_one(store):
    record = store.groups.get("spend")
    day = iter(range(2, 28))

    def push(server: Server) -> None:
        row = {"user_id": 1, "at": f"2030-01-{next(day):02}T00:00:00Z", "x": 1}
        assert httpx2.post(f"{server.url}/v1/push/shop/spend", json={"rows": [row]}).is_success

    def is_left() -> bool:
        return store.core.catalog.pushes.has(record.stream)

    while not is_left():
        server = Server(store.home).start()
        push(server)  # which is committed at once, as it is the first
        push(server)
        server.process.kill()
        server.process.wait()
    with Server(store.home):
        wait_for(lambda: not is_left())


def test_a_table_is_opened_and_looked_up_while_the_stored_tables_are_away(store):
    tables = store.home / "offline"
    tables.rename(store.home / "away")
    with Server(store.home) as server:
        assert httpx2.get(server.url + LOOKUP).status_code == 200
    assert store.tables.open("serving").get_features([{"user_id": 1}], "dicts")[0]["x"] is not None
    (store.home / "away").rename(tables)
    assert store.tables.verify("serving").equal


def test_a_service_that_hangs_holds_up_no_request_that_does_not_need_it():
    go = threading.Event()

    async def run() -> None:
        threads = Threads()
        requests = [Request({"headers": [], "method": "GET", "path": "/"}, None, Limits()) for _ in range(101)]
        stuck = [asyncio.create_task(threads.run(one, "The registry", go.wait)) for one in requests[1:]]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(threads.run(requests[0], "The online store", lambda: 7), 60) == 7
        go.set()
        assert all(await asyncio.gather(*stuck))
        threads.close()

    asyncio.run(run())


def test_a_statement_fails_soon_if_the_server_hangs_but_waits_for_a_lock(server, monkeypatch):
    monkeypatch.setattr(watched, "_SILENCE", 0.3)
    url = server.url("a")
    with closing(sessions.connect(url, 60)) as one, closing(sessions.connect(url, 60)) as other:
        one.execute("SELECT pg_advisory_lock(7)")
        waiting = threading.Thread(target=other.execute, args=("SELECT pg_advisory_lock(7)",))
        waiting.start()
        waiting.join(2)
        assert waiting.is_alive()  # several times as long as a server may be silent that does not answer others either
        one.execute("SELECT pg_advisory_unlock(7)")
        waiting.join(60)
        assert not other.closed
        server.pause()
        with pytest.raises(watched.SilentError, match="has not answered"):
            other.execute("SELECT 1")
        assert other.closed


def test_a_call_to_a_registry_that_hangs_is_an_error_that_names_it(server, home, monkeypatch):
    monkeypatch.setattr(watched, "_SILENCE", 0.3)
    monkeypatch.setenv("SEEKNAL_REGISTRY", server.url("a", connect_timeout="3"))
    written(rows(1))
    store = FeatureStore(home)
    server.pause()
    with pytest.raises(StoreError, match=r"The registry at postgresql://.* was lost: it has not answered"):
        store.groups.all()
    server.resume()
    assert [one.label for one in store.groups.all()] == ["shop/spend"]
