"""Checks of the arguments of public calls: numbers, flags, callbacks and moments."""

from __future__ import annotations

import reprlib
from operator import index

from seeknal.errors import DefinitionError
from seeknal.values.times import Moment, instant

_GREATEST = 2**63 - 1


def check_number(argument: str, value: object, example: int, at_least: int = 1) -> int:
    """Check that an argument is a whole number, and return it, or the greatest that the engine knows if that is smaller.

    Args:
        argument: The name of the argument.
        value: Its value.
        example: A correct value, for the message.
        at_least: The least number that is correct.

    Raises:
        DefinitionError: It is not, or it is too small.

    >>> check_number("sample", 3, 100), check_number("n", 10**30, 5)
    (3, 9223372036854775807)
    """
    number = None if isinstance(value, bool) else _whole(value)
    if number is None or number < at_least:
        raise DefinitionError(
            f"{argument}={reprlib.repr(value)} is not a whole number of at least {at_least}. Write {argument}={example}, for example."
        )
    return min(number, _GREATEST)


def check_share(argument: str, value: object) -> float:
    """Check that an argument is a share, a number from 0 to 1, and return it.

    Raises:
        DefinitionError: It is not.

    >>> check_share("log", 1), check_share("log", 0.01)
    (1.0, 0.01)
    """
    if not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise DefinitionError(
        f"{argument}={reprlib.repr(value)} is not a share, a number from 0 to 1. Write {argument}=0.01 for one in a hundred."
    )


def check_flag(argument: str, value: object) -> bool:
    """Check that an argument is True or False, of Python or NumPy, and return it.

    Raises:
        DefinitionError: It is not.
    """
    if isinstance(value, bool) or type(value).__name__ in {"bool", "bool_"}:  # NumPy need not be imported
        return bool(value)
    raise DefinitionError(
        f"{argument}={reprlib.repr(value)} is neither True nor False. Write {argument}=True or {argument}=False."
    )


def check_progress(on_progress: object) -> None:
    """Check that the argument `on_progress` is None or can be called.

    Raises:
        DefinitionError: It is neither.
    """
    if not (on_progress is None or callable(on_progress)):
        raise DefinitionError(
            f"on_progress={reprlib.repr(on_progress)} cannot be called. Write on_progress=print, for example, or leave it out."
        )


def check_instant(argument: str, value: Moment | int) -> int:
    """Return a moment, or a whole number of microseconds since 1970, as microseconds since 1970 in UTC.

    Raises:
        DefinitionError: It is neither, a moment outside the years 1 to 9999, or a number of more than 64 bits.

    >>> check_instant("before", "1970-01-01T00:00:01"), check_instant("before", 5)
    (1000000, 5)
    """
    number = None if isinstance(value, bool | str) else _whole(value)
    if number is None:
        try:
            return instant(value)  # type: ignore[arg-type]  # any other type is refused there
        except DefinitionError as error:
            raise DefinitionError(f"{argument}: {error}") from None
    if abs(number) > _GREATEST:
        raise DefinitionError(
            f"{argument}={reprlib.repr(value)} is too large for microseconds since 1970. Pass a datetime, a date or ISO 8601 text."
        )
    return number


def _whole(value: object) -> int | None:
    try:
        return index(value)  # type: ignore[arg-type]  # what is not a whole number raises
    except TypeError:
        return None
