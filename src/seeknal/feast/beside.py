"""A program for the Python that has Feast: it reads a repository through Feast's own API, and changes nothing in it.

It is run as a file, and imports nothing of Seeknal. It reads a request from stdin as JSON, and writes the answer to a file.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import warnings
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

DUMMY = "__dummy_id"
"""The join key that Feast gives to a view without entities."""


def main() -> None:
    """Answer the request of stdin."""
    request = json.load(sys.stdin)
    sys.path[0] = request["repo"]  # as Feast's own command does, for modules that the repository imports
    warnings.simplefilter("ignore")
    answer = Path(request["answer"])
    answer.write_text(json.dumps({"describe": describe, "compute": compute}[request["command"]](request)))


def open_store(repo: Path, scratch: Path) -> Any:
    """Return the store of a repository with a registry and an online store that are copies, if they are local files."""
    from feast import FeatureStore
    from feast.repo_config import load_repo_config

    config = load_repo_config(repo, repo / "feature_store.yaml")
    if config.registry.registry_type == "file" and "://" not in config.registry.path:
        copy, original = scratch / "registry.db", repo / config.registry.path
        if original.exists():
            shutil.copy(original, copy)
        config.registry.path = str(copy)
        if is_sqlite(config):
            config.online_store.path = str(scratch / "online.db")
    return FeatureStore(config=config)


def is_sqlite(config: Any) -> bool:
    """Return whether the online store is a local file of SQLite."""
    return getattr(config.online_store, "type", None) == "sqlite"


def describe(request: dict[str, Any]) -> dict[str, Any]:
    """Return what the registry has, as plain data."""
    import feast

    repo = Path(request["repo"])
    store = open_store(repo, Path(request["scratch"]))
    views = [view_of(one, repo) for one in by_name(store.list_feature_views())]
    return {
        "feast": feast.__version__,
        "project": store.project,
        "entities": [
            {"join_key": one.join_key, **told_of(one)} for one in store.list_entities() if one.join_key != DUMMY
        ],
        "views": views,
        "on_demand": [on_demand_of(one) for one in by_name(store.list_on_demand_feature_views())],
        "services": [service_of(one) for one in by_name(store.list_feature_services())],
        "others": list(others(store, {one["name"] for one in views})),
        "has_local_online_store": is_sqlite(store.config)
        and store.config.online_store.path.startswith(request["scratch"]),
    }


def by_name(objects: Any) -> list[Any]:
    """Return objects in an order that does not change from one run to the next, as that of Feast does."""
    return sorted(objects, key=lambda one: one.name)


def others(store: Any, views: set[str]) -> Any:
    """Yield what the registry has besides, as kind and name."""
    for kind in ("stream_feature_views", "label_views", "saved_datasets", "validation_references", "permissions"):
        listed = getattr(store, f"list_{kind}", None)
        for one in by_name(listed() if listed else ()):
            if one.name not in views:
                yield {"kind": kind.removesuffix("s").replace("_", " "), "name": one.name}


def view_of(view: Any, repo: Path) -> dict[str, Any]:
    """Return a feature view as plain data."""
    computes = getattr(view, "feature_transformation", None) or getattr(view, "udf", None)
    return {
        "kind": type(view).__name__,
        "entities": list(view.entities),
        "features": schema_of(view.features),
        "ttl_seconds": view.ttl.total_seconds() if view.ttl else None,
        "source": source_of(view.batch_source, repo),
        "stream": type(view.stream_source).__name__ if view.stream_source else None,
        "is_online": bool(view.online),
        "is_computed": bool(computes or getattr(view, "source_views", None) or getattr(view, "aggregations", None)),
        **told_of(view),
    }


def source_of(source: Any, repo: Path) -> dict[str, Any] | None:
    """Return a source of rows as plain data, or None if there is none."""
    if source is None:
        return None
    path = getattr(source, "path", None)
    if path and "://" not in path:
        path = str(repo / path)
    return {
        "kind": type(source).__name__,
        "path": path.removeprefix("file://") if path else None,
        "format": type(source.file_format).__name__ if getattr(source, "file_format", None) else "ParquetFormat",
        "event_time": source.timestamp_field,
        "created_time": source.created_timestamp_column or None,
        "renames": dict(source.field_mapping or {}),
    }


def on_demand_of(view: Any) -> dict[str, Any]:
    """Return an on-demand feature view as plain data."""
    transformation = view.feature_transformation
    asked = [field for source in view.source_request_sources.values() for field in source.schema]
    return {
        "mode": str(getattr(view.mode, "value", view.mode)),
        "is_singleton": bool(getattr(view, "singleton", False)),
        "aggregates": bool(getattr(view, "aggregations", None)),
        "code": getattr(transformation, "udf_string", "") or "",
        "inputs": [
            {"view": one.name, "features": [field.name for field in one.features]}
            for one in view.source_feature_view_projections.values()
        ],
        "request": schema_of(asked),
        "outputs": schema_of(view.features),
        **told_of(view),
    }


def service_of(service: Any) -> dict[str, Any]:
    """Return a feature service as plain data."""
    return {
        "parts": [
            {
                "view": one.name,
                "alias": one.name_alias or None,
                "features": [field.name for field in one.features],
                "keys": dict(one.join_key_map or {}),
            }
            for one in service.feature_view_projections
        ],
        **told_of(service),
    }


def told_of(one: Any) -> dict[str, Any]:
    """Return what is said about an object."""
    return {
        "name": one.name,
        "description": one.description or None,
        "owner": getattr(one, "owner", "") or None,
        "tags": dict(one.tags or {}),
    }


def schema_of(fields: Any) -> str:
    """Return names and types as an Arrow schema in base64. A type that Arrow has no counterpart of is null."""
    from feast.types import from_feast_to_pyarrow_type

    def kind(field: Any) -> pa.DataType:
        try:
            return from_feast_to_pyarrow_type(field.dtype)
        except (KeyError, ValueError):
            return pa.null()

    schema = pa.schema([pa.field(field.name, kind(field)) for field in fields])
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def compute(request: dict[str, Any]) -> dict[str, Any]:
    """Return for each question the file with what Feast computes, or the error with which it fails."""
    store = open_store(Path(request["repo"]), Path(request["scratch"]))
    served = {name for one in request["questions"] if one["kind"] == "online" for name in one["views"]}
    errors = {name: attempt(partial(load, store, name, request["since"], request["until"])) for name in sorted(served)}
    answers = []
    for number, question in enumerate(request["questions"]):
        out = Path(request["scratch"]) / f"answer{number}.parquet"
        ask, views = (ask_online, question["views"]) if question["kind"] == "online" else (ask_past, [])
        error = "".join(errors[name] for name in views) or attempt(partial(ask, store, question, out))
        answers.append({"file": None if error else str(out), "error": error or None})
    return {"answers": answers}


def attempt(work: Any) -> str:
    """Do some work, and return the error with which it failed, or nothing."""
    try:
        work()
    except Exception as error:  # noqa: BLE001 - an error of Feast, or of a function of the repository, is the answer
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return ""


def load(store: Any, name: str, since: float, until: float) -> None:
    """Load a view into the copy of the online store, if Feast serves it at all."""
    view = store.get_feature_view(name)
    store.apply([*(one for one in store.list_entities() if one.name in view.entities), view])
    if view.online:
        start, end = (datetime.fromtimestamp(one, timezone.utc) for one in (since, until))  # noqa: UP017 - Feast's Python can be 3.10
        store.materialize(start - timedelta(seconds=1), end, feature_views=[name])


def features_of(store: Any, question: dict[str, Any]) -> Any:
    """Return what a question asks for: a service, or names of features."""
    return store.get_feature_service(question["service"]) if question["service"] else question["features"]


def ask_past(store: Any, question: dict[str, Any], out: Path) -> None:
    """Write the features of the rows of a spine."""
    spine = pq.read_table(question["rows"]).to_pandas()
    job = store.get_historical_features(
        entity_df=spine, features=features_of(store, question), full_feature_names=question["full_names"]
    )
    pq.write_table(job.to_arrow(), out)


def ask_online(store: Any, question: dict[str, Any], out: Path) -> None:
    """Write the features of some entities as served now. Each value is the text of JSON, in which Feast's Python values differ."""
    columns = pq.read_table(question["rows"]).to_pydict()
    response = store.get_online_features(
        features=features_of(store, question), entity_rows=columns, full_feature_names=question["full_names"]
    )
    found = response.to_dict().items()
    pq.write_table(pa.table({name: [json.dumps(one, default=str) for one in column] for name, column in found}), out)


if __name__ == "__main__":
    os.environ.setdefault("FEAST_USAGE", "False")
    main()
