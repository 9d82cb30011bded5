"""Break a copy of the package on purpose, and run tests on it; shared by break_the_join.py and break_the_rest.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARALLEL = 2

# Loaded into pytest, to make certain that the tests import the copy, and not the installed package.
WITNESS = """
import os, pathlib, seeknal
copy, used = pathlib.Path(os.environ["BROKEN_COPY"]), pathlib.Path(seeknal.__file__)
assert copy in used.parents, f"the tests would import {used}, not the copy in {copy}"
"""


@dataclass(frozen=True)
class Mutation:
    """One textual change of the package.

    Args:
        name: What the change does.
        old: Text that occurs in the file exactly once.
        new: Its replacement.
        path: The file, in the package.
        tests: The tests that must catch it, by their pytest names below the folder `tests`.
    """

    name: str
    old: str
    new: str
    path: str = "engine/asof.py"
    tests: tuple[str, ...] = ()

    def apply(self, package: Path) -> None:
        """Make the change.

        Raises:
            SystemExit: The text does not occur exactly once.
        """
        file = package / self.path
        text = file.read_text()
        if (count := text.count(self.old)) != 1:
            raise SystemExit(f"{self.name!r} cannot be made: {self.path} has {self.old!r} {count} times, not once.")
        file.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Outcome:
    """The outcome of a test run."""

    output: str
    returncode: int

    @property
    def passed(self) -> bool:
        """Whether all tests passed."""
        return self.returncode == 0

    @property
    def count(self) -> str:
        """The number of tests that passed, as text."""
        found = re.search(r"\d+ passed", self.output)
        return found[0] if found else "none passed"

    @property
    def caught(self) -> bool:
        """Whether a test failed, and not pytest itself."""
        return self.returncode == 1 and bool(self.first)

    @property
    def first(self) -> str:
        """The test that failed first; empty if none did."""
        found = re.search(r"^FAILED \S*?(\w+)\.py::([^\s\[]+)", self.output, re.MULTILINE)
        return f"{found[2]} ({found[1]})" if found else ""


def copy_checkout(folder: Path) -> None:
    """Copy what the tests need: the package, the tests and pytest's settings."""
    litter = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
    for name in ("src", "tests", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=litter)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "src" / "witness.py").write_text(WITNESS)


def environment(copy: Path) -> dict[str, str]:
    """Return the environment in which a copy comes before the installed package."""
    env = {name: value for name, value in os.environ.items() if name != "SEEKNAL_TEST_PROFILE"}
    env |= {"PYTHONPATH": str(copy / "src"), "BROKEN_COPY": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return env | {"COLUMNS": "300"}  # pytest truncates its summary to the width of the terminal


def run_tests(copy: Path, tests: Iterable[str], *options: str) -> Outcome:
    """Run some tests on a copy, up to the first failure."""
    given = [f"tests/{one}" for one in tests]
    options = ("-x", "-q", "-p", "witness", "-p", "no:cacheprovider", "--tb=short", *options)
    command = [sys.executable, "-m", "pytest", *given, *options]
    done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)
    return Outcome(done.stdout + done.stderr, done.returncode)


def break_copy(folder: Path, mutation: Mutation) -> Path:
    """Break a copy of the pristine copy in a folder."""
    copy = folder / re.sub(r"\W+", "-", mutation.name)
    shutil.copytree(folder / "pristine", copy)
    mutation.apply(copy / "src" / "seeknal")
    return copy


def check_mutations(pristine: Path, mutations: Sequence[Mutation]) -> None:
    """Check that every mutation can be made.

    Raises:
        SystemExit: Some do not fit the code; the message names all of them.
    """
    problems = []
    for mutation in mutations:
        trial = pristine.with_name("trial")
        shutil.copytree(pristine / "src", trial)
        try:
            mutation.apply(trial / "seeknal")
        except (SystemExit, OSError) as error:
            problems.append(str(error))
        shutil.rmtree(trial)
    if problems:
        raise SystemExit("\n".join([*problems, "The code has become another: bring the mutations up to date."]))
