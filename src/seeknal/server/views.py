"""The endpoints for feature views."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from seeknal.errors import DefinitionError
from seeknal.names import split_version
from seeknal.registry import ViewRecord
from seeknal.registry.view_content import ViewContent
from seeknal.server import lookups
from seeknal.server.forms import moment_text
from seeknal.server.http import Problem, Reply, Request
from seeknal.server.service import Service

_encode = msgspec.json.Encoder().encode


async def post(service: Service, request: Request) -> Response:
    """Return what the model reads for several rows, in order: looked up, given with the row, and computed of both.

    Raises:
        Problem: There is no such view, or the version is not served.
    """
    try:
        held = await service.table(request)
    except Problem as problem:
        if problem.status != HTTPStatus.NOT_FOUND:
            raise
        every = await service.with_registry(request, service.definitions.view, request.names[-1], request)
        view = every[0]  # or the problem that there is no such view
        if view.retired_at is not None:
            raise Problem(HTTPStatus.NOT_FOUND, f"{view.label} was retired.", DefinitionError.__name__) from None
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"{view.label} is not served. Serve it: FeatureView.load({view.table!r}).serve().",
            DefinitionError.__name__,
        ) from None
    if held.record.view is None:
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"{held.record.label!r} is an online table, and serves no feature view. Look it up at /v1/online.",
            DefinitionError.__name__,
        )
    return await lookups.answer(service, request, held)


async def get(service: Service, request: Request) -> Response:
    """Return what a version of a view is, and its other versions."""
    request.refuse_query()
    found = await service.with_registry(request, _describe, service, request)
    return Reply(_encode(found))


def _describe(service: Service, request: Request) -> dict[str, Any]:
    view, *versions = service.definitions.view(request.names[-1], request)
    tables = service.store.tables.all(project=view.project)
    served = {one.view for one in tables if split_version(one.name)[0] == view.name}
    content = view.content
    return {
        "project": view.project,
        "name": view.name,
        "version": view.number,
        "description": view.description,
        "owner": view.owner,
        "tags": list(view.tags),
        "keys": list(dict.fromkeys(out for lookup in content.lookups for _, out in lookup.keys)),
        "request": [_value(content, name) for name in content.request],
        "features": [_value(content, name) for name in content.features],
        "label": content.label.column if content.label else None,
        "versions": [
            {
                "number": one.number,
                "created_at": moment_text(one.created_at),
                "retired_at": None if one.retired_at is None else moment_text(one.retired_at),
                "is_served": one.number in served,
                "changes": _changes(one, versions),
            }
            for one in versions
        ],
    }


def _value(content: ViewContent, name: str) -> dict[str, Any]:
    return {"name": name, "type": content.kinds[name]} | (
        {"default": content.default_values[name]} if name in content.defaults else {}
    )


def _changes(view: ViewRecord, versions: list[ViewRecord]) -> list[str]:
    before = next((one for one in reversed(versions) if one.number < view.number), None)
    return [] if before is None else before.content.changes(view.content)
