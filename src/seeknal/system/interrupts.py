"""Ctrl-C raises KeyboardInterrupt, also where a library (DuckDB) turns the signal into an error of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

T = TypeVar("T")

_MADE_OF_ONE = re.compile(
    r"\A(Query interrupted|INTERRUPT Error: .*)\Z|(^|failed: )KeyboardInterrupt:?\s*\Z", re.MULTILINE
)
"""DuckDB's messages for an interrupt: noticed by DuckDB during a query, or raised by Python data that it reads."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Re-raise a library's interrupt error as KeyboardInterrupt; other errors pass through."""
    try:
        yield
    except Exception as error:
        raise_interrupt(error)
        raise


def raise_interrupt(error: Exception) -> None:
    """Raise KeyboardInterrupt if this error is how a library reports an interrupt; otherwise return."""
    if _MADE_OF_ONE.search(str(error)):
        raise KeyboardInterrupt from None


def interruptible_calls(made: T) -> T:
    """Return a proxy for a DuckDB object whose methods raise KeyboardInterrupt on Ctrl-C.

    The cursors and relations that those methods return are wrapped in the same way.
    """
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
