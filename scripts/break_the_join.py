"""Break the point-in-time join on purpose, in thirteen ways, and check that the tests of the contract notice.

    python scripts/break_the_join.py [--some N] [--seed S]

Each mutation is one small textual change in a temporary copy of the package; the checkout is not touched.
The tests first run on an unbroken copy, where they must pass, and then on each broken copy, where they
must fail: the comparison with the oracle on random tables, and the directed tests, each up to the first
failure. The engine's self-test runs separately, and is removed from the copies, because it would stop
most tests before they begin. Takes about five minutes on two cores. Exits with 1 if the tests miss a
mutation, or if one cannot be made because the code has changed: then update MUTATIONS.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

from _breaking import PARALLEL, Mutation, Outcome, break_copy, check_mutations, copy_checkout, environment, run_tests

SUITES = {
    "by the oracle": ("contract/test_asof.py", "contract/test_ways_to_join.py", "contract/test_point_in_time.py"),
    "by a directed test": ("contract/test_rules_time.py", "contract/test_rules_frames.py"),
}

WITHOUT_SELFTEST = Mutation("no self-test", "        selftest.check(self._duck.connection)\n", "", "home/core.py")
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
    Mutation("strict comparison", 'side="right") - 1\n        is_found', 'side="left") - 1\n        is_found'),
    Mutation("ttl off by one", "_FOREVER)) - ttl", "_FOREVER)) - ttl + 1"),
    Mutation(
        "a row of another entity",
        "is_found = (last >= 0) & (codes[last] >= base + times.low[moments])",
        "is_found = last >= 0",
    ),
    Mutation("the first row if none is found", "winners = np.full(len(spine), -1)", "winners = np.full(len(spine), 0)"),
    Mutation("ties in any order", "            stored[tied] = stored[tied][np.lexsort([*by, codes[tied]])]\n", ""),
    Mutation("tie reversed", "np.lexsort([*by,", "np.lexsort([*(-one for one in by),"),
    Mutation("created time forgotten", '("id", "created") if', '("id",) if'),
    Mutation("no created time is the last", "{_BEFORE_ALL})", "{-_BEFORE_ALL})", "engine/duckdb/queries.py"),
    Mutation("a null moment sees all", "fill_null(first - 1)", "fill_null(last)"),
    Mutation("a null key is a key", " & spine.is_valid().to_numpy()", "", "engine/numbering.py"),
    Mutation(
        "position of the spine lost",
        "numbers[left] = first +",
        "numbers[: len(left)] = first +",
        "engine/duckdb/joins.py",
    ),
    Mutation("rows of an earlier part", "numbers[left] = first +", "numbers[left] =", "engine/duckdb/joins.py"),
    Mutation(
        "a value for who has none",
        "pc.if_else(is_known, values.take(piece), null)",
        "values.take(piece)",
        "values/moments.py",
    ),
)


def ask_selftest(copy: Path) -> str:
    """Run a copy's self-test; return "caught" or "passed"."""
    command = [sys.executable, "-c", SELFTEST]
    done = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run_suites(copy: Path) -> list[Outcome]:
    """Run the suites on a copy."""
    return [run_tests(copy, tests, "-m", "not slow") for tests in SUITES.values()]


def break_and_test(folder: Path, mutation: Mutation) -> tuple[str, list[Outcome]]:
    """Break a copy of the pristine copy and run the tests on it."""
    copy = break_copy(folder, mutation)
    selftest, outcomes = ask_selftest(copy), run_suites(copy)
    print(f"  {mutation.name}: {verdict(outcomes)}", flush=True)
    return selftest, outcomes


def verdict(outcomes: Sequence[Outcome]) -> str:
    """Return whether a mutation was caught, as text."""
    return "caught" if any(outcome.caught for outcome in outcomes) else "NOT CAUGHT"


def table(mutations: Sequence[Mutation], results: Sequence[tuple[str, list[Outcome]]]) -> str:
    """Return the results as a Markdown table."""
    lines = [f"| mutation | caught | {' | '.join(f'first {suite}' for suite in SUITES)} | self-test |"]
    lines.append("|---" * (3 + len(SUITES)) + "|")
    for mutation, (selftest, outcomes) in zip(mutations, results, strict=True):
        firsts = " | ".join(outcome.first if outcome.caught else "NONE" for outcome in outcomes)
        lines.append(f"| {mutation.name} | {verdict(outcomes)} | {firsts} | {selftest} |")
    return "\n".join(lines)


def check_unbroken(pristine: Path) -> None:
    """Check that the tests pass on the unbroken copy, and that every mutation can be made.

    Raises:
        SystemExit: A test fails, or a mutation does not fit the code.
    """
    check_mutations(pristine, MUTATIONS)
    if (said := ask_selftest(pristine)) != "passed":
        raise SystemExit(f"The self-test says {said!r} of the unbroken copy.")
    for outcome in run_suites(pristine):
        if not outcome.passed:
            raise SystemExit(f"{outcome.output}\nThe tests fail on the unbroken copy, so they can prove nothing.")
        print(f"  {outcome.count}", flush=True)


def main() -> int:
    """Run the script; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--some", type=int, default=len(MUTATIONS), help="how many of the mutations, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice")
    given = parser.parse_args()
    mutations = Random(given.seed).sample(MUTATIONS, given.some)
    mutations.sort(key=MUTATIONS.index)
    with tempfile.TemporaryDirectory(prefix="seeknal-break-") as name:
        folder = Path(name).resolve()
        copy_checkout(folder / "pristine")
        WITHOUT_SELFTEST.apply(folder / "pristine" / "src" / "seeknal")
        print("The tests on an unbroken copy ...", flush=True)
        check_unbroken(folder / "pristine")
        print("The tests on broken copies ...", flush=True)
        with ThreadPoolExecutor(PARALLEL) as pool:
            results = list(pool.map(partial(break_and_test, folder), mutations))
    print("", table(mutations, results), sep="\n")
    missed = [outcomes for _, outcomes in results if verdict(outcomes) != "caught"]
    for outcome in (outcome for outcomes in missed for outcome in outcomes):
        print(f"\nNot caught; pytest exited {outcome.returncode} and said:\n{outcome.output}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
