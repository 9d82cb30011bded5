"""Moving a registry between a file in a home and a database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seeknal.config import checked_registry
from seeknal.errors import DefinitionError
from seeknal.registry import REGISTRY_FILE, has_registry, open_registry
from seeknal.registry.sql.copying import copy
from seeknal.registry.sql.registry import SqlRegistry
from seeknal.system import folders
from seeknal.system.home_identity import identify
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


def migrate_registry(source: str, target: str) -> Migrated:
    """Copy a registry, as of one moment, and compare all rows. It can be interrupted and run again; the source stays as it is.

    Args:
        source: The folder of a home, or the URL of a PostgreSQL database.
        target: The same. Its registry is created if it is missing.

    Raises:
        DefinitionError: There is no registry at the source, or the target has other content.
        StoreError: A database cannot be used, or the target is of another home.
    """
    old, new = _address(source, "FROM"), _address(target, "TO")
    if not has_registry(old):
        raise DefinitionError(f"There is no registry in {shown(source)}, so nothing to copy. Name its home or its URL.")
    before, after = _opened(old), _opened(new)
    content = copy(before, after)
    if home := identify(old.home).name if old.registry is None else before.home:
        after.belong_to(home)
    if new.registry:
        switch = f'Write registry = "{shown(target)}" into seeknal.toml, or set SEEKNAL_REGISTRY, wherever the store is used.'
        if old.registry is None:
            switch += f" Then move {_told(old)} away, so that nothing uses it by mistake."
    else:
        switch = "Remove registry from seeknal.toml, and SEEKNAL_REGISTRY from the environment."
    return Migrated(_told(old), _told(new), content.rows, content.sha256, switch)


def _address(place: str, argument: str) -> Address:
    if "://" in place:
        return Address(Path(), registry=checked_registry(place, argument))
    return Address(folders.named(place).resolve())


def _opened(address: Address) -> SqlRegistry:
    if address.registry is None:
        return open_registry(address)
    imported()
    from seeknal.registry.postgres.implementation import PostgresRegistry

    return PostgresRegistry(address.registry)


def _told(address: Address) -> str:
    return shown(address.registry) if address.registry else str(address.home / REGISTRY_FILE)
