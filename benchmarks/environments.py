"""Environments of their own for the peers, made when they are first needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE / ".environments"
PEERS = ["feast", "upstream", "polars", "pandas", "pyspark"]
PINNED = {
    "core": [str(HERE.parent)],
    "feast": ["feast[duckdb]==0.67.0", "duckdb==2.0.1"],
    "upstream": ["seeknal==2.13.0"],
    "polars": ["polars==2.1.0", "pyarrow==26.0.1"],
    "pandas": ["pandas==3.1.1", "pyarrow==26.0.1"],
    "pyspark": ["pyspark==4.0.1", "pandas==3.1.1", "pyarrow==26.0.1"],
}


def python(peer: str) -> Path:
    """Give the Python of a peer's environment; Seeknal and bare DuckDB share the one that this runs in.

    Raises:
        RuntimeError: It could not be made.
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


def versions(peer: str) -> dict[str, str]:
    """Give the version of each distribution in a peer's environment."""
    listed = "import importlib.metadata as m; print(*sorted({f'{d.name}=={d.version}' for d in m.distributions()}))"
    found = subprocess.run([str(python(peer)), "-c", listed], check=True, capture_output=True, text=True).stdout
    return dict(one.split("==", 1) for one in found.split())
