"""What all workers share: a task comes in as JSON, the job alone is timed, the answer and the figures go to files.

A worker prepares (imports, the spine in memory, memory to work in), then does its job once. Its peak memory is the kernel's, counted anew
from the start of the job.
"""

from __future__ import annotations

import gc
import json
import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TOUCHED = 768

Task = dict[str, Any]
Job = Callable[[], Any]


def peak() -> float:
    """Give the most memory that the process has had at once, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    """Let the kernel count the peak anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def touch_memory(megabytes: float) -> None:
    """Touch memory and give it back: what a virtual machine has not used for some seconds its host may take, and give back slowly."""
    size = int(max(megabytes, _TOUCHED)) * 2**20
    with mmap.mmap(-1, size) as memory:
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1


def save(answer: Any, place: str) -> None:
    """Write an answer to a file of Arrow's; pandas and Polars frames become tables."""
    import pyarrow as pa

    if not isinstance(answer, pa.Table):
        answer = (
            answer.to_arrow() if hasattr(answer, "to_arrow") else pa.Table.from_pandas(answer, preserve_index=False)
        )
    with pa.OSFile(place, "wb") as sink, pa.ipc.new_file(sink, answer.schema) as writer:
        writer.write_table(answer)


def work(jobs: dict[str, Callable[[Task], Job]]) -> None:
    """Do the job of the task on stdin."""
    task = json.load(sys.stdin)
    job = jobs[task["job"]](task)
    if (had := task.get("had", 0)) is not None:  # None: who counts its children's memory, this would count as well
        touch_memory(had)
    gc.collect()  # or a collection of what the imports left may fall into the time of one worker and not of another
    forget_peak()
    started, processor = time.perf_counter(), time.process_time()
    answer = job()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    figures = {"seconds": seconds, "processor": processor, "megabytes": peak()}
    if isinstance(answer, dict):
        figures |= answer
    elif answer is not None and task.get("answer"):
        save(answer, task["answer"])
    Path(task["figures"]).write_text(json.dumps(figures), encoding="utf-8")
