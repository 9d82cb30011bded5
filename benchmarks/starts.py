"""The fixed costs: size of an installation, import, and the start of a command."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator

import environments
import pyarrow as pa
from measure import Outcome
from report import Section

from seeknal import Entity, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup

_IMPORT = (
    "import time; t, p = time.perf_counter(), time.process_time(); import {}; "
    "print(time.perf_counter() - t, time.process_time() - p)"
)
_MAIN = "from seeknal.cli import main; main()"
_UPSTREAM = "from seeknal.cli.main import main; main()"
_FEAST = "from feast.cli.cli import cli; cli()"


def measure_all(peers: list[str], rounds: int) -> Iterator[Section]:
    """Measure starts and, if peers participate, sizes."""
    section = Section(
        "Starts",
        "Each in a process of its own; a command from its start to its end. The first, which reads from disk, is left out.",
    )
    with tempfile.TemporaryDirectory() as home:
        group = FeatureGroup("clicks", Entity("person", ["person_id"]), Materialization("seen_at"), "bench")
        moments = pa.array([0], pa.timestamp("us", "UTC"))
        FeatureStore(home).groups.write(group, pa.table({"person_id": [1], "seen_at": moments, "clicks": [1]}))
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
    section.take("import", "seeknal", _imported("this", "seeknal"))
    section.take("import", "DuckDB", _imported("this", "duckdb"))
    section.take("--help", "seeknal", _command("this", _MAIN, ["--help"]))
    section.take("list feature-groups", "seeknal", _command("this", _MAIN, ["list", "feature-groups"], home))
    section.take("version list", "seeknal", _command("this", _MAIN, ["version", "list", "clicks"], home))
    if "feast" in peers:
        section.take("import", "Feast", _imported("feast", "feast"))
        section.take("--help", "Feast", _command("feast", _FEAST, ["--help"]))
    if "upstream" in peers:
        module = "seeknal.featurestore.duckdbengine.feature_group"
        section.take("import", "upstream Seeknal", _imported("upstream", module))
        section.take("--help", "upstream Seeknal", _command("upstream", _UPSTREAM, ["--help"]))


def _imported(peer: str, module: str) -> Outcome:
    """Time the import of a module, within its process."""
    said = _run(peer, [_IMPORT.format(module)])
    return Outcome(*map(float, said.split()[-2:]))


def _command(peer: str, code: str, arguments: list[str], home: str = "") -> Outcome:
    """Time a command, including the start of Python."""
    started, before = time.perf_counter(), os.times()
    _run(peer, [code, *arguments], home)
    after = os.times()
    taken = after.children_user + after.children_system - before.children_user - before.children_system
    return Outcome(time.perf_counter() - started, taken)


def _run(peer: str, code: list[str], home: str = "") -> str:
    variables = environments.variables(peer) | ({"SEEKNAL_HOME": home} if home else {})
    command = [str(environments.python(peer)), "-c", *code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=variables).stdout


def _sizes(peers: list[str]) -> Section:
    """Install the core without extras, and compare its size with the peers."""
    section = Section("Sizes", "Megabytes of an installation, without pip, and how many distributions it has.", "MB")
    for who, name in [("seeknal, core", "core"), *((peer, peer) for peer in peers)]:
        packages = next(environments.python(name).parent.parent.glob("lib/python*/site-packages"))
        files = [file for file in packages.rglob("*") if file.is_file()]
        ours = [file for file in files if file.relative_to(packages).parts[0] not in {"pip", "setuptools"}]
        plain = [file for file in ours if "__pycache__" not in file.parts]
        for case, some in (("installed", plain), ("with __pycache__", ours)):
            section.add(case, who, sum(file.stat().st_size for file in some) / 1e6)
        section.row("installed", who).note(f"{len(environments.versions(name)) - 2} distributions")
    section.hold("core, installed", 450, section.middle("installed", "seeknal, core"), "MB")
    return section
