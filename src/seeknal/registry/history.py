"""Pure functions that apply further commits to the versions and snapshots that the registry knows, without a database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seeknal.registry.records import NEW_ROWS, GroupState, SnapshotRecord, Version

if TYPE_CHECKING:
    from seeknal.offline import Commit


def versions_after(versions: Sequence[Version], commits: Sequence[Commit], until: int | None = None) -> list[Version]:
    """Return versions as they are after further commits, or after those up to the snapshot `until` if it is given.

    For example, with version 1 at snapshot 1:

        commit   mode      to version   version 1 is at   version 2 is at   current
        2        append    1            2                                   1
        3        append    2            2                 3                 2
        4        rollback  1            4                 3                 1
    """
    found = {version.number: version for version in versions}
    for commit in commits:
        if until is None or commit.snapshot <= until:
            found[commit.version] = _after(commit, found.get(commit.version))
    rewritten = _rewritten(commits)
    return with_current({number: _made_of(version, rewritten) for number, version in found.items()})


def snapshots_after(known: Sequence[SnapshotRecord], commits: Sequence[Commit], first: int) -> list[SnapshotRecord]:
    """Return the writes from the snapshot `first` on as they are after further commits."""
    every = {one.snapshot: _snapshot(one) for one in commits if one.snapshot >= first}
    every = {one.number: one for one in known} | every
    rewritten = _rewritten(commits)
    return [replace(one, files=rewritten.get(one.number, one.files)) for _, one in sorted(every.items())]


def state_after(state: GroupState, commits: Sequence[Commit], since: int | None) -> GroupState:
    """Return the state of a group as it is after commits that the registry could not record."""
    last = max([state.last_snapshot, *(one.snapshot for one in commits)])
    versions = tuple(versions_after(state.versions, commits))
    snapshots = () if since is None else tuple(snapshots_after(state.snapshots, commits, since))
    return replace(state, versions=versions, last_snapshot=last, snapshots=snapshots)


def _rewritten(commits: Sequence[Commit]) -> dict[int, Any]:
    """Return the files by which erasures replaced those of older snapshots, by snapshot number; later commits win."""
    return {int(number): tuple(files) for one in commits for number, files in one.rewritten.items()}


def with_current(versions: dict[int, Version]) -> list[Version]:
    """Return versions, by their numbers, as a list, oldest first; the last one that was written is the current one."""
    last = max((version.snapshot for version in versions.values()), default=0)
    return [replace(version, is_current=version.snapshot == last) for _, version in sorted(versions.items())]


def _after(commit: Commit, before: Version | None) -> Version:
    """Return a version as it is after another commit to it."""
    created = before.created_at if before else commit.at
    # A rollback or a compaction stores no new rows, so it does not change the time of the last write.
    written = commit.at if commit.mode in NEW_ROWS or before is None else before.written_at
    return Version(commit.version, commit.schema_text, created, commit.snapshot, commit.rows, written, is_current=False)


def _made_of(version: Version, rewritten: dict[int, Any]) -> Version:
    # The commit counted the rows before the erasure, so they are counted again.
    if (files := rewritten.get(version.snapshot)) is None:
        return version
    return replace(version, files=files, rows=sum(file.rows for file in files))


def _snapshot(one: Commit) -> SnapshotRecord:
    """Return the record of a commit as the registry would return it."""
    return SnapshotRecord(one.snapshot, one.version, one.mode, one.written, one.rows, one.next_row_id, one.at, None)
