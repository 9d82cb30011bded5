"""Fixtures of the contract tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from seeknal import FeatureStore


@pytest.fixture
def store(home: Path) -> FeatureStore:
    """The store in the test's own home."""
    return FeatureStore(home=home)
