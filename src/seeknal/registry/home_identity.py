"""Which home this is: a name that is made once and that copies of the home do not keep.

Beside the name a home notes the inodes of its folder and of the note itself. Renaming a home keeps both; in a copy,
whether by `cp -r`, from an archive or on another disk, they are others, and the copy takes a name of its own.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import msgspec

from seeknal.errors import StoreError
from seeknal.system.locks import exclusive_lock

_NOTE, _LOCK = "identity.json", "_identity.lock"


@dataclass(frozen=True)
class Identity:
    """A home as other homes see it.

    Args:
        name: Its name, which no other home has.
        is_copy: Whether it was copied or restored from another home.
    """

    name: str
    is_copy: bool

    def owns(self, name: str) -> bool:
        """Tell whether what is marked by a name is this home's. What is not marked is of an early release, and no copy's."""
        return name == self.name or (not name and not self.is_copy)


@dataclass(frozen=True)
class _Note:
    name: str
    is_copy: bool
    folder: int
    file: int


def identify(home: Path) -> Identity:
    """Return which home is in a folder; it takes a name if it has none, or only that of the home it was copied from.

    Raises:
        StoreError: The note cannot be read or written.
    """
    try:
        found = _read(home)
        if found is None or not _is_in_place(found, home):
            with exclusive_lock(home / _LOCK):
                found = _read(home)
                if found is None or not _is_in_place(found, home):
                    found = _write(home, is_copy=found is not None)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreError(
            f"{home / _NOTE}, which says which home this is, cannot be used: {error}. If it is damaged, remove it: "
            "the home takes a new name."
        ) from error
    return Identity(found.name, found.is_copy)


def mark_as_copy(home: Path) -> None:
    """Give a folder that is filled from another home a name of its own."""
    _write(home, is_copy=True)


def _read(home: Path) -> _Note | None:
    try:
        return msgspec.json.decode((home / _NOTE).read_bytes(), type=_Note)
    except FileNotFoundError:
        return None


def _is_in_place(note: _Note, home: Path) -> bool:
    return (note.folder, note.file) == (home.stat().st_ino, (home / _NOTE).stat().st_ino)


def _write(home: Path, *, is_copy: bool) -> _Note:
    """Put a note in place whole: one that is half written would make a copy of the home."""
    part = home / f".{_NOTE}.part"
    part.unlink(missing_ok=True)
    with part.open("xb") as file:
        note = _Note(uuid.uuid4().hex, is_copy, home.stat().st_ino, os.fstat(file.fileno()).st_ino)
        file.write(msgspec.json.encode(note))
        file.flush()
        os.fsync(file.fileno())
    part.rename(home / _NOTE)
    return note
