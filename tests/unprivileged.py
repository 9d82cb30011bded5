"""Processes that may do no more than the rights of files say, also when root runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_RIGHTS_OF_ROOT = "-dac_override,-dac_read_search"


def unprivileged(*command: str) -> list[str]:
    """Return the command without root's right to read and write all files."""
    return [*(("setpriv", f"--bounding-set={_RIGHTS_OF_ROOT}") if os.geteuid() == 0 else ()), *command]


def run_unprivileged(code: str) -> str:
    """Run code in a fresh Python without those rights, and give what it prints."""
    done = subprocess.run(unprivileged(sys.executable, "-c", code), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_read_only(folder: Path) -> None:
    """Make a folder and its contents read-only; a process that has a file open can still write to it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)


def make_writable(folder: Path) -> None:
    """Restore the owner's right to write."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
