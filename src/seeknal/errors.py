"""Every error that Seeknal raises on purpose, grouped by what the user has to change.

SeeknalError
├── DefinitionError   the code asks for something impossible: change the code
│   ├── NotOnlineError   the requested table was never loaded, or was deleted
│   └── GroupDeletedError   the feature group was deleted while it was in use
├── DataError         the data cannot be accepted as it is: change the data
└── StoreError        the machine or the files prevent it: look at the machine

SeeknalWarning is the category of every notice, so that warning filters can select them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = str(Path(__file__).parent)


class SeeknalError(Exception):
    """Base class of all errors. Keyword arguments become attributes.

    >>> SeeknalError("No table named 'x'.", name="x").name
    'x'
    """

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.__dict__.update(facts)


class DefinitionError(SeeknalError):
    """The definition or the call is wrong: change the code."""


class NotOnlineError(DefinitionError):
    """The requested table is not in the online store: load it."""


class GroupDeletedError(DefinitionError):
    """The feature group was deleted while it was in use, even if another group of that name exists by now."""

    @classmethod
    def of(cls, label: str) -> GroupDeletedError:
        """Return the error for the group with this label, such as "shop/spend"."""
        return cls(f"Feature group {label!r} was deleted in the meantime, with all its data.", label=label)


class DataError(SeeknalError):
    """The data does not fit: change the data."""


class StoreError(SeeknalError):
    """The store cannot do this now: look at the machine."""


def is_away(error: SeeknalError) -> bool:
    """Return whether an error says that a service cannot be reached now, so that the same call may succeed later."""
    return bool(getattr(error, "is_away", False))


@contextmanager
def unfinished(done: str, then: str, **facts: object) -> Iterator[None]:
    """Extend the message of an error in the block: which part of the work is done, and which step completes it.

    Args:
        done: The part that was done before the error.
        then: The step to take once the cause is fixed.
        **facts: More attributes for the error, which keeps its class and its own attributes.

    Raises:
        SeeknalError: The error of the block, with the longer message. A `GroupDeletedError` stays as it is.

    >>> with unfinished("The rows are stored as snapshot 3, but not online", "Run seeknal materialize spend"):
    ...     raise StoreError("Redis is unavailable.")
    Traceback (most recent call last):
    seeknal.errors.StoreError: The rows are stored as snapshot 3, but not online: Redis is unavailable. Run seeknal materialize spend once that is fixed.
    """
    try:
        yield
    except GroupDeletedError:  # the deletion removed what was done, so no step can complete it
        raise
    except SeeknalError as error:
        raise type(error)(f"{done}: {error} {then} once that is fixed.", **vars(error) | facts) from error


class SeeknalWarning(UserWarning):
    """A notice to the user that does not stop the work."""


def plural(count: int, noun: str = "row") -> str:
    """Return a count with its noun, in the plural unless the count is one.

    >>> plural(1), plural(1200), plural(2, "entity")
    ('1 row', '1,200 rows', '2 entities')
    """
    if count != 1:
        # Enough for our nouns: "entity" becomes "entities", while "day" and "key" only get an s.
        noun = f"{noun.removesuffix('y')}ies" if noun.endswith("ty") else f"{noun}s"
    return f"{count:,} {noun}"


def notice(text: str) -> None:
    """Issue a SeeknalWarning, attributed to the line of the user's own code that led to it."""
    # A fixed stacklevel would not do: the number of our own frames between the user's line and this one varies.
    level, frame = 1, sys._getframe()  # noqa: SLF001 - the only access to the frames of the callers
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, SeeknalWarning, stacklevel=level)
