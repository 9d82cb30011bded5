"""Break the point-in-time join on purpose, in thirteen ways, and see whether the contract's tests notice.

    python scripts/break_the_join.py

Each way is one small change of text in a temporary copy of the package; the checkout is not touched.
The tests run first on an unbroken copy, which has to pass, and then on each broken one, which has to
fail: the comparison with the oracle on random tables, and the directed tests, each up to the first
failure. The package's own self-test of the engine is asked too, and is cut out of the copies, for it
would stop most tests before they begin. Takes about five minutes on two cores. Exits 1 if a change
goes unnoticed by the tests, or cannot be made because the code has become another: then bring
MUTATIONS up to date.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITES = {
    "by the oracle": ("test_asof.py", "test_ways_to_join.py", "test_point_in_time.py"),
    "by a directed test": ("test_rules_time.py", "test_rules_frames.py"),
}
PARALLEL = 2

# Loaded into pytest, so that it is certain which of two installed packages the tests are about.
WITNESS = """
import os, pathlib, seeknal
copy, used = pathlib.Path(os.environ["BROKEN_COPY"]), pathlib.Path(seeknal.__file__)
assert copy in used.parents, f"the tests would import {used}, not the copy in {copy}"
"""


@dataclass(frozen=True)
class Mutation:
    """One change of the package's text.

    Args:
        name: What it does to the join.
        old: Text that the file has exactly once.
        new: What it becomes.
        path: The file, in the package.
    """

    name: str
    old: str
    new: str
    path: str = "engine/asof.py"

    def apply(self, package: Path) -> None:
        """Make the change.

        Raises:
            SystemExit: The text is not there, or more than once.
        """
        file = package / self.path
        text = file.read_text()
        if (count := text.count(self.old)) != 1:
            raise SystemExit(f"{self.name!r} cannot be made: {self.path} has {self.old!r} {count} times, not once.")
        file.write_text(text.replace(self.old, self.new))


WITHOUT_SELFTEST = Mutation("no self-test", "        selftest.check(self._duck.connection)\n", "", "home.py")
SELFTEST = """
import duckdb
from seeknal.engine import selftest
from seeknal.errors import StoreError
import witness
try:
    selftest.check(duckdb.connect())
except StoreError:
    print("caught")
else:
    print("passed")
"""
MUTATIONS = (
    Mutation("strict comparison", 'side="right") - 1\n        has', 'side="left") - 1\n        has'),
    Mutation("ttl off by one", "_FOREVER)) - ttl", "_FOREVER)) - ttl + 1"),
    Mutation("a row of another entity", "has = (at >= 0) & (places[at] >= base + times.low[there])", "has = at >= 0"),
    Mutation("first row for who has none", "found = np.full(len(spine), -1)", "found = np.full(len(spine), 0)"),
    Mutation("ties as they come", "            here[tied] = here[tied][np.lexsort([*by, places[tied]])]\n", ""),
    Mutation("tie reversed", "np.lexsort([*by,", "np.lexsort([*(-one for one in by),"),
    Mutation("created time forgotten", '("id", "created") if', '("id",) if'),
    Mutation("no created time is the last", "{_BEFORE_ALL})", "{-_BEFORE_ALL})", "engine/queries.py"),
    Mutation("a null moment sees all", "fill_null(first - 1)", "fill_null(last)"),
    Mutation("a null key is a key", " & spine.is_valid().to_numpy()", ""),
    Mutation(
        "position of the spine lost", "numbers[left] = first +", "numbers[: len(left)] = first +", "engine/joins.py"
    ),
    Mutation("rows of an earlier part", "numbers[left] = first +", "numbers[left] =", "engine/joins.py"),
    Mutation(
        "a value for who has none", "pc.if_else(is_known, values.take(piece), null)", "values.take(piece)", "columns.py"
    ),
)


@dataclass(frozen=True)
class Outcome:
    """How a suite took it."""

    output: str
    returncode: int

    @property
    def passed(self) -> bool:
        """Whether all tests passed."""
        return self.returncode == 0

    @property
    def count(self) -> str:
        """How many tests passed."""
        found = re.search(r"\d+ passed", self.output)
        return found[0] if found else "none passed"

    @property
    def caught(self) -> bool:
        """Whether a test failed, as against pytest itself."""
        return self.returncode == 1 and bool(self.first)

    @property
    def first(self) -> str:
        """The test that failed first; nothing if none did."""
        found = re.search(r"^FAILED \S*?(\w+)\.py::([^\s\[]+)", self.output, re.MULTILINE)
        return f"{found[2]} ({found[1]})" if found else ""


def copy_checkout(folder: Path) -> None:
    """Copy what the tests need: the package, the tests and pytest's settings."""
    litter = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=litter)
    shutil.copy(ROOT / "pyproject.toml", folder)
    WITHOUT_SELFTEST.apply(folder / "src" / "seeknal")
    (folder / "src" / "witness.py").write_text(WITNESS)


def run_tests(copy: Path) -> list[Outcome]:
    """Run the suites on a copy."""
    return [run_suite(copy, tests) for tests in SUITES.values()]


def environment(copy: Path) -> dict[str, str]:
    """Give the environment in which a copy comes before the installed package."""
    env = {name: value for name, value in os.environ.items() if name != "SEEKNAL_TEST_PROFILE"}
    env |= {"PYTHONPATH": str(copy / "src"), "BROKEN_COPY": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return env | {"COLUMNS": "300"}  # pytest cuts its summary to the width of the terminal


def ask_selftest(copy: Path) -> str:
    """Let a copy's self-test judge it: "caught" or "passed"."""
    command = [sys.executable, "-c", SELFTEST]
    done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run_suite(copy: Path, names: Sequence[str]) -> Outcome:
    """Run some of the contract's tests on a copy, up to the first failure."""
    tests = [f"tests/contract/{name}" for name in names]
    options = ["-x", "-q", "-m", "not slow", "-p", "witness", "-p", "no:cacheprovider", "--tb=short"]
    command = [sys.executable, "-m", "pytest", *tests, *options]
    done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)
    return Outcome(done.stdout + done.stderr, done.returncode)


def break_and_test(folder: Path, mutation: Mutation) -> tuple[str, list[Outcome]]:
    """Break a copy of the pristine copy and run the tests on it."""
    copy = folder / mutation.name
    shutil.copytree(folder / "pristine", copy)
    mutation.apply(copy / "src" / "seeknal")
    selftest, outcomes = ask_selftest(copy), run_tests(copy)
    print(f"  {mutation.name}: {verdict(outcomes)}", flush=True)
    return selftest, outcomes


def verdict(outcomes: Sequence[Outcome]) -> str:
    """Say whether a mutation was caught."""
    return "caught" if any(outcome.caught for outcome in outcomes) else "NOT CAUGHT"


def table(results: Sequence[tuple[str, list[Outcome]]]) -> str:
    """Write the results as a Markdown table."""
    lines = [f"| mutation | caught | {' | '.join(f'first {suite}' for suite in SUITES)} | self-test |"]
    lines.append("|---" * (3 + len(SUITES)) + "|")
    for mutation, (selftest, outcomes) in zip(MUTATIONS, results, strict=True):
        firsts = " | ".join(outcome.first if outcome.caught else "NONE" for outcome in outcomes)
        lines.append(f"| {mutation.name} | {verdict(outcomes)} | {firsts} | {selftest} |")
    return "\n".join(lines)


def check_unbroken(pristine: Path) -> None:
    """Run the tests on a copy that is as it should be, and see that every mutation can be made.

    Raises:
        SystemExit: A test fails, or a mutation does not fit the code.
    """
    for mutation in MUTATIONS:
        trial = pristine.with_name("trial")
        shutil.copytree(pristine / "src", trial)
        mutation.apply(trial / "seeknal")
        shutil.rmtree(trial)
    if (said := ask_selftest(pristine)) != "passed":
        raise SystemExit(f"The self-test says {said!r} of the unbroken copy.")
    for outcome in run_tests(pristine):
        if not outcome.passed:
            raise SystemExit(f"{outcome.output}\nThe tests fail on the unbroken copy, so they can prove nothing.")
        print(f"  {outcome.count}", flush=True)


def main() -> int:
    """Break the join in every way; give the exit code."""
    with tempfile.TemporaryDirectory(prefix="seeknal-break-") as name:
        folder = Path(name).resolve()
        copy_checkout(folder / "pristine")
        print("The tests on an unbroken copy ...", flush=True)
        check_unbroken(folder / "pristine")
        print("The tests on broken copies ...", flush=True)
        with ThreadPoolExecutor(PARALLEL) as pool:
            results = list(pool.map(partial(break_and_test, folder), MUTATIONS))
    print("", table(results), sep="\n")
    missed = [outcomes for _, outcomes in results if verdict(outcomes) != "caught"]
    for outcome in (outcome for outcomes in missed for outcome in outcomes):
        print(f"\nNot caught; pytest exited {outcome.returncode} and said:\n{outcome.output}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
