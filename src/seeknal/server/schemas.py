"""The description of served feature views: a path for each, whose request and response have named fields with types."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
from pyarrow import types as is_

from seeknal.names import split_version
from seeknal.serve.answer_log import DEFAULTED
from seeknal.serve.parts import EXPIRED, FOUND, NOT_FOUND
from seeknal.serve.views import ServedView
from seeknal.server.held import Held
from seeknal.server.http import JSON, MSGPACK

_REF = "#/components/schemas/"
_STATUS = {"type": "string", "enum": [FOUND, NOT_FOUND, EXPIRED]}
_DIGITS = {"type": "string", "pattern": "^-?[0-9]+$"}
_MOMENT = {"type": "string", "format": "date-time"}
_NULL = {"type": "null"}


_SCHEMAS: list[tuple[Callable[[pa.DataType], bool], dict[str, Any]]] = [
    (is_.is_boolean, {"type": "boolean"}),
    (lambda kind: kind in (pa.int64(), pa.uint64()), {"anyOf": [{"type": "integer"}, _DIGITS]}),
    (is_.is_integer, {"type": "integer"}),
    (is_.is_floating, {"anyOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}]}),
    (is_.is_date, {"type": "string", "format": "date"}),
    (lambda kind: is_.is_timestamp(kind) and bool(kind.tz), _MOMENT),
    (is_.is_duration, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    (is_.is_binary, {"type": "string", "contentEncoding": "base64"}),
    (is_.is_fixed_size_binary, {"type": "string", "contentEncoding": "base64"}),
]
"""The schemas of plain types. All others are text."""


def schema_of(kind: pa.DataType) -> dict[str, Any]:
    """Return the JSON schema of values of a type other than null, in the encoding of `seeknal.server.forms`."""
    if is_.is_list(kind) or is_.is_fixed_size_list(kind):
        return {"type": "array", "items": _or_null(schema_of(kind.value_type))}
    if is_.is_struct(kind):
        fields = {field.name: _or_null(schema_of(field.type)) for field in kind}
        return {"type": "object", "properties": fields}
    return next((schema for test, schema in _SCHEMAS if test(kind)), {"type": "string"})


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [*schema["anyOf"], _NULL]} if "anyOf" in schema else {"anyOf": [schema, _NULL]}


def add_views(described: dict[str, Any], views: Iterable[Held], newest: Iterable[str]) -> dict[str, Any]:
    """Return a description with the paths and schemas of some served views.

    Args:
        described: The description of the API.
        views: The served versions.
        newest: The labels of those that their view's name without a number means.
    """
    paths, schemas = dict(described["paths"]), dict(described["components"]["schemas"])
    general = paths["/v1/views/{project}/{view}"]["post"]
    newest = set(newest)
    for held in views:
        name, number = split_version(held.record.name)[0], held.record.view
        mark = re.sub(r"\W", "_", f"{held.record.project}_{name}_{number}")
        schemas |= _schemas(held, mark)
        body = {"content": {JSON: {"schema": {"$ref": f"{_REF}{mark}_request"}}, MSGPACK: {}}, "required": True}
        answer = {"description": "Success.", "content": {JSON: {"schema": {"$ref": f"{_REF}{mark}_response"}}}}
        own = {
            **{key: value for key, value in general.items() if key != "x-codeSamples"},
            "operationId": f"get_features_of_{mark}",
            "summary": f"Return what a model reads for several rows: version {number} of the feature view {held.record.project}/{name}.",
            "parameters": [],
            "requestBody": body,
            "responses": general["responses"] | {"200": answer},
            "x-codeSamples": [],
        }
        paths[f"/v1/views/{held.record.project}/{name}@{number}"] = {"post": own}
        if held.record.label in newest:
            plain = own | {
                "operationId": f"get_features_of_{re.sub(r'[^a-zA-Z0-9_]', '_', f'{held.record.project}_{name}')}"
            }
            paths[f"/v1/views/{held.record.project}/{name}"] = {"post": plain}
    components = described["components"] | {"schemas": schemas}
    return described | {"paths": paths, "components": components}


def _schemas(held: Held, mark: str) -> dict[str, Any]:
    """Return the schemas of a view: a given row, the body, an answered row, and the response."""
    table = held.table
    defaults = set(table.recipe.defaults) if isinstance(table, ServedView) else set()
    given = {name: _or_null(schema_of(kind)) for name, kind in held.key_kinds.items()}
    kinds = table.kinds
    answered = {field.name: given[field.name] for field in table.key_fields}
    answered |= {name: _or_null(schema_of(kinds[name])) for name in table.features}
    for label in table.labels:
        answered |= {f"{label}_status": _STATUS, f"{label}_event_time": _or_null(_MOMENT)}
    answered |= {DEFAULTED: {"type": "array", "items": {"type": "string"}}} if defaults else {}
    features = {"type": "array", "items": {"type": "string", "enum": list(table.features)}}
    return {
        f"{mark}_row": _object(given, [name for name in given if name not in defaults]),
        f"{mark}_request": _object(
            {
                "keys": {"type": "array", "items": {"$ref": f"{_REF}{mark}_row"}},
                "features": _or_null(features),
                "with_status": {"type": "boolean", "default": False},
            },
            ["keys"],
        ),
        f"{mark}_features": _object(answered, list(table.keys)),
        f"{mark}_response": _object({"rows": {"type": "array", "items": {"$ref": f"{_REF}{mark}_features"}}}, ["rows"]),
    }


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
