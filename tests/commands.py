"""Running the command line from a test."""

import os
import subprocess
import sys
import warnings
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


def seeknal_process(*arguments: str, columns: int = 80) -> Done:
    """Run a command in a process of its own, on a terminal of some width."""
    program = [sys.executable, "-c", "from seeknal.cli import main; main()", *arguments]
    env = os.environ | {"COLUMNS": str(columns)}
    done = subprocess.run(program, capture_output=True, text=True, env=env, check=False)
    return Done(done.returncode, done.stdout, done.stderr)
