"""The note of a home that was moved to shared services, which keeps processes with the old settings from using it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal.errors import StoreError
from seeknal.system import folders

if TYPE_CHECKING:
    from seeknal.system.storage import Address

_MOVED = "moved.json"


@dataclass(frozen=True)
class Moved:
    """Where a home was moved to, which its file `moved.json` says.

    Args:
        storage: The URL of the object store with its tables; None: they were not moved.
        registry: The URL of the database with its registry, without a password; None: it was not moved.
        is_complete: Whether all of it is there.
    """

    storage: str | None
    registry: str | None
    is_complete: bool


def moved(home: Path) -> Moved | None:
    """Return where a home was moved to; None if it was not.

    Raises:
        StoreError: The file that says it cannot be read, or is damaged.
    """
    file = home / _MOVED
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{file}, which says where the home was moved to, cannot be read: {error}.") from None
    import msgspec

    try:
        return msgspec.json.decode(content, type=Moved)
    except msgspec.DecodeError as error:
        raise StoreError(f"{file}, which says where the home was moved to, cannot be used: {error}.") from None


def check_moved(address: Address) -> None:
    """Check that an address names the place that a home was moved to.

    Raises:
        StoreError: It does not; the message has the settings that do.
    """
    if not os.path.exists(f"{address.home}/{_MOVED}"):  # noqa: PTH110 - five times as fast, and asked with each access to a table
        return
    note = moved(address.home)
    if note is None or not (
        (note.storage and note.storage != address.storage) or (note.registry and not address.registry)
    ):
        return
    settings = {"storage": note.storage, "registry": note.registry}
    if not note.is_complete:
        options = " ".join(f"--{name} {url}" for name, url in settings.items() if url)
        raise StoreError(
            f"The home {address.home} is being moved, and nothing can use it before that is done. Run: seeknal move {options}."
        )
    lines = ", ".join(f'{name} = "{url}"' for name, url in settings.items() if url)
    raise StoreError(f"The home {address.home} was moved. Write into seeknal.toml, and begin anew: {lines}.")


def note_move(home: Path, note: Moved) -> None:
    """Note where a home was moved to."""
    import msgspec

    folders.put(home / _MOVED, msgspec.json.encode(note))
    folders.share(home / _MOVED)


def note_registry_here(home: Path) -> None:
    """Note that the registry of a home is in its folder again."""
    if note := moved(home):
        note_move(home, replace(note, registry=None))
