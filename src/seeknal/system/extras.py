"""How to install an extra of this Seeknal: from where it came, since the index has another product of that name."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def how_to_install(extra: str) -> str:
    """Return the end of a message that says what to install: a command that can be pasted as it is.

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
    """Return what the installer noted of where this Seeknal came from (PEP 610); nothing if it did not."""
    try:
        return json.loads(distribution("seeknal").read_text("direct_url.json") or "{}")  # type: ignore[no-any-return]
    except (PackageNotFoundError, ValueError):
        return {}
