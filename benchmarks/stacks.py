"""Time web servers and frameworks at one job: return rows by key as JSON from LMDB, with as little code as each allows.

    pip install uvicorn uvloop httptools granian starlette falcon blacksheep
    python benchmarks/stacks.py [--rounds 3] [--seconds 3] [STACK...]

Needs `wrk` (a Debian package). One worker, 8 connections, alternating rounds; medians. Each stack's response is checked
before it is timed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import Any

import lmdb
import msgspec
from load import Load, free_port, wait_for, wrk

ROWS = 100_000
NAMES = ["share_0", "share_1", "share_2", "share_3", "share_4", "count_0", "count_1", "count_2", "word_0", "word_1"]
UVICORN = "uvicorn", "--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"
GRANIAN = "granian", "--no-log", "--workers", "1", "--loop", "uvloop"
STACKS = {
    "uvicorn, ASGI alone": [*UVICORN, "stacks:bare_asgi"],
    "uvicorn, Starlette's routes, ASGI endpoints": [*UVICORN, "stacks:starlette_routes", "--factory"],
    "uvicorn, Starlette": [*UVICORN, "stacks:starlette_app", "--factory"],
    "uvicorn, Falcon": [*UVICORN, "stacks:falcon_app", "--factory"],
    "uvicorn, BlackSheep": [*UVICORN, "stacks:blacksheep_app", "--factory"],
    "granian, RSGI alone": [*GRANIAN, "--interface", "rsgi", "stacks:bare_rsgi"],
    "granian, ASGI alone": [*GRANIAN, "--interface", "asginl", "stacks:bare_asgi"],
}

decode, encode = msgspec.json.decode, msgspec.json.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode


def fill(folder: str) -> None:
    """Write rows of ten features to the store."""
    with lmdb.open(folder, map_size=2**30) as environment, environment.begin(write=True) as transaction:
        for i in range(ROWS):
            row = [i / 7, i / 11, i / 13, i / 17, i / 19, i, i * 3, i * 5, f"word{i % 1000}", f"text{i % 777}"]
            transaction.put(i.to_bytes(8, "big"), msgspec.msgpack.encode(row), append=True)


def answer(body: bytes) -> bytes:
    """Answer one request."""
    global _environment  # noqa: PLW0603 - opened in the worker
    if _environment is None:
        _environment = lmdb.open(os.environ["STACKS_FOLDER"], readonly=True)
    keys = [key["person_id"] for key in decode(body)["keys"]]
    with _environment.begin() as transaction:
        found = [transaction.get(key.to_bytes(8, "big")) for key in keys]
    pairs = zip(keys, found, strict=True)
    return encode({"rows": [{"person_id": key, **dict(zip(NAMES, unpack(row), strict=True))} for key, row in pairs]})


_environment: Any = None
JSON = [(b"content-type", b"application/json")]


async def bare_asgi(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
    """Answer over plain ASGI."""
    if scope["type"] != "http":
        raise NotImplementedError
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body"):
            break
    text = answer(body)
    headers = [*JSON, (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def bare_rsgi(_scope: Any, protocol: Any) -> None:
    """Answer over plain RSGI."""
    protocol.response_bytes(200, [("content-type", "application/json")], answer(await protocol()))


def starlette_routes() -> Any:
    """Use only Starlette's router."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    class Endpoint:
        """An ASGI application, which Starlette calls as it is, because it is not a function."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await bare_asgi(scope, receive, send)

    return Starlette(routes=[Route("/v1/online/{project}/{table}", Endpoint(), methods=["POST"])])


def starlette_app() -> Any:
    """Use Starlette's requests and responses."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def endpoint(request: Request) -> Response:
        return Response(answer(await request.body()), media_type="application/json")

    return Starlette(routes=[Route("/v1/online/{project}/{table}", endpoint, methods=["POST"])])


def falcon_app() -> Any:
    """Use Falcon's requests and responses."""
    import falcon.asgi

    class Endpoint:
        async def on_post(self, request: Any, response: Any, **_names: str) -> None:
            response.data = answer(await request.stream.read())
            response.content_type = "application/json"

    app = falcon.asgi.App()
    app.add_route("/v1/online/{project}/{table}", Endpoint())
    return app


def blacksheep_app() -> Any:
    """Use BlackSheep's requests and responses."""
    from blacksheep import Application, Content, Response

    app = Application()

    async def endpoint(request):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - it evaluates annotations
        return Response(200, content=Content(b"application/json", answer(await request.read())))

    app.router.add_post("/v1/online/{project}/{table}", endpoint)
    return app


def measure(command: list[str], seconds: int) -> list[Load]:
    """Start a stack, and load it with one key and with a hundred keys per request."""
    port = free_port()
    here = Path(__file__).parent
    server = subprocess.Popen(
        [sys.executable, "-m", *command, "--port", str(port)],
        cwd=here,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}/v1/online/bench/people"
    try:
        wait_for(url)
        return [wrk(url, count, ROWS, seconds) for count in (1, 100)]
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stacks", nargs="*", metavar="STACK", help=", ".join(STACKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    args = parser.parse_args()
    chosen = args.stacks or list(STACKS)
    runs: dict[str, list[list[Load]]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STACKS_FOLDER"] = folder
        fill(folder)
        for number in range(args.rounds):
            for name in chosen:
                runs[name].append(measure(STACKS[name], args.seconds))
                print(f"round {number + 1}, {name}: {runs[name][-1]}", file=sys.stderr)
    print("| stack | 1 key: requests/s, p99 ms | 100 keys: requests/s, p99 ms |\n|---|--:|--:|")
    for name, loads in runs.items():
        cells = [
            f"{median(one[i].rate for one in loads):,.0f}, {median(one[i].p99 for one in loads):.1f}" for i in (0, 1)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
