"""The description of the API, generated from the routes and from the types of their bodies.

It is served as OpenAPI 3.1 for programs, and as a web page for people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from html import escape
from typing import Any

import msgspec
from starlette.responses import Response

from seeknal import __version__
from seeknal.server.authorization import authorize
from seeknal.server.http import ARROW, JSON, MSGPACK, PROBLEM, Problem, ProblemDetails, Reply, Request
from seeknal.server.routes import FORM, OPEN, Operation, Route
from seeknal.server.routes import ROUTES as DESCRIBED
from seeknal.server.schemas import add_views
from seeknal.server.service import Service

_NAME = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]*$", "maxLength": 128}
_VERSIONED = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]*(@[1-9][0-9]*)?$", "maxLength": 138}
"""The name of a table or view, with or without the number of a version."""
_EXAMPLES = {"{project}": "default", "{table}": "spending", "{view}": "next_basket", "{group}": "spend"}
_SCHEMAS = "#/components/schemas/"
_KEYS = {
    "name": "keys",
    "in": "query",
    "required": True,
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}},
    "description": "Each join key is a separate field of the query, such as customer_id=1.",
}
_SPINE = {
    "type": "string",
    "format": "binary",
    "description": "A Parquet file or an Arrow stream, with join keys and a timestamp in each row.",
}
_PROBLEMS: Mapping[int, str] = {
    400: "The request has a wrong shape, name or type, or ended early.",
    401: "The request has no valid token.",
    403: "The token lacks the right.",
    404: "There is no such project, table, view or group.",
    405: "The path does not support the method; see Allow.",
    406: "Accept names no supported content type.",
    408: "The body did not arrive in time.",
    413: "The body is too large, or has too many rows.",
    415: "The content type of the body is not supported.",
    429: "Too many pushes or joins are running. Nothing was done; see Retry-After.",
    500: "A bug in Seeknal. The server's stderr has the details, under the identifier in the response.",
    503: "A store cannot be read, or too many requests are running; see Retry-After.",
}
_ABOUT = (
    "Online features, pushes and training data of a feature store. As long as no token was ever created, everything is "
    "open to the server's own machine, and to no other. From the first token on, each route that requires a right needs "
    "a token with that right: Authorization: Bearer TOKEN. Create one with seeknal token create NAME --project PROJECT "
    "--right RIGHT; the right admin includes all others. A path without a project finds the only project that has such a "
    "table or group, among those that the token gives access to. A MessagePack body has the same fields as a JSON body. "
    "An Arrow body is a table of keys or rows; features and with_status are then fields of the query."
)


def describe() -> dict[str, Any]:
    """Return the description as OpenAPI 3.1."""
    operations = [one for route in DESCRIBED for one in route.operations.values()]
    bodies = {body.shape for one in operations for body in (one.body, one.query) if body}
    bodies = bodies.union(*(one.answers.values() for one in operations), {ProblemDetails}) - {None}
    types = sorted(bodies, key=lambda one: one.__name__)
    made, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS + "{name}")
    schemas = dict(zip(types, made, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Seeknal",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {}],
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}, "schemas": components},
        "paths": {
            route.path: {
                method.lower(): _operation(route, one, schemas, components) for method, one in route.operations.items()
            }
            for route in DESCRIBED
        },
    }


def _operation(
    route: Route, one: Operation, schemas: Mapping[Any, Any], components: Mapping[str, Any]
) -> dict[str, Any]:
    possible = {500, 503} | one.problems | ({400, 401, 403} if route.right else set())
    possible |= {408, 413, 415} if one.body else set()
    problem = {PROBLEM: {"schema": schemas[ProblemDetails]}}
    answers = {kind: {"schema": schemas[shape]} if shape else {} for kind, shape in one.answers.items()}
    responses: dict[str, Any] = {"200": {"description": "Success.", "content": answers}}
    responses |= {str(status): {"description": _PROBLEMS[status], "content": problem} for status in sorted(possible)}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _VERSIONED if name in {"table", "view"} else _NAME}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    if one.query:
        parameters += _in_query(components[one.query.shape.__name__]["properties"])
    operation: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.summary,
        "description": f"Requires the right {route.right}." if route.right else "Open to all.",
        "parameters": parameters,
        "responses": responses,
        "x-codeSamples": [{"lang": "Shell", "source": _curl(route.path, one.example)}],
    }
    operation |= {"security": []} if route.right == OPEN else {}
    if one.body:
        operation["requestBody"] = {"required": True, "content": _body(one, schemas[one.body.shape])}
    return operation


def _body(one: Operation, schema: Mapping[str, Any]) -> dict[str, Any]:
    if not one.is_form:
        return {JSON: {"schema": schema}, MSGPACK: {}, ARROW: {}}
    form = {"type": "object", "required": ["query", "spine"], "properties": {"query": schema, "spine": _SPINE}}
    return {FORM: {"schema": form, "encoding": {"query": {"contentType": JSON}}}}


def _in_query(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of a body as parameters of the query string, which cannot express null."""
    parameters = [_KEYS]
    for name, field in fields.items():
        if name != "keys":
            schema = field["anyOf"][0] if "anyOf" in field else {"type": field["type"]}
            parameters.append({"name": name, "in": "query", "schema": schema, "description": field["description"]})
    return parameters


def _curl(path: str, rest: str) -> str:
    """Return an example for `x-codeSamples`, the extension field that viewers of OpenAPI display."""
    for parameter, name in _EXAMPLES.items():
        path = path.replace(parameter, name)
    url = f"http://127.0.0.1:6789{path}"
    return f"curl '{url}{rest}'" if rest.startswith("?") else f"curl {url} {rest}".rstrip()


def show(description: Mapping[str, Any]) -> str:
    """Return a description as a web page that loads no other files."""
    parts = [f"<h1>{escape(description['info']['title'])} {escape(description['info']['version'])}</h1>"]
    parts.append(f"<p>{escape(description['info']['description'])} <a href='openapi.json'>OpenAPI 3.1</a></p>")
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(operation['summary'])} {escape(operation['description'])}</p>")
            parts += [f"<pre>{escape(one['source'])}</pre>" for one in operation["x-codeSamples"]]
            parts += [_shown_parameter(one) for one in operation["parameters"]]
            for kind, body in operation.get("requestBody", {}).get("content", {}).items():
                lines = _outline(body.get("schema", {}), description["components"]["schemas"], 0)
                parts.append(f"<p>Body: {escape(kind)}</p>")
                parts += [f"<pre>{escape(chr(10).join(lines))}</pre>"] if lines else []
            parts.append(f"<p>Response: {', '.join(map(escape, operation['responses']['200']['content']))}</p>")
    problems = "".join(f"<tr><td>{status}<td>{escape(text)}" for status, text in _PROBLEMS.items())
    style = "body{font-family:sans-serif;max-width:50em;margin:2em auto}pre{background:#eee;padding:1em;overflow:auto}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Seeknal</title><style>{style}</style>{''.join(parts)}"
        f"<h2>Problems</h2><table>{problems}</table></html>"
    )


def _shown_parameter(one: Mapping[str, Any]) -> str:
    return f"<p><code>{escape(one['name'])}</code> in the {one['in']}. {escape(one.get('description', ''))}</p>"


def _outline(schema: Mapping[str, Any], schemas: Mapping[str, Any], depth: int) -> list[str]:
    """Return a line for each field of a schema, indented by depth: `features: array of strings. The features to ...`."""
    lines: list[str] = []
    schema = schemas[schema["$ref"].removeprefix(_SCHEMAS)] if "$ref" in schema else schema
    for name, one in schema.get("properties", {}).items():
        needed = ", required" if name in schema.get("required", ()) else ""
        lines.append(f"{'  ' * depth}{name}: {_kind(one)}{needed}. {one.get('description', '')}".rstrip())
        lines += _outline(one.get("items", one), schemas, depth + 1)
    return lines


def _kind(schema: Mapping[str, Any]) -> str:
    """Return the type of a field in words. Null is not mentioned, since a field that takes it can be left out."""
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one != {"type": "null"})
    if schema.get("format") == "binary":
        return "file"
    inner = schema.get("items") or schema.get("additionalProperties")
    return f"{schema.get('type', 'object')}{f' of {_kind(inner)}s' if inner else ''}"


@cache
def _rendered() -> tuple[bytes, bytes]:
    described = describe()
    return msgspec.json.encode(described), show(described).encode()


async def _openapi(service: Service, request: Request) -> Response:
    """Return the description as OpenAPI, with the served views that the request may read."""
    request.refuse_query()
    try:
        authorize(service, request, "read")
    except Problem:
        if b"authorization" in request.headers:
            raise
        return Reply(_rendered()[0])  # which says nothing about the home
    return Reply(await service.with_registry(request, _with_views, service, request.scope_of_token))


def _with_views(service: Service, scope: str | None) -> bytes:
    return msgspec.json.encode(add_views(describe(), *service.definitions.served_views(scope)))


async def _page(_service: Service, _request: Request) -> Response:
    """Return the description as a web page."""
    return Reply(_rendered()[1], "text/html; charset=utf-8")


ROUTES = (
    Route("/openapi.json", OPEN, {"GET": Operation(endpoint=_openapi)}),
    Route("/", OPEN, {"GET": Operation(endpoint=_page)}),
)
"""The routes that serve the description. It does not list them."""
