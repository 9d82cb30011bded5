"""Moving a registry between a file in a home and a database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seeknal.config import checked_registry
from seeknal.errors import DefinitionError, StoreError
from seeknal.registry import REGISTRY_FILE, has_registry
from seeknal.registry.sql.copying import copy, unfreeze
from seeknal.registry.sql.registry import SqlRegistry
from seeknal.registry.sqlite import file_of
from seeknal.registry.sqlite.implementation import SqliteRegistry
from seeknal.system import folders
from seeknal.system.home_identity import identify
from seeknal.system.home_moved import note_registry_here
from seeknal.system.object_client import ObjectClient
from seeknal.system.object_place import Owner, noted_place, owner_of, put_owner
from seeknal.system.object_storage import hashed, key_of_registry
from seeknal.system.postgres.sessions import imported
from seeknal.system.storage import Address
from seeknal.system.urls import shown


@dataclass(frozen=True)
class Migrated:
    """A registry that was copied.

    Args:
        source: Where it was, without passwords.
        target: Where it is now.
        rows: The number of rows in each table, which both have.
        sha256: The hash of all rows, which both have.
        switch: What to do so that the store uses the copy.
    """

    source: str
    target: str
    rows: dict[str, int]
    sha256: str
    switch: str


def migrate_registry(source: str, target: str, *, storage: str | None = None) -> Migrated:
    """Copy a registry, as of one moment, and compare all rows. It can be interrupted and run again; the source stays as it is.

    If the tables lie in an object store, they belong to the copy from then on.

    Args:
        source: The folder of a home, or the URL of a PostgreSQL database.
        target: The same. Its registry is created if it is missing.
        storage: The object store of the settings; it counts if the registry at the source describes the tables there.

    Raises:
        DefinitionError: There is no registry at the source, or the target has other content.
        StoreError: A database or the object store cannot be used, or belongs to another home.
    """
    old, new = _address(source, "FROM"), _address(target, "TO")
    if not has_registry(old):
        raise DefinitionError(f"There is no registry in {shown(source)}, so nothing to copy. Name its home or its URL.")
    before, after = _opened(old), _opened(new)
    place = _place(old, new, before.home, storage)
    owner = place and _owner(place, old, new)
    content = copy(before, after)
    if home := hashed(place) if place else identify(old.home).name if old.registry is None else before.home:
        after.belong_to(home)
    if place and owner:
        put_owner(ObjectClient(place), place, owner)
    if new.registry:
        switch = f'Write registry = "{shown(target)}" into seeknal.toml, or set SEEKNAL_REGISTRY, wherever the store is used.'
        if old.registry is None:
            switch += f" Then move {_told(old)} away, so that nothing uses it by mistake."
    else:
        after.take(unfreeze, writes=True)
        note_registry_here(new.home)
        switch = "Remove registry from seeknal.toml, and SEEKNAL_REGISTRY from the environment."
    return Migrated(_told(old), _told(new), content.rows, content.sha256, switch)


def _place(old: Address, new: Address, described: str | None, storage: str | None) -> str | None:
    """Return the object store with the tables that a registry describes; None if they lie in a folder."""
    homes = [one.home for one in (old, new) if one.registry is None]
    if url := next(filter(None, map(noted_place, homes)), None):
        return url
    return storage if storage and described == hashed(storage) else None


def _owner(place: str, old: Address, new: Address) -> Owner | None:
    """Return whose a place is to be after a registry was copied; None if nobody has used it yet.

    Raises:
        StoreError: It does not belong to the registry at the source.
    """
    owner = owner_of(ObjectClient(place), place)
    if owner is None:
        return None
    keys = [key_of_registry(one.registry) if one.registry else "" for one in (old, new)]
    if owner.moving or owner.registry not in keys or (not owner.registry and owner.home not in _names(old, new)):
        raise StoreError(f"The tables of that registry lie in {place}, which belongs to another home.")
    name = owner.home if new.registry else identify(new.home).name
    return Owner(name, owner.place, keys[1])


def _names(*addresses: Address) -> list[str]:
    return [identify(one.home).name for one in addresses if one.registry is None]


def _address(place: str, argument: str) -> Address:
    if "://" in place:
        return Address(Path(), registry=checked_registry(place, argument))
    return Address(folders.named(place).resolve())


def _opened(address: Address) -> SqlRegistry:
    if address.registry is None:
        return SqliteRegistry(file_of(address.home))  # also if it was moved from there
    imported()
    from seeknal.registry.postgres.implementation import PostgresRegistry

    return PostgresRegistry(address.registry)


def _told(address: Address) -> str:
    return shown(address.registry) if address.registry else str(address.home / REGISTRY_FILE)
