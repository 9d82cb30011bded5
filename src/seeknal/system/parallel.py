"""Work for all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def parallel_map(function: Callable[..., T], *arguments: Iterable[object], serial: bool = False) -> list[T]:
    """Call a function with each of some arguments, as many at once as there are cores.

    What is little is done one after the other: to start a thread takes as long as to gather some ten thousand values.
    """
    if serial:
        return list(map(function, *arguments))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, *arguments))
