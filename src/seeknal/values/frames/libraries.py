"""The libraries of frames that are extras."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from seeknal.errors import DefinitionError
from seeknal.system.extras import how_to_install

EXTRAS = ("pandas", "polars")


def check_installed(kind: str) -> None:
    """Refuse a kind of answer whose library is not there, before any work is done.

    Raises:
        DefinitionError: It says what to install, and what to ask for instead.
    """
    if kind in EXTRAS:
        library(kind, ' Ask for output="arrow", or install it.')


def library(kind: str, instead: str = "") -> Any:
    """Load pandas or Polars.

    Raises:
        DefinitionError: It is not installed.
    """
    try:
        return import_module(kind)
    except ImportError:
        raise DefinitionError(
            f"The answer would be a {kind} frame, and {kind} is not installed.{instead} {how_to_install(kind)}"
        ) from None
