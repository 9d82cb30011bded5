"""The endpoint for pushes."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

import msgspec

from seeknal.define.schema import Schema
from seeknal.registry import GroupRecord
from seeknal.server import forms
from seeknal.server.bodies import Decoder, check_count, read_arrow
from seeknal.server.http import ARROW, JSON, TEXTUAL, Request, Response
from seeknal.server.service import Service


class Rows(msgspec.Struct, forbid_unknown_fields=True):
    """Rows to push to a group; see `FeatureStore.push`."""

    rows: list[dict[str, Any]]


_decode = Decoder(Rows, '{"rows": [{"NAME": ...}]}')
_json = msgspec.json.Encoder().encode


async def post(service: Service, request: Request) -> Response:
    """Store rows, and load them online."""
    kind = request.kind
    request.refuse_query()
    body = await request.body()
    record = await service.elsewhere(request, service.definitions.group, request.names[-1], request)
    rows = read_arrow(body, service.limits.keys) if kind == ARROW else _decode(body, kind).rows
    check_count(len(rows), service.limits.keys)
    request.keys = len(rows)
    with await service.pushes.place(request):
        pushed = await service.pushes.run(_push, service, record, rows, kind)
    return Response(HTTPStatus.OK, _json(pushed))


def _push(service: Service, record: GroupRecord, rows: Any, kind: str) -> dict[str, Any]:
    if kind in TEXTUAL:
        rows = _read(rows, service.store.groups.version(record.name, project=record.project).schema, text=kind == JSON)
    pushed = asdict(service.store.groups.push(record.name, rows, project=record.project))
    return pushed | {"first": None if pushed["first"] is None else forms.moment_text(pushed["first"])}


def _read(rows: list[dict[str, Any]], schema: Schema, *, text: bool) -> list[dict[str, Any]]:
    """Return the rows with decoded keys and features; the library itself reads event and created times as text."""
    fields = [*schema.keys, *schema.features]
    readers = {field.name: read for field in fields if (read := forms.reads(field.type, text=text))}
    return [
        {
            name: readers[name](name, value) if name in readers and value is not None else value
            for name, value in row.items()
        }
        for row in rows
    ]
