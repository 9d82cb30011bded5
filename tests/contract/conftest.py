"""A home for every test, and how many examples Hypothesis tries."""

from __future__ import annotations

from pathlib import Path

import pytest

from seeknal import FeatureStore


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own, which every class of the guide uses."""
    folder = tmp_path / "home"
    monkeypatch.setenv("SEEKNAL_HOME", str(folder))
    return folder


@pytest.fixture
def store(home: Path) -> FeatureStore:
    """The store in that folder."""
    return FeatureStore(home=home)
