"""Every error Seeknal raises on purpose, by whose move it is.

SeeknalError
├── DefinitionError   the code asks for something that cannot be: change the code
│   └── NotOnlineError   what is asked for was never loaded, or was deleted
├── DataError         the data cannot be taken as it is: change the data
└── StoreError        the machine or the files are in the way: look at the machine

SeeknalWarning is the category of every notice; it can be filtered by it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


class SeeknalError(Exception):
    """Base of all errors; the facts given to it become attributes.

    >>> SeeknalError("No table named 'x'.", name="x").name
    'x'
    """

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.__dict__.update(facts)


class DefinitionError(SeeknalError):
    """The definition or the call is wrong: change the code."""


class NotOnlineError(DefinitionError):
    """What is asked for is not in the online store: load it."""


class DataError(SeeknalError):
    """The data does not fit: change the data."""


class StoreError(SeeknalError):
    """The store cannot do it now: look at the machine."""


@contextmanager
def unfinished(done: str, then: str, **facts: object) -> Iterator[None]:
    """Say of an error what is done already in spite of it, and what brings the rest about.

    >>> with unfinished("The rows are stored as snapshot 3, but not online", "Run seeknal materialize spend"):
    ...     raise StoreError("Redis is away.")
    Traceback (most recent call last):
    seeknal.errors.StoreError: The rows are stored as snapshot 3, but not online: Redis is away. Run seeknal materialize spend when that is mended.
    """
    try:
        yield
    except SeeknalError as error:
        raise type(error)(f"{done}: {error} {then} when that is mended.", **vars(error) | facts) from error


class SeeknalWarning(UserWarning):
    """Something worth knowing that does not stop the work."""


def plural(count: int, noun: str = "row") -> str:
    """Write a number of things.

    >>> plural(1), plural(1200), plural(2, "file")
    ('1 row', '1,200 rows', '2 files')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def notice(text: str) -> None:
    """Tell the user something, with the line of their own code that led to it."""
    level, frame = 1, sys._getframe()  # noqa: SLF001 - the only way to the frames
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, SeeknalWarning, stacklevel=level)
