"""The description of the API, as OpenAPI 3.1 for programs and as a web page for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from html import escape
from typing import Any

from seeknal import __version__
from seeknal.server.http import ARROW, JSON, MSGPACK, PROBLEM

_NAME = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]*$", "maxLength": 128}
_NAMES = {"type": "array", "items": {"type": "string"}}
_ROWS = {
    "type": "object",
    "required": ["rows"],
    "properties": {
        "rows": {"type": "array", "items": {"type": "object"}, "description": "One object per row: column to value."}
    },
    "additionalProperties": False,
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_ASKED = {
    "type": "object",
    "required": ["keys"],
    "properties": {
        "keys": {
            "type": "array",
            "items": {"type": "object"},
            "description": "One object per entity: join key to value.",
        },
        "features": {
            "anyOf": [_NAMES, {"type": "null"}],
            "description": "The features wanted, in order; all without it.",
        },
        "with_status": {
            "type": "boolean",
            "description": "Add GROUP_status (found, not_found, expired) and GROUP_event_time for each group.",
        },
    },
    "additionalProperties": False,
}
_LOOKUP = {
    "type": "object",
    "required": ["group"],
    "properties": {
        "group": {"type": "string", "description": "Its name; PROJECT/NAME says the project too."},
        "features": {"anyOf": [_NAMES, {"type": "null"}], "description": "The features wanted; all without it."},
        "prefix": {"type": ["string", "null"], "description": "What to put before the name of each feature."},
        "rename": {
            "type": ["object", "null"],
            "additionalProperties": {"type": "string"},
            "description": "Names of features to what to call them.",
        },
        "version": {"type": ["integer", "null"], "description": "The version to read; the current one without it."},
    },
    "additionalProperties": False,
}
_QUERY = {
    "type": "object",
    "required": ["lookups", "date_col"],
    "properties": {
        "lookups": {"type": "array", "minItems": 1, "maxItems": 100, "items": _LOOKUP},
        "date_col": {"type": "string", "description": "The spine's column with the moments."},
        "keep": {"anyOf": [_NAMES, {"type": "null"}], "description": "Columns of the spine to keep; all without it."},
        "start": {"type": ["string", "null"], "description": "First event time that can be seen."},
        "end": {"type": ["string", "null"], "description": "Last event time that can be seen."},
        "as_of": {
            "anyOf": [
                {"type": ["string", "integer", "null"]},
                {"type": "object", "additionalProperties": {"type": "integer"}},
            ],
            "description": "Only what was stored by then: a moment, a snapshot, or snapshots by group.",
        },
    },
    "additionalProperties": False,
}
_PROBLEMS: Mapping[int, str] = {
    400: "The request does not fit.",
    401: "A token is needed.",
    403: "The token has no right to it.",
    404: "There is no such project, table or group.",
    405: "The path has other methods; see Allow.",
    406: "There is no answer of a kind in Accept.",
    408: "The body did not come in time.",
    413: "The body, or the number of rows in it, is over the limit.",
    415: "The body is of another kind.",
    429: "All places for pushes, or for joins, are taken, and nothing was done; see Retry-After.",
    500: "A bug in Seeknal; the number in it is in the server's stderr too.",
    503: "The store cannot be read, or too much is at work; see Retry-After.",
}
_ABOUT = (
    "Online features, pushes and training data of a feature store. As long as no token was ever made, everything is open "
    "to the server's own machine, and to nobody else. From the first one on, what takes a right takes a token: "
    "Authorization: Bearer TOKEN, made by seeknal token create NAME --project PROJECT --right RIGHT; admin has all rights. "
    "A path without a project finds the only one that has such a thing, among those that the token opens. "
    "MessagePack has the fields of JSON. In Arrow the keys or rows are a table, and features and with_status go into the query."
)
_MEDIA = {JSON: {"schema": _ROWS}, MSGPACK: {}, ARROW: {}}
_ANYTHING = {"type": "object"}


def describe() -> dict[str, Any]:
    """Return the description as OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Seeknal",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _PROBLEM},
        },
        "paths": _online() | _offline() | _about(),
    }


def _online() -> dict[str, Any]:
    options = [
        {
            "name": "keys",
            "in": "query",
            "required": True,
            "style": "form",
            "explode": True,
            "schema": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"}},
            "description": "Each join key is a field of the query of its own, such as customer_id=1.",
        },
        _in_query("features", _NAMES, "The features wanted, one field for each."),
        _in_query("with_status", {"type": "boolean"}, "Add status and event time for each group."),
    ]
    paths = {}
    for names, by_name, path in _ways("table", "spending"):
        ask = _operation(
            f"get_features{by_name}",
            "Give the newest features of some entities, one row for each, in order.",
            names,
            {JSON: {"schema": _ASKED}, MSGPACK: {}, ARROW: {}},
            _MEDIA,
            "read",
            {404, 406},
        )
        ask_for_one = _operation(
            f"get_features_of_one{by_name}",
            "Give the newest features of one entity; each join key is a field of the query.",
            [*names, *options],
            None,
            _MEDIA,
            "read",
            {404, 406},
        )
        keys = '{"keys": [{"customer_id": 1}]}'
        paths[_path("/v1/online", names)] = {
            "post": ask | _curl(f"/v1/online{path} -H 'Content-Type: {JSON}' -d '{keys}'"),
            "get": ask_for_one | _curl(f"'/v1/online{path}?customer_id=1&features=total'"),
        }
    return paths


def _ways(kind: str, example: str) -> Iterator[tuple[list[dict[str, Any]], str, str]]:
    """Yield the two ways to name a table or group: by project and name, and by a name that only one project has.

    Yields:
        The parameters, the suffix of the operation's name, and the path of an example.
    """
    yield [_in_path("project"), _in_path(kind)], "", f"/default/{example}"
    yield [_in_path(kind)], "_by_name", f"/{example}"


def _path(start: str, names: Sequence[Mapping[str, Any]]) -> str:
    return start + "".join(f"/{{{one['name']}}}" for one in names)


def _offline() -> dict[str, Any]:
    paths = {}
    for names, by_name, path in _ways("group", "spend"):
        push = _operation(
            f"push_rows{by_name}",
            "Store rows of the current version, and bring them online.",
            names,
            {JSON: {"schema": _ROWS}, MSGPACK: {}, ARROW: {}},
            {JSON: {"schema": _ANYTHING}},
            "push",
            {404, 429},
        )
        row = '{"rows": [{"customer_id": 2, "at": "2024-05-04T10:30:00Z", "total": 27}]}'
        paths[_path("/v1/push", names)] = {"post": push | _curl(f"/v1/push{path} -H 'Content-Type: {JSON}' -d '{row}'")}
    return paths | _historical()


def _historical() -> dict[str, Any]:
    spine = {
        "type": "string",
        "format": "binary",
        "description": "A Parquet file or an Arrow stream: join keys and a moment in each row.",
    }
    form = {"type": "object", "required": ["query", "spine"], "properties": {"query": _QUERY, "spine": spine}}
    query = '{"lookups": [{"group": "spend"}], "date_col": "at"}'
    paths = {}
    for names, by_name, path in ([_in_path("project")], "", "/default"), ([], "_by_name", ""):
        join = _operation(
            f"get_training_data{by_name}",
            "Give each row of a spine the features known at its moment, as an Arrow stream.",
            names,
            {"multipart/form-data": {"schema": form, "encoding": {"query": {"contentType": JSON}}}},
            {ARROW: {}},
            "read",
            {404, 429},
        )
        example = f"/v1/historical{path} -F 'query={query}' -F spine=@spine.parquet -o training.arrows"
        paths[_path("/v1/historical", names)] = {"post": join | _curl(example)}
    return paths


def _about() -> dict[str, Any]:
    told = {JSON: {"schema": _ANYTHING}}
    catalog = _operation("get_catalog", "List projects, groups, versions and tables.", [], None, told, "read")
    metrics = _operation("get_metrics", "Tell Prometheus what was counted.", [], None, {"text/plain": {}}, "admin")
    healthy = _operation("get_health", "Say that the worker answers.", [], None, told)
    ready = _operation("get_readiness", "Say whether registry and online stores can be read.", [], None, told)
    return {
        "/v1/catalog": {"get": catalog | _curl("/v1/catalog")},
        "/metrics": {"get": metrics | _curl("/metrics")},
        "/healthz": {"get": healthy | _curl("/healthz")},
        "/readyz": {"get": ready | _curl("/readyz")},
    }


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _NAME}


def _in_query(name: str, schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": text}


def _operation(
    name: str,
    summary: str,
    parameters: Sequence[Any],
    body: Mapping[str, Any] | None,
    answers: Mapping[str, Any],
    right: str = "",
    problems: AbstractSet[int] = frozenset(),
) -> dict[str, Any]:
    """Return the description of a method of a route.

    Args:
        name: The name of the operation.
        summary: What it does.
        parameters: Its parameters.
        body: The content types of its body; None if it has no body.
        answers: The content types of its response.
        right: The right that it takes; none if it is open to all.
        problems: The statuses of its problems, beside those of every route, of every right and of every body.
    """
    problem = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    possible = {500, 503} | problems | ({400, 401, 403} if right else set()) | ({408, 413, 415} if body else set())
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": dict(answers)}}
    responses |= {str(one): {"description": _PROBLEMS[one], "content": problem} for one in sorted(possible)}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "description": f"Takes the right {right}." if right else "Open to all.",
        "parameters": list(parameters),
        "responses": responses,
    }
    operation |= {} if right else {"security": []}
    return operation if body is None else operation | {"requestBody": {"required": True, "content": dict(body)}}


def _curl(request: str) -> dict[str, Any]:
    """Return an example as the extension field in which viewers of OpenAPI look for it."""
    quote = "'" if request.startswith("'") else ""
    source = f"curl {quote}http://127.0.0.1:6789{request.removeprefix(quote)}"
    return {"x-codeSamples": [{"lang": "Shell", "source": source}]}


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
            parts += [
                _shown_body(kind, body) for kind, body in operation.get("requestBody", {}).get("content", {}).items()
            ]
            parts.append(f"<p>Answers: {', '.join(map(escape, operation['responses']['200']['content']))}</p>")
    problems = "".join(f"<tr><td>{status}<td>{escape(text)}" for status, text in _PROBLEMS.items())
    style = "body{font-family:sans-serif;max-width:50em;margin:2em auto}pre{background:#eee;padding:1em;overflow:auto}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Seeknal</title><style>{style}</style>{''.join(parts)}"
        f"<h2>Problems</h2><table>{problems}</table></html>"
    )


def _shown_parameter(one: Mapping[str, Any]) -> str:
    return f"<p><code>{escape(one['name'])}</code> in the {one['in']}. {escape(one.get('description', ''))}</p>"


def _shown_body(kind: str, body: Mapping[str, Any]) -> str:
    lines = _outline(body["schema"], 0) if "schema" in body else []
    return f"<p>Body: {escape(kind)}</p>" + (f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else "")


def _outline(schema: Mapping[str, Any], depth: int) -> list[str]:
    lines = []
    for name, one in schema.get("properties", {}).items():
        needed = ", required" if name in schema.get("required", ()) else ""
        lines.append(f"{'  ' * depth}{name}: {_kind(one)}{needed}. {one.get('description', '')}".rstrip())
        lines += _outline(one.get("items", one), depth + 1)
    return lines


def _kind(schema: Mapping[str, Any]) -> str:
    """Return in words which values fit. Null is not mentioned, since such a field can be left out."""
    if "anyOf" in schema:
        return " or ".join(kind for kind in map(_kind, schema["anyOf"]) if kind)
    if schema.get("format") == "binary":
        return "file"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    inner = schema.get("items") or schema.get("additionalProperties")
    of = f" of {_kind(inner)}s" if inner else ""
    return " or ".join(f"{kind}{of}" for kind in kinds if kind != "null")
