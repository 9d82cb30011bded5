"""Every test has a home of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from seeknal import session


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Keep everything in a fresh folder, and run in another."""
    monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path / "home"))
    for name in ("SEEKNAL_MEMORY_LIMIT", "SEEKNAL_LOOKBACK_DAYS"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield tmp_path / "home"
    session.close()
