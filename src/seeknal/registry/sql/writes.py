"""The recorded writes to a group. The time of a query for versions does not depend on their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, TextClause, insert, select, text, update

from seeknal.registry.history import versions_after, with_current
from seeknal.registry.records import NEW_ROWS, SnapshotRecord, Version
from seeknal.registry.sql import tables as t
from seeknal.registry.sql.rows import files_of, values_of

if TYPE_CHECKING:
    from seeknal.offline import Commit

_NEVER = 2**62
"""A number greater than that of any snapshot."""

_MINE = "snapshot WHERE group_id = every.record AND version = every.version"


def _query(first: str) -> TextClause:
    """Return the query for versions. It finds the first, the last, and the last snapshot with new rows of each version.

    All of them are found through an index: the recursion steps from one version to the next, and reads none of the snapshots in
    between.

    Args:
        first: Selects groups, each with its first version.
    """
    modes = ", ".join(f"'{mode}'" for mode in NEW_ROWS)
    return text(f"""
        WITH RECURSIVE every(record, version) AS (
            {first}
            UNION ALL
            SELECT record, (SELECT min(version) FROM snapshot WHERE group_id = record AND version > every.version)
            FROM every WHERE every.version IS NOT NULL
        ), ends AS (
            SELECT record,
                   (SELECT min(number) FROM {_MINE}) AS first,
                   (SELECT max(number) FROM {_MINE} AND number <= :until) AS last,
                   (SELECT number FROM {_MINE} AND number <= :until AND mode IN ({modes})
                    ORDER BY number DESC LIMIT 1) AS written
            FROM every WHERE version IS NOT NULL
        )
        SELECT record, last.version, last.number, last.rows, last.files, first.at AS created_at, written.at AS written_at,
               coalesce(nullif(last.schema_text, ''), first.schema_text) AS schema_text
        FROM ends CROSS JOIN snapshot AS last CROSS JOIN snapshot AS first CROSS JOIN snapshot AS written
        WHERE last.group_id = record AND last.number = ends.last
          AND first.group_id = record AND first.number = ends.first
          AND written.group_id = record AND written.number = ends.written
        ORDER BY record, last.version
    """)  # SQLite runs a CROSS JOIN in the order in which it is written


_ONE = _query("SELECT CAST(:record AS BIGINT), min(version) FROM snapshot WHERE group_id = :record")
_ALL = _query("SELECT id, (SELECT min(version) FROM snapshot WHERE group_id = id) FROM feature_group")


def add(db: Connection, group: int, commits: Sequence[Commit]) -> None:
    """Record commits to a group, except those already known. The schema of a version is stored with its first snapshot only."""
    mine = t.snapshot.c.group_id == group
    first = min(commit.snapshot for commit in commits)
    known = set(db.scalars(select(t.snapshot.c.number).where(mine, t.snapshot.c.number >= first)))
    for commit in commits:
        if commit.snapshot in known:
            continue
        of_version = select(t.snapshot.c.number).where(mine, t.snapshot.c.version == commit.version).limit(1)
        omitted = {"schema_text": ""} if db.scalar(of_version) is not None else {}
        db.execute(insert(t.snapshot).values(group_id=group, **values_of(commit) | omitted))
        # After an erasure, older snapshots are read from the files that it wrote.
        for number, files in commit.rewritten.items():
            older = mine & (t.snapshot.c.number == int(number))
            db.execute(update(t.snapshot).where(older).values(files=msgspec.json.encode(files).decode()))


def versions(db: Connection, group: int, until: int | None, unrecorded: Sequence[Commit]) -> list[Version]:
    """Return a group's versions, oldest first; see `Registry.versions`."""
    rows = db.execute(_ONE, {"record": group, "until": _NEVER if until is None else until})
    found = with_current({row.version: _version(row) for row in rows})
    return versions_after(found, unrecorded, until) if unrecorded else found


def snapshots(db: Connection, group: int, first: int) -> list[SnapshotRecord]:
    """Return the writes to a group from the snapshot `first` on, oldest first."""
    names = ("number", "version", "mode", "written", "rows", "next_row_id", "at", "files")
    query = select(*(t.snapshot.c[name] for name in names)).where(t.snapshot.c.group_id == group)
    query = query.where(t.snapshot.c.number >= first)
    return [
        SnapshotRecord(**{**dict(zip(names, row, strict=True)), "files": files_of(row.files)})
        for row in db.execute(query.order_by(t.snapshot.c.number))
    ]


def every_version(db: Connection) -> dict[int, list[Version]]:
    """Return the versions of all groups, by the ids of the groups."""
    found: dict[int, dict[int, Version]] = {}
    for row in db.execute(_ALL, {"until": _NEVER}):
        found.setdefault(row.record, {})[row.version] = _version(row)
    return {group: with_current(versions) for group, versions in found.items()}


def _version(row: Any) -> Version:
    files = files_of(row.files)
    # After an erasure, only the new files say how many rows are left.
    count = row.rows if files is None else sum(file.rows for file in files)
    times = row.created_at, row.number, count, row.written_at
    return Version(row.version, row.schema_text, *times, is_current=False, files=files)
