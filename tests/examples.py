"""A pytest plugin: each run draws new examples for the properties, from a seed that it prints and that repeats the run."""

from __future__ import annotations

import os
import secrets

import pytest
from hypothesis import core, is_hypothesis_test
from hypothesis.statistics import collector

from contract.profiles import NAME

_SEED = "SEEKNAL_TEST_SEED"
_DRAWN = "examples drawn"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed, unless one is given; the processes of pytest-xdist inherit it."""
    os.environ.setdefault(_SEED, str(secrets.randbelow(10**9)))
    if config.getoption("hypothesis_seed") is None:
        core.global_force_seed = int(os.environ[_SEED])


def pytest_report_header() -> str:
    return f"examples: profile {NAME}, {_SEED}={os.environ[_SEED]}"


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item):
    """Count the examples that a property draws."""
    told = collector.value
    if not is_hypothesis_test(getattr(item, "obj", None)) or told is None:
        return (yield)

    def count(statistics) -> None:
        cases = statistics.get("generate-phase", {}).get("test-cases", [])
        item.user_properties.append((_DRAWN, sum(case["status"] != "invalid" for case in cases)))
        told(statistics)

    with collector.with_value(count):
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    every = [one for some in terminalreporter.stats.values() for one in some]
    calls = [one for one in every if isinstance(one, pytest.TestReport) and one.when == "call"]
    counts = [dict(one.user_properties)[_DRAWN] for one in calls if _DRAWN in dict(one.user_properties)]
    if counts:
        terminalreporter.write_line(
            f"{sum(counts):,} new examples for {len(counts)} properties; to draw them again: {_SEED}={os.environ[_SEED]}"
        )
