"""The tests of the contract hold on Spark, too: a part of them in each run, and all of them with SEEKNAL_TEST_ENGINE=spark.

All, with tables in folders and in an object store: SEEKNAL_TEST_ENGINE=spark python -m pytest tests/contract
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seeknal import FeatureStore
from seeknal.engine.spark.engine import SparkEngine

pytestmark = pytest.mark.slow

CONTRACT = Path(__file__).parent / "contract"
PART = {"test_point_in_time.py": "not folder", "test_rules_as_of.py": "not s3", "test_ways_to_join.py": "not s3"}
"""Files of tests, and which of their tests; each file with tables in one place."""


def test_the_engine_that_the_environment_names_is_the_one_that_joins(monkeypatch):
    monkeypatch.setenv("SEEKNAL_ENGINE", "spark")
    assert isinstance(FeatureStore().core.engine(), SparkEngine)


@pytest.mark.parametrize("file", PART)
def test_the_contract_holds_on_spark(file):
    env = {**os.environ, "SEEKNAL_TEST_ENGINE": "spark", "SEEKNAL_TEST_PROFILE": "fast"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CONTRACT / file), "-k", PART[file]]
    done = subprocess.run(command, cwd=CONTRACT.parents[1], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
