"""The command that installs an extra of Seeknal, from wherever this Seeknal came from.

The package index has another product of the same name, so an extra must not be installed by the name alone.
"""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def how_to_install(extra: str) -> str:
    """Return the last sentence of an error message about a missing extra, with a command that can be pasted into a shell.

    >>> how_to_install("redis").split("pip install ")[1].endswith("[redis]'")
    True
    """
    origin = _origin()
    if "vcs_info" in origin:
        source = f"{origin['vcs_info']['vcs']}+{origin['url']}@{origin['vcs_info']['commit_id']}"
        return f"Run: pip install {shlex.quote(f'seeknal[{extra}] @ {source}')}"
    folder = Path(unquote(urlsplit(origin.get("url", "")).path))
    if "dir_info" not in origin or not (folder / "pyproject.toml").is_file():
        return f"Run in a checkout of Seeknal: pip install {shlex.quote(f'.[{extra}]')}"
    option = "-e " if origin["dir_info"].get("editable") else ""
    return f"Run: pip install {option}{shlex.quote(f'{folder}[{extra}]')}"


def _origin() -> dict[str, Any]:
    """Return where this Seeknal was installed from, as the installer recorded it in direct_url.json (PEP 610), or {}."""
    try:
        return json.loads(distribution("seeknal").read_text("direct_url.json") or "{}")  # type: ignore[no-any-return]
    except (PackageNotFoundError, ValueError):
        return {}
