"""The identity of a home: a name that is generated once and that copies of the home do not keep.

Besides the name, the identity file has the inodes of the home's folder and of the file itself. Renaming a home keeps both. In a
copy, whether by `cp -r`, from an archive or on another disk, the inodes differ, and the copy takes a name of its own.
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
        """Return whether rows marked with a name are this home's. Rows without a name are of an early release, and no copy's."""
        return name == self.name or (not name and not self.is_copy)


@dataclass(frozen=True)
class _Note:
    name: str
    is_copy: bool
    folder: int
    file: int


def identify(home: Path) -> Identity:
    """Return the identity of the home in a folder. A home without a name, or with that of its original, takes a new one.

    Raises:
        StoreError: The identity file cannot be read or written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        found = _read(home)
        if found is None or not _is_in_place(found, home):
            with exclusive_lock(home / _LOCK):  # and look again: another process may have written the file
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
    """Write a new identity into a folder that is filled from another home."""
    _write(home, is_copy=True)


def _read(home: Path) -> _Note | None:
    try:
        return msgspec.json.decode((home / _NOTE).read_bytes(), type=_Note)
    except FileNotFoundError:
        return None


def _is_in_place(note: _Note, home: Path) -> bool:
    return (note.folder, note.file) == (home.stat().st_ino, (home / _NOTE).stat().st_ino)


def _write(home: Path, *, is_copy: bool) -> _Note:
    """Write the identity file by an atomic rename, because one that is half written would cost the home its name."""
    part = home / f".{_NOTE}.part"
    part.unlink(missing_ok=True)
    with part.open("xb") as file:
        note = _Note(uuid.uuid4().hex, is_copy, home.stat().st_ino, os.fstat(file.fileno()).st_ino)
        file.write(msgspec.json.encode(note))
        file.flush()
        os.fsync(file.fileno())
    part.rename(home / _NOTE)
    return note
