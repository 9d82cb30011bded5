"""Checks that arguments of several aggregations share."""

from __future__ import annotations

import reprlib

from seeknal.errors import DefinitionError
from seeknal.names import check_text


def check_column(argument: str, given: object) -> str:
    """Return an argument that names a column or a feature: text that is not empty and has no NUL, as schemas demand.

    Raises:
        DefinitionError: It cannot be a name.
    """
    name = check_text(argument, given)
    if not name:
        raise DefinitionError(
            f"{argument}='' is empty, and no column has an empty name. Write {argument}='x', for example."
        )
    return without_nul(argument, name)


def without_nul(argument: str, text: str) -> str:
    """Return text that has no NUL, which neither files nor SQL can have.

    Raises:
        DefinitionError: It has.
    """
    if "\0" in text:
        raise DefinitionError(f"{argument}={reprlib.repr(text)} has NUL. Leave that character out.")
    return text


def check_count(argument: str, given: object) -> int:
    """Return an argument that is a whole number from 1 to 2**31 - 1, the most values that a list of Arrow can have.

    Raises:
        DefinitionError: It is not.
    """
    if isinstance(given, int) and not isinstance(given, bool) and 1 <= given < 2**31:
        return int(given)
    raise DefinitionError(f"{argument}={reprlib.repr(given)} is not a count. Write {argument}=3, for example.")
