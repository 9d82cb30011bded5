"""Importing the user's modules, which have the request features of feature views."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from seeknal.errors import DefinitionError


def import_all(names: Iterable[str], folder: Path | None) -> None:
    """Import modules from a folder, or from where Python finds them.

    Args:
        names: The names of the modules.
        folder: The folder, which stays among those that Python searches. None: only these are searched.

    Raises:
        DefinitionError: One cannot be imported; the error of the import is the cause.
    """
    for name in names:
        if folder is not None and str(folder) not in sys.path:
            sys.path.append(str(folder))
        try:
            importlib.import_module(name)
        except Exception as error:
            raise DefinitionError(
                f"Module {name!r} cannot be imported: {type(error).__name__}: {error}. It is looked for in {folder} and where Python finds "
                "modules. Name it as Python does, without .py.",
                name=name,
            ) from error
