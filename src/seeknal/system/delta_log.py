"""The newest snapshot of a Delta table, read from file names alone, so that no Delta library has to be loaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from seeknal.errors import StoreError
from seeknal.system.stored_paths import StoredPath

_ENTRY = re.compile(r"(\d{20})\.(json|checkpoint[.\d]*\.parquet)")


def newest(root: StoredPath, *, entries_only: bool = False) -> int:
    """Return the number of a table's newest snapshot, or -1 if it has none.

    Args:
        root: The table's folder.
        entries_only: Count log entries only, not checkpoints. A checkpoint also reveals a table whose entries were
            lost.

    Raises:
        StoreError: The table's log cannot be read.
    """
    try:
        log = root / "_delta_log"
        # os.listdir is twice as fast as pathlib.
        names = os.listdir(log) if isinstance(log, Path) else [path.name for path in log.iterdir()]  # noqa: PTH208
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise StoreError(f"The offline table {root} cannot be read: {error}") from error
    found = filter(None, map(_ENTRY.fullmatch, names))
    return max((int(one[1]) for one in found if one[2] == "json" or not entries_only), default=-1)
