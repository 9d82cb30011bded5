"""The ASGI application without a socket: what it does around every route, and around web pages that are mounted in it."""

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from starlette.responses import StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from seeknal import Entity, FeatureGroup, FeatureLookup, FeatureStore, Materialization
from seeknal.server import app
from seeknal.server.options import Options

Get = Callable[..., Awaitable[tuple[int, bytes]]]


@asynccontextmanager
async def started(home) -> AsyncIterator[Get]:
    """Start a worker, and give the function that gets the status and the body at a path."""
    worker, state = app.App(Options(access_log=False), FeatureStore(home).settings), {}
    orders, told = asyncio.Queue(), asyncio.Queue()
    living = asyncio.create_task(worker({"type": "lifespan", "state": state}, orders.get, told.put))
    await orders.put({"type": "lifespan.startup"})
    assert await told.get() == {"type": "lifespan.startup.complete"}

    async def get(path: str, **more: object) -> tuple[int, bytes]:
        sent = []

        received = asyncio.Queue()  # after the request nothing comes, as from a client that waits
        await received.put({"type": "http.request", "body": b"", "more_body": False})

        async def send(message: dict) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "state": {**state}}
        await worker(scope | more, received.get, send)
        return sent[0]["status"], b"".join(one["body"] for one in sent[1:])

    yield get
    await orders.put({"type": "lifespan.shutdown"})
    await living


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """Pages beside the API: files, and one that fails while it is sent."""
    (tmp_path / "style.css").write_text("body {}")

    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("the other half")

    async def breaks(_request) -> StreamingResponse:
        return StreamingResponse(half())

    pages = [Mount("/static", StaticFiles(directory=tmp_path)), Route("/breaks", breaks)]
    monkeypatch.setattr(app.ROUTER, "routes", [*app.ROUTER.routes, *pages])


def test_a_web_page_can_be_mounted_and_its_errors_are_problems(mounted, tmp_path):
    async def run() -> None:
        async with started(tmp_path / "home") as get:
            assert await get("/static/style.css") == (200, b"body {}")
            status, body = await get("/static/other.css")
            assert (status, json.loads(body)["title"]) == (404, "Not Found")
            assert (await get("/healthz")) == (200, b'{"status":"ok"}')

    asyncio.run(run())


def test_an_error_after_a_response_has_begun_ends_the_request_and_adds_nothing(mounted, tmp_path):
    async def run() -> None:
        async with started(tmp_path / "home") as get:
            with pytest.raises(ValueError, match="the other half"):
                await get("/breaks", asgi={"spec_version": "2.4"})

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/healthz\n", "/healthz/", "//healthz", "/v1/catalog\n"])
def test_a_path_that_only_resembles_a_route_has_nothing(path, tmp_path):
    async def run() -> None:
        async with started(tmp_path / "home") as get:
            status, body = await get(path)
            assert (status, "There is nothing at" in json.loads(body)["detail"]) == (404, True)

    asyncio.run(run())


@pytest.mark.parametrize(("path", "query"), [("/healthz", b""), ("/v1/online/shop/users", b"user_id=1")])
def test_an_answered_request_is_freed_without_the_garbage_collector(path, query, tmp_path, monkeypatch):
    store, known = FeatureStore(tmp_path / "home"), []
    group = FeatureGroup("users", Entity("user", ["user_id"]), Materialization(event_time_col="at"), "shop")
    store.groups.write(group, pa.table({"user_id": [1], "at": [datetime(2024, 1, 1, tzinfo=UTC)], "age": [40]}))
    store.tables.serve([FeatureLookup("shop/users")], "users")
    store.close()

    class Known(app.Request):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            known.append(weakref.ref(self))

    monkeypatch.setattr(app, "Request", Known)

    async def run() -> None:
        async with started(tmp_path / "home") as get:
            gc.disable()
            try:
                assert (await get(path, query_string=query))[0] == 200
                assert [one() for one in known] == [None]
            finally:
                gc.enable()

    asyncio.run(run())
