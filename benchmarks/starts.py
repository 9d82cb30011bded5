"""What it takes before anything is done: size of an installation, import, and the start of a command."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import environments
import pyarrow as pa
from report import Section

from seeknal import Entity, FeatureStore, Materialization
from seeknal.feature_group import FeatureGroup

_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
_MAIN = "from seeknal.cli import main; main()"
_FEAST = "from feast.cli.cli import cli; cli()"


def measure_all(peers: list[str], rounds: int) -> Iterator[Section]:
    """Measure starts, and sizes where peers take part."""
    section = Section("Starts", "Each in a process of its own; a command from its start to its end.")
    with tempfile.TemporaryDirectory() as home:
        group = FeatureGroup("clicks", Entity("person", ["person_id"]), Materialization("seen_at"), "bench")
        moments = pa.array([0], pa.timestamp("us", "UTC"))
        FeatureStore(home).write(group, pa.table({"person_id": [1], "seen_at": moments, "clicks": [1]}))
        for _ in range(rounds + 1):
            _once(section, home, peers)
    for row in section.rows:
        row.values = row.values[1:]  # the first reads its files from disk
    section.hold("import seeknal", 0.1, section.middle("import", "seeknal"), "s")
    section.hold("seeknal version list", 0.6, section.middle("version list", "seeknal"), "s")
    yield section
    if peers:
        yield _sizes(peers)


def _once(section: Section, home: str, peers: list[str]) -> None:
    own = environments.python("this")
    section.add("import", "seeknal", _imported(own, "seeknal"))
    section.add("import", "DuckDB", _imported(own, "duckdb"))
    section.add("--help", "seeknal", _command(own, _MAIN, ["--help"]))
    section.add("version list", "seeknal", _command(own, _MAIN, ["version", "list", "clicks"], home))
    if "feast" in peers:
        section.add("import", "Feast", _imported(environments.python("feast"), "feast"))
        section.add("--help", "Feast", _command(environments.python("feast"), _FEAST, ["--help"]))
    if "upstream" in peers:
        module = "seeknal.featurestore.duckdbengine.feature_group"
        section.add("import", "upstream Seeknal", _imported(environments.python("upstream"), module))
        section.add("--help", "upstream Seeknal", _command(environments.python("upstream"), _MAIN, ["--help"]))


def _imported(python: Path, module: str) -> float:
    found = subprocess.run([str(python), "-c", _IMPORT.format(module)], check=True, capture_output=True, text=True)
    return float(found.stdout.split()[-1])


def _command(python: Path, code: str, arguments: list[str], home: str | None = None) -> float:
    environment = os.environ | ({"SEEKNAL_HOME": home} if home else {})
    started = time.perf_counter()
    subprocess.run([str(python), "-c", code, *arguments], check=True, capture_output=True, env=environment)
    return time.perf_counter() - started


def _sizes(peers: list[str]) -> Section:
    """Install the core, without extras, and weigh it beside the peers."""
    section = Section("Sizes", "Megabytes of an installation, without pip, and how many distributions it has.", "MB")
    for who, name in [("seeknal, core", "core"), *((peer, peer) for peer in peers)]:
        place = Path(environments.python(name)).parent.parent
        packages = next(place.glob("lib/python*/site-packages"))
        files = [file for file in packages.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
        size = sum(
            file.stat().st_size for file in files if file.relative_to(packages).parts[0] not in {"pip", "setuptools"}
        )
        section.add("installed", who, size / 1e6)
        section.row("installed", who).note(f"{len(environments.versions(name)) - 2} distributions")
    return section
