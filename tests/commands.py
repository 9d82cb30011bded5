"""Running the command line from a test."""

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO

import pytest

from seeknal.cli import main


@dataclass
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def seeknal(*arguments: str) -> Done:
    """Run a command in this process, which is quicker than one of its own."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["seeknal", *arguments])
        try:
            code = main() or 0
        except SystemExit as leaving:
            code = leaving.code or 0
    return Done(code, out.getvalue(), err.getvalue())


def seeknal_process(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """Run a command in a process of its own."""
    program = [sys.executable, "-c", "from seeknal.cli import main; main()", *arguments]
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | (env or {}), check=False)
    return Done(done.returncode, done.stdout, done.stderr)
