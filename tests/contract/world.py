"""One user and a few moments: a small setting for directed tests, through the guide's classes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from seeknal import (
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
)

NOON = datetime(2024, 1, 1, 12)
MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)


def group(name: str = "spend", keys: Sequence[str] = ("user_id",), **options: Any) -> FeatureGroupDuckDB:
    """Define a group of project `shop` whose event time is `at`; options go to its Materialization."""
    entity = Entity(f"{name}_entity", list(keys))
    return FeatureGroupDuckDB(name, entity, Materialization(**{"event_time_col": "at"} | options), "shop")


def rows(*values: Any, user: Any = 1, times: Sequence[Any] | None = None, **more: Any) -> pa.Table:
    """Make rows of one user with a feature `x`, an hour apart from noon on if no times are given."""
    times = [NOON + i * HOUR for i in range(len(values))] if times is None else list(times)
    return pa.table({"user_id": [user] * len(values), "at": times, "x": list(values), **more})


def write(fg: FeatureGroupDuckDB, frame: object, *args: Any, **options: Any) -> Any:
    """Write a frame with all its columns as features."""
    return fg.set_dataframe(frame).set_features().write(*args, **options)


def written(frame: object, **options: Any) -> FeatureGroupDuckDB:
    """Return a new group with the rows of a frame."""
    fg = group(**options)
    write(fg, frame)
    return fg


def look(source: object, spine: object, **options: Any) -> Any:
    """Look up a group, or a list of lookups, for a spine whose moments are in `at`."""
    lookups = source if isinstance(source, list) else [FeatureLookup(source)]  # type: ignore[arg-type]
    return HistoricalFeaturesDuckDB(lookups).using_spine(spine, "at").to_dataframe(**options)


def seen(fg: object, *moments: Any, user: Any = 1, kind: pa.DataType | None = None) -> list[Any]:
    """Return the known values of one user's `x` at some moments."""
    spine = pa.table({"user_id": [user] * len(moments), "at": pa.array(list(moments), kind)})
    return list(look(fg, spine)["x"].to_pylist())


def history(*sources: object, **options: Any) -> pa.Table:
    """Return the history of some groups."""
    lookups = [one if isinstance(one, FeatureLookup) else FeatureLookup(one) for one in sources]  # type: ignore[arg-type]
    return HistoricalFeaturesDuckDB(lookups).to_dataframe(output="arrow", **options)


def snapshots(fg: FeatureGroupDuckDB) -> int:
    """Count the writes that a group's table has seen."""
    store = FeatureStore()
    found = store.core.registry.group(fg.project, fg.name)
    return -1 if found is None else store.core.registry.last_snapshot(found)


def python(code: str, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a process of its own in the same home."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """Wait for a process and give what it printed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def utc(moment: datetime) -> datetime:
    """Return a naive moment as one in UTC."""
    return moment.replace(tzinfo=UTC)
