"""Every test has a home of its own."""

import gc
import os
import signal
import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

import spark_java
from seeknal import FeatureStore, config
from seeknal.home import session
from seeknal.home.pushing import flush_all
from servers import Postgres, SeaweedFS, Valkey

pytest_plugins = ["examples"]
# Processes that tests start import the modules of tests, too.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH", "")])]
)
collect_ignore = ["feast_shop"]  # a repository of Feast, which another Python imports

# A shell starts commands in the background with SIGINT ignored, and the tests that send it would wait forever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it is read on import


def _sync_nothing(connection: object, _: object) -> None:
    """Let no registry wait for the disk: the tests kill processes, but cut no power."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


event.listen(Engine, "connect", _sync_nothing)

REGISTRY = os.environ.get("SEEKNAL_TEST_REGISTRY", "sqlite")
"""Where tests keep their registries that do not say it themselves; see `registries`."""
ENGINE = os.environ.get("SEEKNAL_TEST_ENGINE", "duckdb")
"""The engine that all tests use, such as "spark": the same promises hold for each."""
_databases = count(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the tests themselves out of the garbage collector's way: it would search all of them again and again.

    Worse, beside so many objects it would seldom search at all, and what tests leave open, such as stores with their connections and
    threads, would be closed thousands of tests later.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One S3 server for all tests of this process; each test takes a prefix of its own."""
    server = SeaweedFS(tmp_path_factory.mktemp("seaweed")).start()
    yield server
    server.stop()


@pytest.fixture
def s3(request: pytest.FixtureRequest, seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a place in an object store that no other test has used. The environment has what is needed to use it."""
    for name, value in seaweed.env.items():
        monkeypatch.setenv(name, value)
    if "spark" in request.fixturenames:  # as if Spark were started with spark.executorEnv.*
        request.getfixturevalue("spark").sparkContext.environment.update(seaweed.env)
    return f"s3://tests/{uuid.uuid4().hex}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module with `ON_BOTH` on a local folder and, with the slow tests, on an object store."""
    is_local = metafunc.definition.get_closest_marker("of_files")
    if getattr(metafunc.module, "ON_BOTH", False) and not is_local:
        metafunc.parametrize("storage", ["folder", pytest.param("s3", marks=pytest.mark.slow)], indirect=True)


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> str:
    """Where the tables of a test lie: "folder", or "s3" for an object store."""
    return getattr(request, "param", "folder")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Spark session for all tests of a process, on two cores."""
    from seeknal.engine.spark.session import open_session

    with spark_java.found(tmp_path_factory.mktemp("java")):
        started = open_session("local[2, 4]")  # a task that fails is run again, as on a cluster: four times in all
    started.conf.set("spark.sql.shuffle.partitions", "2")
    yield started
    started.stop()


@pytest.fixture
def on_spark(spark: Any, home: Path) -> FeatureStore:
    """The store in the test's home, with the engine on Spark."""
    return FeatureStore.of(replace(config.load(), engine="spark"))


@pytest.fixture(scope="session", autouse=ENGINE == "spark")
def _spark_for_all(spark: Any) -> None:
    """Start Spark before the first test, if all tests use it."""


@pytest.fixture(autouse=True)
def registry_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Keep the registry in a file, or in PostgreSQL; see `registries.both`."""
    kind: str = getattr(request, "param", REGISTRY)
    monkeypatch.delenv("SEEKNAL_REGISTRY", raising=False)
    if kind == "postgres":
        monkeypatch.setenv("SEEKNAL_REGISTRY", request.getfixturevalue("postgres_url"))
    return kind


@pytest.fixture(autouse=True)
def home(
    request: pytest.FixtureRequest,
    storage: str,
    registry_kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """Keep everything in a fresh folder, or its tables in an object store if the test is run on one, and run in another folder."""
    monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SEEKNAL_STORAGE", raising=False)
    if storage == "s3":
        monkeypatch.setenv("SEEKNAL_STORAGE", request.getfixturevalue("s3"))
        monkeypatch.setattr("seeknal.offline.spare.GRACE", 0)  # as if each vacuum came a day later
    for name in (
        "SEEKNAL_MEMORY_LIMIT",
        "SEEKNAL_LOOKBACK_DAYS",
        "SEEKNAL_ONLINE_STORE",
        "SEEKNAL_FRESHNESS",
        "SEEKNAL_CACHE_SIZE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEEKNAL_ENGINE", ENGINE)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield tmp_path / "home"
    flush_all()  # so that no test runs beside the commits of another
    session.close()


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """One Valkey server for all tests; each takes a database or a project of its own."""
    server = Valkey(tmp_path_factory.mktemp("valkey"), "--databases", "2000").start()
    yield server
    server.stop()


@pytest.fixture
def valkey_url(valkey: Valkey) -> str:
    """A database that no other test has used."""
    return f"redis://127.0.0.1:{valkey.port}/{next(_databases)}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests; each takes a schema of its own."""
    server = Postgres().start()
    yield server
    server.stop()


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A schema that no other test has used, and that is removed after the test."""
    schema = f"test_{next(_databases)}"
    yield postgres.url(schema)
    with postgres.client() as client:
        client.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
