"""The endpoint for pushes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pyarrow as pa
from msgspec import Meta
from starlette.responses import Response

from seeknal.errors import StoreError, is_away
from seeknal.home.store import FeatureStore
from seeknal.registry import GroupRecord
from seeknal.server import forms
from seeknal.server.bodies import Decoder, check_count, read_arrow
from seeknal.server.http import ARROW, JSON, TEXTUAL, Reply, Request

if TYPE_CHECKING:
    from seeknal.server.service import Service
    from seeknal.write.push import Pushed


class Rows(msgspec.Struct, forbid_unknown_fields=True):
    """Rows of a group, or of an online table."""

    rows: Annotated[list[dict[str, Any]], Meta(description="One object per row: column to value.")]


class PushResult(msgspec.Struct):
    """The outcome of a push."""

    group: Annotated[str, Meta(description="Project and name of the group.")]
    version: int
    snapshot: Annotated[
        int | None,
        Meta(
            description="The newest snapshot, which contains the rows; null if they are in the push log, and in a snapshot soon."
        ),
    ]
    rows: Annotated[int, Meta(description="Rows that were stored.")]
    known: Annotated[int, Meta(description="Rows that were stored already, and were not stored again.")]
    erased: Annotated[
        int, Meta(description="Rows left out because they are dated at or before the erasure of their entity.")
    ]
    first: Annotated[str | None, Meta(description="Earliest event time of the rows that were not left out.")]
    online: Annotated[
        int | None, Meta(description="Entities of the version that are online now; null if the push loaded nothing.")
    ]


BODY = Decoder(Rows, '{"rows": [{"NAME": ...}]}')
_json = msgspec.json.Encoder().encode


async def post(service: Service, request: Request) -> Response:
    """Store rows in the current version of a group, and load them online."""
    kind = request.kind
    request.refuse_query()
    body = await request.body()
    record = service.definitions.known_group(request.names[-1], request)
    if record is None:
        record = await service.with_registry(request, service.definitions.group, request.names[-1], request)
    rows = read_arrow(body, service.limits.keys) if kind == ARROW else BODY(body, kind).rows
    check_count(len(rows), service.limits.keys)
    request.keys = len(rows)
    logged = await service.gathered.push(record, rows, kind, request) if kind in TEXTUAL else None
    if logged is not None:
        return Reply(_json(logged))
    with await service.pushes.place(request):
        pushed = await service.pushes.run(_push, service, record, rows, kind)
    return Reply(_json(pushed))


class Gathered:
    """Pushes that arrive while others are appended to the push log, and are appended together then.

    Args:
        store: The store.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._waiting: dict[GroupRecord, list[_Waiting]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._thread = ThreadPoolExecutor(1, "push-log")

    async def push(
        self, record: GroupRecord, rows: list[dict[str, Any]], kind: str, request: Request
    ) -> PushResult | None:
        """Append rows to the push log; return None if they have to be pushed by themselves."""
        if not rows:
            return None
        request.disable_deadline()
        waiting = _Waiting(rows, kind, asyncio.get_running_loop().create_future())
        if record in self._waiting:
            self._waiting[record].append(waiting)
        else:
            self._waiting[record] = [waiting]
            task = asyncio.create_task(self._append(record))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await waiting.result

    async def _append(self, record: GroupRecord) -> None:
        while every := self._waiting[record]:
            self._waiting[record] = []
            results: Sequence[PushResult | StoreError | None] = [None] * len(every)
            # Whatever fails here fails again for the rows that cause it, when they are pushed by themselves.
            with suppress(Exception):
                results = await asyncio.get_running_loop().run_in_executor(self._thread, self._together, record, every)
            for one, result in zip(every, results, strict=True):
                if one.result.done():  # the client has gone
                    continue
                if isinstance(result, StoreError):
                    one.result.set_exception(result)
                else:
                    one.result.set_result(result)
        del self._waiting[record]

    def _together(self, record: GroupRecord, every: Sequence[_Waiting]) -> Sequence[PushResult | StoreError | None]:
        groups = self._store.groups
        try:
            fields = groups.fields_to_push(record.name, project=record.project)
            rows = [_read(one.rows, fields, text=one.kind == JSON) for one in every]
            pushed = groups.push_together(record.name, rows, project=record.project)
        except StoreError as error:
            if not is_away(error):
                raise
            return [error] * len(every)  # each would wait for the registry again
        return [None] * len(every) if pushed is None else [_result(one) for one in pushed]

    def close(self) -> None:
        """Shut down the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclass
class _Waiting:
    """Rows that wait to be appended, and the future with their result."""

    rows: list[dict[str, Any]]
    kind: str
    result: asyncio.Future[PushResult | None]


def _push(service: Service, record: GroupRecord, rows: Any, kind: str) -> PushResult:
    if kind in TEXTUAL:
        fields = service.store.groups.fields_to_push(record.name, project=record.project)
        rows = _read(rows, fields, text=kind == JSON)
    return _result(service.store.groups.push(record.name, rows, project=record.project))


def _result(pushed: Pushed) -> PushResult:
    first = None if pushed.first is None else forms.moment_text(pushed.first)
    return PushResult(**asdict(pushed) | {"first": first})


def _read(rows: list[dict[str, Any]], fields: Sequence[pa.Field], *, text: bool) -> list[dict[str, Any]]:
    """Return the rows with decoded keys and features. Event and created times stay text, which the library parses itself."""
    readers = {field.name: read for field in fields if (read := forms.reads(field.type, text=text))}
    return [
        {
            name: readers[name](name, value) if name in readers and value is not None else value
            for name, value in row.items()
        }
        for row in rows
    ]
