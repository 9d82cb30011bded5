"""Create a small home with the code of this checkout, for tests of later code: tests/homes/NAME.tar.gz and NAME.json.

    python scripts/make_home.py NAME [FOLDER]

NAME is a release, or a commit that changed a format. The home has a little of everything that is stored; the JSON file
has the results that this code reads from it. `tests/test_homes.py` opens every home. The script uses the classes of the
guide, so that it also runs on older code, and leaves out what older code lacks.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from seeknal import (
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
    OnlineFeaturesDuckDB,
)

HOMES = Path(__file__).resolve().parent.parent / "tests" / "homes"
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TYPES = {
    "whole": pa.array([2**53 + 1, None, -1], pa.int64()),
    "ratio": pa.array([0.1, None, float("nan")], pa.float64()),
    "text": pa.array(["é", None, ""], pa.string()),
    "flag": pa.array([True, None, False], pa.bool_()),
    "raw": pa.array([b"\0\xff", None, b""], pa.binary()),
    "day": pa.array([date(2024, 2, 29), None, date(1969, 12, 31)], pa.date32()),
    "since": pa.array([NOON, None, NOON - HOUR], pa.timestamp("us", "UTC")),
    "price": pa.array([Decimal("12.50"), None, Decimal("-0.01")], pa.decimal128(10, 2)),
    "tags": pa.array([["a", None], None, []], pa.list_(pa.string())),
    "place": pa.array([{"lat": 1.5, "lon": None}, None, {"lat": None, "lon": 2.0}]),
}
GROUPS = ("spend", "kinds", "visits")


def define(name: str, **options: Any) -> FeatureGroupDuckDB:
    """Return a group of project shop, keyed by user."""
    return FeatureGroupDuckDB(
        name, Entity("user", ["user_id"]), Materialization(event_time_col="at", **options), "shop"
    )


def rows(users: list[Any], *hours: int, **columns: Any) -> pa.Table:
    """Return rows of users, each dated some hours after noon."""
    return pa.table({"user_id": users, "at": [NOON + hour * HOUR for hour in hours], **columns})


def write(group: FeatureGroupDuckDB, frame: pa.Table, mode: str = "append") -> None:
    """Write a frame with all its columns as features."""
    group.set_dataframe(frame).set_features().write(mode=mode)


def furnish() -> str | None:
    """Fill the home; return a token for its server, if this code has tokens."""
    spend = define("spend", ttl=timedelta(days=36_500))
    write(spend, rows([1, 1, 2], 0, 1, 0, x=[1, 2, 3]), "overwrite")
    write(spend, rows([2, 3], 2, 2, x=[4, 5]))
    asked = HistoricalFeaturesDuckDB([FeatureLookup(spend)])
    write(define("kinds"), rows([1, 2, 3], 0, 0, 0, **TYPES), "overwrite")
    visits = define("visits", created_time_col="made")
    made = [NOON, NOON + HOUR, NOON]
    write(visits, rows([1, 1, 9], 0, 0, 0, made=made, page=["a", "b", "erased"]), "overwrite")
    both = HistoricalFeaturesDuckDB([FeatureLookup(spend), FeatureLookup(visits, prefix="v_")])
    both.serve("both")
    with suppress(ImportError):
        serve_windows()
    with suppress(AttributeError):  # each came with a later commit
        asked.using_spine(pa.table({"user_id": [1, 2], "at": [NOON + HOUR] * 2}), "at").save("may", rows=True)
        asked.save("all")
    write(spend, rows([1, 4], 3, 3, x=[6, 7], y=[0.5, None]))
    store, token = FeatureStore(), None
    for step in (
        lambda: spend.rollback(to=1),
        lambda: store.groups.erase("visits", {"user_id": 9}),
        lambda: spend.push({"user_id": 5, "at": NOON + 4 * HOUR, "x": 8}),
        lambda: store.groups.optimize("kinds", keep_days=0),
    ):
        with suppress(AttributeError):
            step()
    with suppress(AttributeError):
        token = store.tokens.create("web", "shop", ["read", "push"])
    return token


def serve_windows() -> None:
    """Serve windows of an entity with few events and of one with many. All events count, so the clock changes nothing."""
    from seeknal import Count, EventSource, Last, Sum, WindowedGroup

    orders = EventSource("orders", event_time_col="at", project="shop")
    users = [1] * 300 + [2, 2]
    amounts = [0.1 * n if n % 7 else None for n in range(len(users))]
    orders.set_dataframe(rows(users, *range(len(users)), amount=amounts)).write()
    features = {"n": Count(), "total": Sum("amount"), "last": Last("amount", where="amount < 9")}
    windows = WindowedGroup("windows", Entity("user", ["user_id"]), orders, features)
    HistoricalFeaturesDuckDB([FeatureLookup(windows)]).serve("windows")


def plain(table: pa.Table) -> list[dict[str, str]]:
    """Return values in the notation of Python, which JSON keeps exactly."""
    return [{name: repr(value) for name, value in row.items()} for row in table.to_pylist()]


def answers() -> dict[str, Any]:
    """Read everything that the home contains."""
    store, found = FeatureStore(), {}
    for name in GROUPS:
        lookups = {f"{name} now": FeatureLookup(f"shop/{name}")}
        with suppress(TypeError):  # a lookup had no version once
            for one in store.groups.versions(name):
                lookups[f"{name} {one.number}"] = FeatureLookup(f"shop/{name}", version=one.number)
        for label, lookup in lookups.items():
            found[label] = plain(HistoricalFeaturesDuckDB([lookup]).to_dataframe(output="arrow"))
    users = [{"user_id": user} for user in range(1, 10)]
    found["both"] = plain(OnlineFeaturesDuckDB("both").get_features(users, "arrow"))
    if "windows" in {table.name for table in store.core.registry.tables()}:
        found["windows"] = plain(OnlineFeaturesDuckDB("windows").get_features(users, "arrow"))
    sets: Callable[[], list[Any]] = getattr(store.core.registry, "training_sets", list)
    for one in sets():
        found[f"training set {one.name}"] = [one.content_hash, plain(store.training_sets.reproduce(one))]
    return found


def main() -> None:
    """Run the script."""
    warnings.simplefilter("ignore")
    name, homes = sys.argv[1], Path(sys.argv[2]).absolute() if sys.argv[2:] else HOMES
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEEKNAL_HOME"] = f"{folder}/home"
        os.chdir(folder)
        token = furnish()
        told = {"token": token, "answers": answers()}
        homes.mkdir(exist_ok=True)
        (homes / f"{name}.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        with tarfile.open(homes / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(f"{folder}/home", name, filter=_kept)
    print(f"{name}: {(homes / f'{name}.tar.gz').stat().st_size:,} bytes, {len(told['answers'])} answers")


def _kept(file: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out files that every process creates anew, and the owners of files."""
    if file.name.endswith(("lock.mdb", ".lock", "/scratch", "/trash")) or "/checked-" in file.name:
        return None
    file.uid = file.gid = 0
    file.uname = file.gname = ""
    return file


if __name__ == "__main__":
    main()
