"""How a home is: what is in it, how much room it takes, and whether what it relies on works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from seeknal import leftovers
from seeknal.errors import SeeknalError, tally
from seeknal.offline import OfflineTable, Snapshot
from seeknal.offline.commit import lacking
from seeknal.overview import Overview
from seeknal.served import Erasures
from seeknal.store import FeatureStore

_SHOWN = 3
_LIBRARIES = ("duckdb", "deltalake", "pyarrow", "lmdb", "pandas", "polars")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        what: The thing.
        fine: Whether it is as it should be.
        found: What was seen.
    """

    what: str
    fine: bool
    found: str


def examine(store: FeatureStore) -> list[Finding]:
    """Look at everything that can be looked at without changing it."""
    return [*_machine(store), *_groups(store), *_online(store)]


def _machine(store: FeatureStore) -> Iterator[Finding]:
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES if find_spec(name))
    yield Finding("versions", True, f"seeknal {version('seeknal')}, {libraries}")
    size, free = _bytes_of(store.home), shutil.disk_usage(store.home).free
    yield Finding("home", True, f"{store.home}, {_size(size)}")
    yield Finding("free disk", free > size, _size(free))
    if left := leftovers.find(store.catalog):
        found = f"{tally(len(left), 'folder')}, {_size(sum(map(_bytes_of, left)))}, left by processes that were killed: removed by the next erasure, deletion or optimization"
        yield Finding("left behind", False, found)
    try:
        store.check_engine()
        yield Finding("point-in-time join", True, "answers its test cases rightly")
    except SeeknalError as error:
        yield Finding("point-in-time join", False, str(error))


def _groups(store: FeatureStore) -> Iterator[Finding]:
    catalog = Overview(store.catalog)
    for record in catalog.groups:
        offline = catalog.offline(record.project, record.name)
        try:
            if not offline.exists():
                yield Finding(record.label, True, "nothing written yet")
                continue
            versions, newest = catalog.versions(record), offline.snapshot()
            for one in versions:
                if one.snapshot != newest.number or not newest.is_whole:
                    catalog.snapshot(record, one)
            spare = offline.orphans()
        except SeeknalError as error:
            yield Finding(record.label, False, str(error))
            continue
        yield from _foreign(record.label, offline, newest)
        found = f"{tally(len(versions), 'version')}, {_size(sum(one.size for one in newest.files))} in {tally(len(newest.files), 'file')}"
        yield Finding(record.label, True, found)
        if spare:
            size = _size(sum(path.stat().st_size for path in spare))
            yield Finding(
                record.label,
                False,
                f"{tally(len(spare), 'orphaned file')}, {size}: removed by seeknal optimize {record.label}",
            )


def _foreign(label: str, offline: OfflineTable, newest: Snapshot) -> Iterator[Finding]:
    """Look at what other programs did to a table that can be read all the same, and at what they would read of it."""
    if commits := offline.foreign().every:
        told = ", ".join(map(str, commits[-_SHOWN:]))
        yield Finding(
            label, True, f"{tally(len(commits), 'commit')} of other programs left the rows as they are: {told}"
        )
    if names := sorted(lacking(newest)):
        found = (
            f"the table lacks the properties {', '.join(names)}: filters of other readers may find no rows, or old snapshots be lost. "
            f"They are set by the next write or by seeknal optimize {label}"
        )
        yield Finding(label, False, found)


def _online(store: FeatureStore) -> Iterator[Finding]:
    online, erased = store.online_tables.at_once(), Erasures(store.registry)
    for table in store.registry.tables():
        try:
            for reason in online.cut_off(table):
                yield Finding(table.label, False, f"cut off: {reason}")
            for part in online.open(table, erased).parts:
                there = part.is_online()
                what = (
                    f"version {part.lookup.version} of {part.lookup.group} is {'' if there else 'not '}in {part.place}"
                )
                yield Finding(table.label, there, what)
        except SeeknalError as error:
            yield Finding(table.label, False, str(error))


def _bytes_of(folder: Path) -> int:
    every = (os.path.join(here, name) for here, _, names in os.walk(folder) for name in names)  # noqa: PTH118 - quicker
    return sum(os.lstat(path).st_blocks * 512 for path in every)


def _size(count: float) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - the next unit
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
