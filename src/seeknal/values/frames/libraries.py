"""The dataframe libraries that are optional extras, imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from seeknal.errors import DefinitionError
from seeknal.system.extras import how_to_install

EXTRAS = ("pandas", "polars")


def check_installed(kind: str) -> None:
    """Check, before any work is done, that the library for a kind of result is installed.

    Raises:
        DefinitionError: It is not. The message says what to install, or what to ask for instead.
    """
    if kind in EXTRAS:
        library(kind, ' Ask for output="arrow", or install it.')


def library(kind: str, instead: str = "") -> Any:
    """Import pandas or Polars and return the module.

    Raises:
        DefinitionError: The library is not installed.
    """
    try:
        return import_module(kind)
    except ImportError:
        raise DefinitionError(
            f"The result would be a {kind} frame, but {kind} is not installed.{instead} {how_to_install(kind)}"
        ) from None
