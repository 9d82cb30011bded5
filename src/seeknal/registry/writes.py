"""What was written to a group, as the registry notes it; the time that an answer takes does not depend on how much it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.schema import CreateIndex

from seeknal.registry import tables as t
from seeknal.registry.records import NEW_ROWS, Version
from seeknal.registry.rows import files_of, values_of

if TYPE_CHECKING:
    from seeknal.offline import Commit

_NEVER = 2**62
"""No snapshot has so great a number."""

_OF_VERSION = "FROM snapshot WHERE group_id = :record AND version = every.version"
_ENDS = text(
    f"""
    WITH RECURSIVE every(version) AS (
        SELECT min(version) FROM snapshot WHERE group_id = :record
        UNION ALL
        SELECT (SELECT min(version) FROM snapshot WHERE group_id = :record AND version > every.version)
        FROM every WHERE every.version IS NOT NULL
    )
    SELECT (SELECT min(number) {_OF_VERSION}) AS first,
           (SELECT max(number) {_OF_VERSION} AND number <= :until) AS last,
           (SELECT number {_OF_VERSION} AND number <= :until AND mode IN ({", ".join(f"'{mode}'" for mode in NEW_ROWS)})
            ORDER BY number DESC LIMIT 1) AS written
    FROM every WHERE version IS NOT NULL
    """
)
"""The first snapshot of each version, the last, and the last with new rows: each found through an index, however many there are."""


def add(db: Connection, group: int, commits: Sequence[Commit]) -> None:
    """Note commits to a group, except those already known; the schema of a version stands beside its first snapshot alone."""
    db.execute(CreateIndex(t.snapshot_of_version, if_not_exists=True))
    mine = t.snapshot.c.group_id == group
    first = min(commit.snapshot for commit in commits)
    known = set(db.scalars(select(t.snapshot.c.number).where(mine, t.snapshot.c.number >= first)))
    for commit in commits:
        if commit.snapshot in known:
            continue
        of_version = select(t.snapshot.c.number).where(mine, t.snapshot.c.version == commit.version).limit(1)
        spared = {"schema_text": ""} if db.scalar(of_version) is not None else {}
        db.execute(insert(t.snapshot).values(group_id=group, **values_of(commit) | spared))
        for number, files in commit.rewritten.items():
            older = mine & (t.snapshot.c.number == int(number))
            db.execute(update(t.snapshot).where(older).values(files=msgspec.json.encode(files).decode()))


def versions(db: Connection, group: int, until: int | None, unheard: Sequence[Commit]) -> list[Version]:
    """List a group's versions, the oldest first; see `Registry.versions`."""
    ends = db.execute(_ENDS, {"record": group, "until": _NEVER if until is None else until})
    numbers = [row for row in ends if row.last is not None]
    named = t.snapshot.c.number.in_({number for row in numbers for number in row})
    rows = {row.number: row for row in db.execute(select(t.snapshot).where(t.snapshot.c.group_id == group, named))}
    found = {rows[one.last].version: _version(rows[one.first], rows[one.last], rows[one.written]) for one in numbers}
    for commit in unheard:
        if until is None or commit.snapshot <= until:
            found[commit.version] = _after(commit, found.get(commit.version))
    for one in unheard:
        rewritten = {int(number): tuple(files) for number, files in one.rewritten.items()}
        found = {n: _made_of(version, rewritten) for n, version in found.items()}
    last = max((version.snapshot for version in found.values()), default=0)
    return [replace(version, is_current=version.snapshot == last) for _, version in sorted(found.items())]


def _version(first: Any, last: Any, written: Any) -> Version:
    files = files_of(last.files)
    count = last.rows if files is None else sum(file.rows for file in files)
    schema = last.schema_text or first.schema_text
    return Version(last.version, schema, first.at, last.number, count, written.at, is_current=False, files=files)


def _after(commit: Commit, before: Version | None) -> Version:
    """Return a version as it is after another commit to it."""
    created = before.created_at if before else commit.at
    written = commit.at if commit.mode in NEW_ROWS or before is None else before.written_at
    return Version(commit.version, commit.schema_text, created, commit.snapshot, commit.rows, written, is_current=False)


def _made_of(version: Version, rewritten: dict[int, Any]) -> Version:
    if (files := rewritten.get(version.snapshot)) is None:
        return version
    return replace(version, files=files, rows=sum(file.rows for file in files))
