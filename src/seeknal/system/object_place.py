"""What a place in an object store must be able to do, and whose it is.

A table is safe from two writers at once only if the store refuses to write an object that exists. Some servers accept the condition of
such a request and ignore it; then two commits would take the same number, and one would be lost without an error.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from seeknal.errors import StoreError
from seeknal.system.folders import share

OWNER = "seeknal.json"
_NOTE = "storage.json"
_SERVER = re.compile(r"(AWS|AZURE|GOOGLE)_.*(ENDPOINT|EMULATOR|ACCOUNT_NAME|BASE_URL)", re.IGNORECASE)
"""How options of the environment begin that tell which server a URL means."""


class Requests(Protocol):
    """The requests of a store; see `seeknal.system.object_store.ObjectStore`."""

    def get(self, key: str) -> bytes:
        """Return an object."""

    def put(self, key: str, content: bytes | Path, *, is_new: bool = False) -> None:
        """Write an object."""

    def children(self, key: str) -> object:
        """Return the names in a folder."""

    def delete(self, keys: list[str]) -> None:
        """Delete objects."""


class Note(msgspec.Struct, frozen=True):
    """What a home notes of the place of its tables.

    Args:
        url: Its URL.
        place: Its name.
        server: A hash of the options that told which server that was.
    """

    url: str
    place: str
    server: str


class Owner(msgspec.Struct, frozen=True):
    """Whose a place is.

    Args:
        home: The name of the home that the tables belong to.
        place: A name of the place, which no other place has.
        registry: The key of the database whose registry knows the tables; "" for the registry in the folder of the home.
        moving: The name of the home that `seeknal move` is copying here; "" once all of it is here.
    """

    home: str
    place: str
    registry: str = ""
    moving: str = ""


def check_local(home: Path) -> None:
    """Check that the tables of a home lie in its folder.

    Raises:
        StoreError: They lie in an object store.
    """
    if note := _noted(home):
        raise StoreError(
            f"The tables of the home {home} lie in {note.url}. Set storage = {note.url!r} in seeknal.toml, or SEEKNAL_STORAGE."
        )


def claim(store: Requests, url: str, home: Path, name: Callable[[], str], registry: str = "") -> Owner:
    """Return the owner of a place, which this home is from the first use on. A place, or server, that is new to the home is tried.

    Args:
        store: The place.
        url: Its URL.
        home: The folder of the home.
        name: Returns the name of the home.
        registry: The key of the database with its registry; "" if that is in the folder. Homes with one database share a place.

    Raises:
        StoreError: Another home owns the place, the tables of the home lie elsewhere, or the place cannot do what is needed.
    """
    note = _noted(home)
    if note is None and any((home / "offline").glob("*/*/_delta_log")):
        raise StoreError(
            f"The tables of the home {home} lie in its folder, and not in {url}. Give {url} a home of its own, or leave the setting out "
            f"and move them there: seeknal move --storage {url}."
        )
    if note is not None and note.url != url:
        raise StoreError(f"The tables of the home {home} lie in {note.url}, and not in {url}.")
    owner = owner_of(store, url)
    if note is not None and (owner is None or owner.place != note.place):
        raise StoreError(
            f"{url} is not the place that it was when the home {home} used it last, for its tables are not there. Did the server or the "
            "account change?"
        )
    if note is None or note.server != _server():
        probe(store, url, is_needed=owner is None)
    if owner is None:
        owner = Owner(name(), uuid.uuid4().hex, registry)
        try:
            put_owner(store, url, owner, is_new=True)
        except FileExistsError:  # another process of this home, or another home, came first
            return claim(store, url, home, name, registry)
    _check_owner(owner, url, home, name, registry)
    take_note(home, Note(url, owner.place, _server()))
    return owner


def _check_owner(owner: Owner, url: str, home: Path, name: Callable[[], str], registry: str) -> None:
    if owner.moving:
        raise StoreError(f"A home is being moved to {url}, and not all of it is there yet. Run seeknal move again.")
    if owner.registry and not registry:
        raise StoreError(
            f"{url} belongs to a store whose registry is in a database. Set registry to its URL, as the other homes of that store do."
        )
    # Without a database, the registry of another home knows other tables. With one, what counts is which.
    if owner.registry != registry or (not registry and owner.home != name()):
        raise StoreError(
            f"{url} belongs to another home: the tables there are not in the registry of {home}. Give this home a storage of its own, "
            f"such as {url}/NAME. If that home is gone for good, delete the object {url}/{OWNER} and what lies beside it."
        )


def owner_in_place(store: Requests, url: str, place: str) -> Owner:
    """Return the owner of the place that a driver uses, if an executor finds it.

    Args:
        store: The place.
        url: Its URL.
        place: The name of the place.

    Raises:
        StoreError: It finds another place, or none.
    """
    owner = owner_of(store, url)
    if owner is None or owner.place != place:
        raise StoreError(
            f"{url} is another place for an executor than for the driver. Give the executors the options of the driver, such as "
            "AWS_ENDPOINT_URL, in their environment."
        )
    return owner


def put_owner(store: Requests, url: str, owner: Owner, *, is_new: bool = False) -> None:
    """Write whose a place is.

    Raises:
        FileExistsError: With `is_new`, it has an owner.
        StoreError: It cannot be written.
    """
    try:
        store.put(OWNER, msgspec.json.encode(owner), is_new=is_new)
    except FileExistsError:
        raise
    except OSError as error:
        raise StoreError(f"{url} cannot be written: {error}.") from None


def noted_place(home: Path) -> str | None:
    """Return the URL of the object store with the tables of a home, as the home has noted it; None if they lie in its folder."""
    note = _noted(home)
    return note.url if note else None


def note_place(home: Path, url: str, place: str) -> None:
    """Note where the tables of a home lie from now on."""
    take_note(home, Note(url, place, _server()))


def owner_of(store: Requests, url: str) -> Owner | None:
    """Return the owner of a place; None if it has none.

    Raises:
        StoreError: The place cannot be read.
    """
    try:
        return msgspec.json.decode(store.get(OWNER), type=Owner)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise StoreError(f"{url}/{OWNER}, which says whose the tables are, is damaged: {error}.") from None
    except OSError as error:
        raise StoreError(f"{url} cannot be read: {error}.") from None


def probe(store: Requests, url: str, *, is_needed: bool = True) -> None:
    """Try what is needed of a place.

    Args:
        store: The place.
        url: Its URL.
        is_needed: Whether it must be possible to write there; otherwise a user who may only read is left alone.

    Raises:
        StoreError: It cannot be written or listed, or a condition is ignored.
    """
    folder = f"_probe-{uuid.uuid4().hex}"
    key = f"{folder}/once"
    try:
        store.put(key, b"1", is_new=True)
    except OSError as error:
        if is_needed or not isinstance(error, PermissionError):
            raise StoreError(f"{url} cannot be written: {error}.") from None
        return
    try:
        _probe_condition(store, url, key)
        try:
            found = store.children(folder)
        except OSError as error:
            raise StoreError(f"{url} cannot be listed: {error}.") from None
        if list(found) != ["once"]:  # type: ignore[call-overload]
            raise StoreError(f"{url} does not list an object that was just written, and would lose commits.")
    finally:
        try:
            store.delete([key])
        except OSError as error:
            raise StoreError(f"Objects of {url} cannot be deleted: {error}.") from None


def _probe_condition(store: Requests, url: str, key: str) -> None:
    try:
        store.put(key, b"2", is_new=True)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(f"{url} refuses writes that have a condition: {error}.") from None
    raise StoreError(
        f"{url} wrote an object that existed, although it was asked not to (If-None-Match: *). Two writers at once would lose rows "
        "there. Use a server that keeps conditional writes, or a newer release of this one."
    )


def _server() -> str:
    options = [f"{name}={value}" for name, value in sorted(os.environ.items()) if _SERVER.match(name)]
    return hashlib.sha256("\n".join(options).encode()).hexdigest()


def _noted(home: Path) -> Note | None:
    try:
        return msgspec.json.decode((home / _NOTE).read_bytes(), type=Note)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(
            f"{home / _NOTE}, which says where the tables of the home lie, cannot be used: {error}."
        ) from None


def take_note(home: Path, note: Note) -> None:
    """Note a place that was tried. A home that cannot be written keeps no note, so there each process tries it."""
    if _noted(home) == note:
        return
    part = home / f".{uuid.uuid4().hex}.part"
    with suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
        part.write_bytes(msgspec.json.encode(note))
        share(part)
        part.replace(home / _NOTE)
