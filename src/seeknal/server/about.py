"""Endpoints about the server and the home: health, metrics, the catalog."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from seeknal.errors import StoreError
from seeknal.registry import GroupRecord, OnlineTableRecord, Version
from seeknal.server.forms import moment_text
from seeknal.server.http import SOON, Problem, Reply, Request
from seeknal.server.service import Service

_encode = msgspec.json.Encoder().encode


class Health(msgspec.Struct, omit_defaults=True):
    """The state of a worker that answers lookups."""

    status: Literal["ok", "degraded"]
    away: Annotated[
        list[str],
        Meta(description='What cannot be read: "registry", "storage" (the offline tables), "online store".'),
    ] = []


async def healthy(_service: Service, _request: Request) -> Response:
    """Check that the worker responds."""
    return Reply(_encode(Health("ok")))


async def ready(service: Service, _request: Request) -> Response:
    """Check that online tables can be looked up, and report what else cannot be read.

    Raises:
        Problem: None can, or the server is about to end.
    """
    found = await service.readiness.look()
    for error in found.errors:
        print(error, file=sys.stderr)  # noqa: T201 - for the operator only: the route is open to all, and the message names locations
    if service.ending.is_near:
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "The server is about to end.", None, SOON)
    if not found.answers:
        detail = (
            "No online table can be looked up: its store cannot be read, or lacks rows. The server's stderr says more."
        )
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, StoreError.__name__, SOON)
    return Reply(_encode(Health("degraded", found.away) if found.away else Health("ok")))


async def metrics(service: Service, request: Request) -> Response:
    """Return the metrics of the token's project, or of all projects, in the text format of Prometheus."""
    request.refuse_query()
    project = request.scope_of_token
    ages = [one for one in await service.ages.get(request) if project in {None, one.project}]
    service.metrics.flush()  # so that this worker's own latest requests are counted
    text = await service.threads.run(
        request, "The first process of the server", service.metrics.text, project, ages, time.time_ns() // 1000
    )
    return Reply(text, "text/plain; version=0.0.4; charset=utf-8")


async def catalog(service: Service, request: Request) -> Response:
    """Return the projects, groups, versions and tables that the token may read."""
    request.refuse_query()
    found = await service.with_tables(request, _catalog, service, request.scope_of_token)
    return Reply(_encode(found))


def _catalog(service: Service, project: str | None) -> dict[str, Any]:
    store = service.store.overview()
    tables = store.tables.all(project=project)
    # A table may have features from groups of other projects, of which only the types are shown.
    served = {(lookup.project, lookup.group) for table in tables for lookup in table.lookups}
    known = [one for one in store.groups.all() if project in {None, one.project} or (one.project, one.name) in served]
    versions = {(one.project, one.name): store.groups.versions_of(one) for one in known}
    schemas = {(*group, version.number): version for group, some in versions.items() for version in some}
    groups = [(one, versions[one.project, one.name]) for one in known if project in {None, one.project}]
    names = sorted({group.project for group, _ in groups} | {table.project for table in tables})
    return {
        "projects": [
            {
                "name": name,
                "feature_groups": [_group(one, some) for one, some in groups if one.project == name],
                "online_tables": [_table(one, schemas) for one in tables if one.project == name],
            }
            for name in names
        ]
    }


def _group(record: GroupRecord, versions: list[Version]) -> dict[str, Any]:
    ttl = record.group.materialization.ttl
    return {
        "name": record.name,
        "kind": record.kind,
        "description": record.group.description,
        "entity": record.group.entity.name or None,
        "source": record.windowed.origin if record.windowed else None,
        "ttl_seconds": ttl.total_seconds() if isinstance(ttl, timedelta) else None,
        "versions": [
            {
                "number": version.number,
                "is_current": version.is_current,
                "rows": version.rows,
                "written_at": moment_text(version.written_at),
                "join_keys": _columns(version, "join key"),
                "event_time": next((name for name, _, role in version.columns if role == "event time"), None),
                "features": _columns(version, "feature"),
            }
            for version in versions
        ],
    }


def _table(record: OnlineTableRecord, schemas: dict[tuple[str, str, int], Version]) -> dict[str, Any]:
    keys: dict[str, str] = {}
    features = []
    for lookup in record.lookups:
        version = schemas.get((lookup.project, lookup.group, lookup.version))
        kinds = {name: kind for name, kind, _ in version.columns} if version else {}
        keys |= {name: kinds.get(own, "") for own, name in lookup.keys if name not in keys}
        source = {"feature_group": f"{lookup.project}/{lookup.group}", "version": lookup.version}
        features += [{"name": out, "type": kinds.get(own, ""), **source} for own, out in lookup.features]
    return {
        "name": record.name,
        "ttl_seconds": None if record.ttl is None else record.ttl / 1e6,
        "keys": [{"name": name, "type": kind} for name, kind in keys.items()],
        "features": features,
    }


def _columns(version: Version, role: str) -> list[dict[str, str]]:
    return [{"name": name, "type": kind} for name, kind, its in version.columns if its == role]
