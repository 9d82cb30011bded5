"""The endpoints for online features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from msgspec import Meta
from pyarrow import types as is_
from starlette.responses import Response

from seeknal.client.calls import KEYS
from seeknal.errors import DataError, NotOnlineError
from seeknal.names import did_you_mean
from seeknal.server import forms
from seeknal.server.bodies import Decoder, check_count, read_arrow
from seeknal.server.held import Held
from seeknal.server.http import ARROW, JSON, TEXTUAL, Reply, Request
from seeknal.server.service import Service
from seeknal.values import exact, frames


class OnlineRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The entities whose features are requested."""

    keys: Annotated[list[dict[str, Any]], Meta(description="One object per entity: join key to value.")]
    features: Annotated[list[str] | None, Meta(description="The features to return, in order; all by default.")] = None
    with_status: Annotated[
        bool,
        Meta(description="Add GROUP_status (found, not_found, expired) and GROUP_event_time for each group."),
    ] = False


_BOOLEAN, _WHOLE = re.compile("true|false"), re.compile("-?(0|[1-9][0-9]{0,19})")
BODY = Decoder(OnlineRequest, '{"keys": [{"NAME": ...}], "features": ["..."], "with_status": false}')
_json = msgspec.json.Encoder().encode
_msgpack = msgspec.msgpack.Encoder().encode


async def post(service: Service, request: Request) -> Response:
    """Return the newest features of several entities, one row for each, in order."""
    return await answer(service, request, await service.table(request))


async def answer(service: Service, request: Request, held: Held) -> Response:
    """Return the features that a body asks for from a table."""
    kind = request.kind
    body = await request.body()
    if kind == ARROW:
        asked = _options(request.query)
        keys: Any = read_arrow(body, service.limits.keys, list(held.key_kinds))
    else:
        request.refuse_query()
        asked = BODY(body, kind)
        keys = asked.keys
    request.keys = len(keys)
    check_count(request.keys, service.limits.keys)
    # Fast path: the most common request, to a store that does not block, needs neither a thread nor Arrow.
    if kind == request.accepts == JSON and asked.features is None and not asked.with_status and not held.waits:
        quick = held.quick(asked.keys)
        if quick is not None:
            request.reads = quick[1]
            return Reply(_json({"rows": quick[0]}))
    columns = held.table.columns(keys)
    if kind in TEXTUAL:
        kinds = held.key_kinds
        columns = {
            name: values
            if held.table.is_plain(name, values)
            else forms.read_column(name, values, kinds[name], text=kind == JSON)
            for name, values in columns.items()
        }
    return await _answer(service, request, held, asked, columns)


async def get(service: Service, request: Request) -> Response:
    """Return the newest features of one entity, whose join keys are fields of the query."""
    held = await service.table(request)
    given = [(name, text) for name, text in request.query if name in held.key_kinds]
    own = dict(given)
    if len(own) < len(given):
        raise DataError("The query has a key twice. Request several entities with POST.")
    asked = _options([(name, text) for name, text in request.query if name not in held.key_kinds], list(held.key_kinds))
    held.check_names(own)
    columns = {name: [_from_text(name, own[name], kind)] for name, kind in held.key_kinds.items() if name in own}
    request.keys = 1
    return await _answer(service, request, held, asked, columns)


def _from_text(name: str, text: str, kind: pa.DataType) -> Any:
    """Parse a key from the query, in the notation of JSON: 01 is not a number.

    Raises:
        DataError: The text is not a value of that type.
    """
    if is_.is_boolean(kind) or is_.is_integer(kind):
        if not (_BOOLEAN if is_.is_boolean(kind) else _WHOLE).fullmatch(text):
            raise DataError(f"{name} is {kind}, which {text[:40]!r} is not.", key=name)
        return text == "true" if is_.is_boolean(kind) else int(text)
    read = forms.reads(kind, text=True)
    value = read(name, text) if read else text
    return exact.read(name, value, kind) if isinstance(value, str) else value


def _options(query: list[tuple[str, str]], keys: Sequence[str] = ()) -> OnlineRequest:
    """Return the options that a query has beside its keys.

    Args:
        query: The fields of the query other than keys.
        keys: The names of the keys, for the hint in an error.

    Raises:
        DataError: The query has an unknown field, or `with_status` is neither true nor false.
    """
    asked = OnlineRequest([])
    for name, text in query:
        if name == "features":
            asked.features = [*(asked.features or []), text]
        elif name == "with_status" and text in {"true", "false"}:
            asked.with_status = text == "true"
        elif name == "with_status":
            raise DataError(f"with_status is true or false, not {text[:40]!r}.")
        else:
            raise DataError(
                f"The query has {name[:128]!r}, which is not a key of the table, features or with_status."
                f"{did_you_mean(name, [*keys, 'features', 'with_status'])}"
            )
    return asked


async def _answer(
    service: Service, request: Request, held: Held, asked: OnlineRequest, columns: dict[str, list[Any]]
) -> Response:
    try:
        if held.waits or held.computes:
            return await service.with_online_store(request, held, _look_up, request, held, asked, columns)
        return _look_up(request, held, asked, columns)
    except NotOnlineError:  # the table may have been served again, after this worker's last refresh
        # A table of a plain name may serve another version now; one that is named after its version serves that one, or none.
        name = held.record.name if held.is_of_one_version else request.names[-1]
        held = await service.with_registry(request, service.definitions.open, held.record.project, name)
    return await service.with_online_store(request, held, _look_up, request, held, asked, columns)


def _look_up(request: Request, held: Held, asked: OnlineRequest, columns: dict[str, list[Any]]) -> Response:
    kind = request.accepts
    found = held.table.find(columns, asked.features, None)
    request.reads = found.reads
    if kind == ARROW:
        table = found.arrow(asked.with_status).replace_schema_metadata({KEYS: _json(held.table.keys)})
        return Reply(frames.to_stream(table), ARROW)
    rows = {"rows": held.rows(found, text=kind == JSON, with_status=asked.with_status)}
    return Reply(_json(rows) if kind == JSON else _msgpack(rows), kind)
