"""The health of a home: its contents, its size, and whether what it relies on works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from seeknal.errors import SeeknalError, plural
from seeknal.home.move import KEPT
from seeknal.home.store import FeatureStore
from seeknal.offline import OfflineTable, Snapshot
from seeknal.offline.commit import lacking
from seeknal.serve.parts import View
from seeknal.system.storage import LocalLocation, Location
from seeknal.system.urls import shown
from seeknal.write import leftovers

_SHOWN = 3
_APART = "Tables and registry are not of one moment. Bring back what is missing, or restore both from one backup"
_LIBRARIES = ("duckdb", "deltalake", "pyarrow", "lmdb", "pandas", "polars")


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        what: What was checked.
        fine: Whether it is in order.
        found: What the check found.
    """

    what: str
    fine: bool
    found: str


def examine(store: FeatureStore) -> list[Finding]:
    """Run every check that can be run without changing the home."""
    services = [*_storage(store), *_registry(store)]
    if not all(one.fine for one in services):
        return services  # the other checks would say the same in other words
    return [*_machine(store), *services, *_groups(store), *_online(store)]


def _storage(store: FeatureStore) -> Iterator[Finding]:
    if store.settings.storage is None:
        return
    try:
        store.core.storage.probe()
        yield Finding("storage", True, f"{store.settings.storage} keeps conditional writes")
    except SeeknalError as error:
        yield Finding("storage", False, str(error))


def _registry(store: FeatureStore) -> Iterator[Finding]:
    if (url := store.settings.registry) is None:
        return
    try:
        if not store.exists:
            yield Finding("registry", False, f"There is none at {shown(url)} yet. The first write creates it")
            return
        # Opening it checks that it describes the tables of these settings.
        yield Finding("registry", True, f"{shown(url)}, {plural(len(store.core.registry.groups()), 'feature group')}")
    except SeeknalError as error:
        yield Finding("registry", False, str(error))


def _machine(store: FeatureStore) -> Iterator[Finding]:
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES if find_spec(name))
    yield Finding("versions", True, f"seeknal {version('seeknal')}, {libraries}")
    size, free = _bytes_of(store.home), shutil.disk_usage(store.home).free
    yield Finding("home", True, f"{store.home}, {_size(size)}")
    if (old := store.home / KEPT).exists():
        told = f"the files from before the home was moved, {_size(_bytes_of(old))}, are in {old}: remove them when nothing uses the old settings"
        yield Finding("moved", True, told)
    yield Finding("free disk", free > size, _size(free))
    if left := leftovers.find(store.core.catalog):
        found = f"{plural(len(left), 'folder')}, {_size(sum(map(_bytes_at, left)))}, left by processes that were killed: removed by the next erasure, deletion or optimization"
        yield Finding("left behind", False, found)
    try:
        store.core.check_engine()
        yield Finding("point-in-time join", True, "passes its self-test")
    except SeeknalError as error:
        yield Finding("point-in-time join", False, str(error))


def _groups(store: FeatureStore) -> Iterator[Finding]:
    catalog = store.core.overview().catalog
    for record in catalog.groups():
        offline, name = catalog.offline(record.project, record.name), _group(record.label)
        try:
            if record.windowed:
                # Raises if the source has lost a column that the definition needs.
                features = plural(len(catalog.version(record).schema.features), "feature")
                yield Finding(name, True, f"{features}, computed from {record.windowed.origin}")
                continue
            last = catalog.registry.last_snapshot(record)
            if not offline.exists():
                found = f"its table is not in {offline.location}, and the registry knows its snapshot {last}. {_APART}"
                yield Finding(name, last < 0, "nothing written yet" if last < 0 else found)
                continue
            if (ends := catalog.log(record).newest()) < last:
                found = f"its table ends with snapshot {ends}, and the registry knows its snapshot {last}. {_APART}"
                yield Finding(name, False, found)
                continue
            versions, newest = catalog.versions(record), offline.snapshot()
            for one in versions:
                # Raises if files of the version are gone. For the newest snapshot, read just now, `is_whole` is enough.
                if one.snapshot != newest.number or not newest.is_whole:
                    catalog.snapshot(record, one)
            spare = offline.orphans()
        except SeeknalError as error:
            yield Finding(name, False, str(error))
            continue
        yield from _foreign(record.label, offline, newest)
        found = f"{plural(len(versions), 'version')}, {_size(sum(one.size for one in newest.files))} in {plural(len(newest.files), 'file')}"
        yield Finding(name, True, found)
        if spare:
            size = _size(sum(path.stat().st_size for path in spare))
            yield Finding(
                name,
                False,
                f"{plural(len(spare), 'orphaned file')}, {size}: removed by seeknal optimize {record.label}",
            )


def _foreign(label: str, offline: OfflineTable, newest: Snapshot) -> Iterator[Finding]:
    """Report commits of other programs that left the rows as they were, and table properties that other programs need."""
    if commits := offline.foreign().every:
        told = ", ".join(map(str, commits[-_SHOWN:]))
        yield Finding(
            _group(label), True, f"{plural(len(commits), 'commit')} of other programs left the rows as they are: {told}"
        )
    if names := sorted(lacking(newest)):
        found = (
            f"the table lacks the properties {', '.join(names)}: filters of other readers may find no rows, or old snapshots be lost. "
            f"They are set by the next write or by seeknal optimize {label}"
        )
        yield Finding(_group(label), False, found)


def _group(label: str) -> str:
    # A group and an online table often have one name.
    return f"group {label}"


def _online(store: FeatureStore) -> Iterator[Finding]:
    core = store.core.overview()
    online, view = core.tables, View(core.catalog.last_erasures())
    for table in online.all():
        name = f"table {table.label}"
        try:
            for reason in online.cut_off(table):
                yield Finding(name, False, f"cut off: {reason}")
            for part in online.open_as_registered(table, view).parts:
                there = part.is_online()
                what = (
                    f"version {part.lookup.version} of {part.lookup.group} is {'' if there else 'not '}in {part.place}"
                )
                yield Finding(name, there, what)
        except SeeknalError as error:
            yield Finding(name, False, str(error))


def _bytes_at(location: Location) -> int:
    return _bytes_of(location.path) if isinstance(location, LocalLocation) else 0


def _bytes_of(folder: Path) -> int:
    every = (os.path.join(here, name) for here, _, names in os.walk(folder) for name in names)  # noqa: PTH118 - faster
    # Blocks, not lengths: a sparse file takes less disk than its length.
    return sum(os.lstat(path).st_blocks * 512 for path in every)


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - the next unit
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
