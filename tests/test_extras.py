"""Advice on installing an extra installs this Seeknal, not the other product of that name on the public index."""

import json
import re
import shlex
from pathlib import Path

import pytest

from seeknal.system.extras import how_to_install

ROOT = Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def installed_from(folder: Path, monkeypatch, origin: object) -> list[str]:
    """Return the advised command for a package of which an installer recorded the origin."""
    about = folder / "seeknal-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: seeknal\nVersion: 0.1.0\n")
    if origin is not None:
        (about / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(str(folder))
    return shlex.split(how_to_install("redis").partition(": ")[2])


@pytest.mark.parametrize("option", [[], ["-e"]])
def test_an_extra_is_installed_from_the_checkout_that_is_installed(option, tmp_path, monkeypatch):
    checkout = tmp_path / "a check'out"
    checkout.mkdir()
    (checkout / "pyproject.toml").touch()
    origin = {"url": checkout.as_uri(), "dir_info": {"editable": True} if option else {}}
    assert installed_from(tmp_path, monkeypatch, origin) == ["pip", "install", *option, f"{checkout}[redis]"]


def test_an_extra_is_installed_from_the_commit_that_is_installed(tmp_path, monkeypatch):
    origin = {"url": "https://example.org/seeknal.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}
    source = f"seeknal[redis] @ git+https://example.org/seeknal.git@{COMMIT}"
    assert installed_from(tmp_path, monkeypatch, origin) == ["pip", "install", source]


@pytest.mark.parametrize("origin", [None, {"url": "file:///gone", "dir_info": {}}, {"url": "file:///a.whl"}])
def test_an_extra_is_installed_from_a_checkout_where_the_origin_is_unknown(origin, tmp_path, monkeypatch):
    assert installed_from(tmp_path, monkeypatch, origin) == ["pip", "install", ".[redis]"]
    assert how_to_install("redis").startswith("Run in a checkout of Seeknal: ")


def test_no_advice_installs_seeknal_by_its_name_alone():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.py")]
    by_name = re.compile(r"pip3? install [^{\n]*?\bseeknal\b|[`\"]seeknal\[")
    found = [
        f"{page.relative_to(ROOT)}: {line}"
        for page in pages
        if "guide" not in page.parts
        for line in page.read_text().splitlines()
        if by_name.search(line)
    ]
    assert found == []
