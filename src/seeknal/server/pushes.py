"""The endpoint for pushes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from msgspec import Meta
from starlette.responses import Response

from seeknal.registry import GroupRecord
from seeknal.server import forms
from seeknal.server.bodies import Decoder, check_count, read_arrow
from seeknal.server.http import ARROW, JSON, TEXTUAL, Reply, Request
from seeknal.server.service import Service


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
    record = await service.elsewhere(request, service.definitions.group, request.names[-1], request)
    rows = read_arrow(body, service.limits.keys) if kind == ARROW else BODY(body, kind).rows
    check_count(len(rows), service.limits.keys)
    request.keys = len(rows)
    with await service.pushes.place(request):
        pushed = await service.pushes.run(_push, service, record, rows, kind)
    return Reply(_json(pushed))


def _push(service: Service, record: GroupRecord, rows: Any, kind: str) -> PushResult:
    if kind in TEXTUAL:
        fields = service.store.groups.fields_to_push(record.name, project=record.project)
        rows = _read(rows, fields, text=kind == JSON)
    pushed = service.store.groups.push(record.name, rows, project=record.project)
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
