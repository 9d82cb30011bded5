"""The Spark session: the one that the process has, or one on the master that the settings name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from seeknal.errors import DefinitionError, StoreError
from seeknal.system.extras import how_to_install

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_filtering = RLock()
_LINES = 10
"""The lines of Java that an error shows."""
LOCAL = "local[*]"
"""The master if none is named and the process has no session."""
OLDEST_JAVA = 17
"""The oldest Java that Spark 4 runs on."""
_OWN = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "2g",  # at most, and the workers have their own
    "spark.driver.maxResultSize": "0",  # a result that the caller asks for in memory has no other limit
    "spark.sql.session.timeZone": "UTC",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
"""The configuration of a local session that Seeknal starts. A session of the user stays as it is."""


def check_installed() -> None:
    """Check that PySpark is installed.

    Raises:
        DefinitionError: It is not.
    """
    if find_spec("pyspark") is None:
        raise DefinitionError(f"engine = 'spark' needs PySpark. {how_to_install('spark')}")


def open_session(master: str | None) -> SparkSession:
    """Return the session of this process, or start one.

    Args:
        master: `local[N]`, `spark://HOST:PORT`, `sc://HOST:PORT` or another master that Spark takes. None: the session of this process,
            or one on `local[*]`.

    Raises:
        DefinitionError: The process has a session on another master.
        StoreError: No session can be started, for example because there is no Java.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession as Session

    if found := _running(Session):
        _check_master(found, master)
        return found
    if master is not None and master.startswith("sc://"):
        builder = Session.builder.remote(master)
    else:
        _check_java()
        options = {"spark.app.name": "seeknal", "spark.master": master or LOCAL}
        if (master or LOCAL).startswith("local"):
            # By default the workers run python3, whichever that is.
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
            options |= _OWN
        builder = Session.builder.config(map={**options})
    try:
        with quiet():
            return builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError, ImportError) as error:
        told = f"No Spark session can be started on {master or LOCAL}: {error}"
        if isinstance(error, PySparkException) and error.getCondition() == "JAVA_GATEWAY_EXITED":
            told += f" {_last_lines(options)}"
        raise StoreError(told) from error


def _running(session: Any) -> SparkSession | None:
    """Return the session of this process, if there is one; a session that was stopped is none."""
    from pyspark.errors import PySparkException

    with suppress(PySparkException, RuntimeError):
        return session.active()  # type: ignore[no-any-return]
    return None


def _check_master(session: SparkSession, master: str | None) -> None:
    if master is None:
        return
    is_remote = "connect" in type(session).__module__
    own = "sc://..." if is_remote else session.sparkContext.master
    if is_remote != master.startswith("sc://") or (not is_remote and own != master):
        raise DefinitionError(
            f"The setting spark is {master!r}, but this process has a Spark session on {own!r}. Stop that session, or leave the "
            "setting out to use it."
        )


def _check_java() -> None:
    """Check that there is a Java to start Spark with: without one, PySpark only says that a process has ended.

    Raises:
        StoreError: There is none, or it is too old.
    """
    java, found = java_version()
    if found < OLDEST_JAVA:
        there = f"{java} is Java {found}" if found else "neither JAVA_HOME nor the PATH leads to one"
        raise StoreError(
            f"Spark needs Java {OLDEST_JAVA} or later, and {there}. Install one, or set JAVA_HOME to its folder."
        )


def _last_lines(options: Mapping[str, str]) -> str:
    """Start Java once more, since it has ended at once, and return what it writes then."""
    from pyspark import SparkConf
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway

    with tempfile.TemporaryFile() as file:
        try:
            launch_gateway(SparkConf(loadDefaults=False).setAll(list(options.items())), {"stderr": file}).shutdown()  # type: ignore[no-untyped-call]
        except PySparkException:
            file.seek(0)
            lines = file.read().decode(errors="replace").strip().splitlines()[-_LINES:]
            return "\n".join(["It wrote:", *lines]) if lines else "It wrote nothing."
    return "Started once more, it did not end. Try again."


def java_version() -> tuple[str, int]:
    """Return the path of the Java that Spark would start, and its major version; 0 if it does not start."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java") or "java"
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60).stderr  # noqa: S603
        if found := re.search(r'version "(\d+)', told):
            return java, int(found[1])
    return java, 0


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out PySpark's warning that pandas 3 is new to it: no row passes through pandas here.

    One thread at a time: the filters of warnings belong to the process.
    """
    with _filtering, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        yield


def _errors() -> tuple[type[Exception], ...]:
    """Return the errors of Spark; those that PySpark passes on as they come from the JVM, such as a lack of memory, are of py4j."""
    from pyspark.errors import PySparkException

    try:
        from py4j.protocol import Py4JError
    except ImportError:  # a client of Spark Connect has no JVM
        return (PySparkException,)
    return PySparkException, Py4JError


@contextmanager
def explained(what: str = "join the rows") -> Iterator[None]:
    """Raise an error of Spark as a StoreError.

    Args:
        what: What Spark could not do then.

    Raises:
        StoreError: Spark raised an error.
    """
    try:
        yield
    except _errors() as error:
        raise StoreError(f"Spark could not {what}: {str(error).strip()}") from error
