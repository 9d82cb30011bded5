"""Run one job in a separate process, with limits on memory and time; a limit that is exceeded is reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from environments import HERE, python, variables

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Worker:
    """A participant that does a job.

    Args:
        name: Its name in the report.
        script: Its file in `peers`, without the suffix.
        options: Fields to add to the task; with `family`, the memory of its children counts as well.
        peer: The peer whose environment it runs in. None: the environment of this process.
    """

    name: str
    script: str
    options: dict[str, Any] = field(default_factory=dict)
    peer: str = ""


@dataclass(frozen=True)
class Limits:
    """The limits of a run: gigabytes and seconds."""

    memory: float = 13
    seconds: float = 240


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: seconds, CPU seconds, peak in MB and further facts from the worker; or why there is none."""

    seconds: float = 0
    processor: float = 0
    megabytes: float = 0
    more: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


def run(worker: Worker, task: dict[str, Any], limits: Limits = Limits()) -> Outcome:
    """Run a job with a worker."""
    with tempfile.TemporaryDirectory() as folder:
        figures, errors = Path(folder) / "figures.json", Path(folder) / "errors"
        with errors.open("wb") as complaints:
            process = subprocess.Popen(
                [str(python(worker.peer)), str(HERE / "peers" / f"{worker.script}.py")],
                stdin=subprocess.PIPE,
                stdout=complaints,
                stderr=complaints,
                start_new_session=True,
                cwd=folder,
                env=variables(worker.peer),
            )
        try:
            assert process.stdin  # noqa: S101 - for the types
            process.stdin.write(json.dumps({**task, **worker.options, "figures": str(figures)}).encode())
            process.stdin.close()
            failure, most = _watch(process, limits)
        finally:
            _end(process)
        if failure:
            return Outcome(failure=failure, megabytes=most)
        if not figures.exists():
            lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return Outcome(failure=f"failed: {lines[-1][:160] if lines else f'exit code {process.returncode}'}")
        found = json.loads(figures.read_text(encoding="utf-8"))
        own = found.pop("megabytes")
        family = bool(worker.options.get("family"))
        return Outcome(found.pop("seconds"), 0 if family else found.pop("processor"), most if family else own, found)


def _watch(process: subprocess.Popen[bytes], limits: Limits) -> tuple[str, float]:
    """Wait for a process within its limits; return the limit that it exceeded, and its peak memory, children included."""
    started, most = time.monotonic(), 0.0
    while process.poll() is None:
        most = max(most, sum(map(resident, family(process.pid))))
        if most > limits.memory * 1000:
            return f"killed: over {limits.memory:g} GB", most
        if time.monotonic() - started > limits.seconds:
            return f"killed: over {limits.seconds:g} s", most
        time.sleep(0.1)
    return "", most


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    children: list[str] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():  # a child belongs to the thread that made it
            children += (thread / "children").read_text(encoding="ascii").split()
    for child in children:
        yield from family(int(child))


def resident(pid: int) -> float:
    """Return how many MB of memory a process uses; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 2**20
    except (OSError, IndexError):
        return 0


def processor_seconds(pid: int) -> float:
    """Return how long a process and its descendants have kept a core busy, ended ones that were waited for included."""
    ticks = 0
    for one in family(pid):
        with suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
