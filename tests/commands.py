"""Running the command line from a test."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO

import pytest

from seeknal.cli import main


@dataclass
class Done:
    """The outcome of a command."""

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


def at_once(code: str, processes: int = 4) -> list[str]:
    """Start processes that run code, which waits for a line of input, let all go on at once, and return what they print."""
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for process in running:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=120)[0] for process in running]


def seeknal_process(*arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """Run a command in a process of its own."""
    program = [sys.executable, "-c", "from seeknal.cli import main; main()", *arguments]
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | (env or {}), check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def seeknal_terminal(*arguments: str, columns: int = 80) -> str:
    """Run a command in a process whose output is a terminal, and return the output."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    program = [sys.executable, "-c", "from seeknal.cli import main; main()", *arguments]
    env = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}} | {"NO_COLOR": "1"}
    with subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=its, stderr=subprocess.DEVNULL, env=env):
        os.close(its)
        shown = b""
        with suppress(OSError):  # which says that the process has ended
            while part := os.read(mine, 2**16):
                shown += part
        os.close(mine)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")
