"""Separate virtual environments for the peers, created on first use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE / ".environments"
PEERS = ["feast", "upstream", "polars", "pandas", "pyspark"]
PINNED = {
    "core": [str(HERE.parent)],
    "feast": ["feast[duckdb,redis]==0.67.0", "duckdb==2.0.1"],
    "upstream": ["seeknal==2.13.0"],
    "polars": ["polars==2.1.0", "pyarrow==26.0.1"],
    "pandas": ["pandas==3.1.1", "pyarrow==26.0.1"],
    "pyspark": ["pyspark==4.0.1", "pandas==3.1.1", "pyarrow==26.0.1"],
}


def python(peer: str) -> Path:
    """Return the Python of a peer's environment; Seeknal and bare DuckDB use the one of this process.

    Raises:
        RuntimeError: The environment could not be created.
    """
    if peer not in PINNED:
        return Path(sys.executable)
    place = ROOT / peer
    ready = place / "ready"
    if not ready.exists():
        print(f"making the environment of {peer}: {' '.join(PINNED[peer])}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        install = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *PINNED[peer]]
        if subprocess.run(install, check=False, stdout=sys.stderr).returncode:
            raise RuntimeError(f"{peer} could not be installed: {' '.join(PINNED[peer])}")
        ready.touch()
    return place / "bin" / "python"


def variables(peer: str) -> dict[str, str]:
    """Return the environment variables for a peer's processes.

    Our own PYTHONPATH is removed, and bytecode is cached as on any other machine, even if this process runs without.
    """
    others = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH" if peer in PINNED else ""}
    return {name: value for name, value in os.environ.items() if name not in others}


def versions(peer: str) -> dict[str, str]:
    """Return the version of each distribution in a peer's environment."""
    listed = "import importlib.metadata as m; print(*sorted({f'{d.name}=={d.version}' for d in m.distributions()}))"
    command = [str(python(peer)), "-c", listed]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=variables(peer)).stdout
    return dict(one.split("==", 1) for one in found.split())
