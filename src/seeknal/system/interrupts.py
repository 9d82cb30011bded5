"""Ctrl-C in a library that makes an error of its own of it: it is a KeyboardInterrupt, as everywhere in Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

T = TypeVar("T")

_MADE_OF_ONE = re.compile(
    r"\A(Query interrupted|INTERRUPT Error: .*)\Z|(^|failed: )KeyboardInterrupt:?\s*\Z", re.MULTILINE
)
"""What DuckDB says when it looked for signals in a query, and when Python raised in what it reads from Python."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt in place of an error that a library made of it."""
    try:
        yield
    except Exception as error:
        raise_interrupt(error)
        raise


def raise_interrupt(error: Exception) -> None:
    """Raise KeyboardInterrupt if a library made an error of it."""
    if _MADE_OF_ONE.search(str(error)):
        raise KeyboardInterrupt from None


def interruptible_calls(made: T) -> T:
    """Return an object of DuckDB whose methods are interruptible, and those of the cursors and relations that they return."""
    return cast("T", _Calls(made))


class _Calls:
    def __init__(self, made: object) -> None:
        self._made = made

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._made, name)
        if not callable(method):
            return method

        def call(*arguments: object, **options: object) -> Any:
            with interruptible():
                result = method(*arguments, **options)
            return _Calls(result) if type(result).__module__.lstrip("_").startswith("duckdb") else result

        return call
