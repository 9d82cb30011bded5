"""Commits of other programs after Seeknal's newest one: which of them change rows, and which only rearrange files.

A table is tracked as a sequence of states: the files added and removed since Seeknal's commit, and the layout of the columns. A state
that occurs again is judged as it was the first time, so a change can be undone by restoring the table with another program.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from seeknal.define.columns import ROW_ID
from seeknal.errors import StoreError
from seeknal.offline.commit import delta_schema
from seeknal.offline.entries import actions_of, has_entry, latest
from seeknal.offline.log import (
    UNREADABLE,
    Commit,
    label_of,
    newest_commit,
    note_in,
    read_snapshot,
)
from seeknal.system.stored_paths import StoredPath, backing_of, readable
from seeknal.values.times import show

_SHOWN = 3


@dataclass(frozen=True)
class ForeignCommit:
    """A commit of another program.

    Args:
        number: Its number in the log.
        operation: The operation as the program names it, such as "WRITE" or "OPTIMIZE".
        at: The time of the commit by the program's clock, in microseconds since 1970; None if the log entry has none.
        engine: The name that the program gives itself.
    """

    number: int
    operation: str
    at: int | None
    engine: str

    def __str__(self) -> str:
        details = [self.operation, *([] if self.at is None else [show(self.at)]), self.engine]
        return f"commit {self.number} ({', '.join(details)})"


@dataclass(frozen=True)
class ForeignCommits:
    """The commits of other programs between one commit of Seeknal and the next.

    Args:
        root: The folder of the table.
        commit: Seeknal's commit; None if it has made none yet.
        every: All commits of other programs.
        harmful: Those whose changes to rows or layout are still in effect.
        same: The numbers of the commits after which the table had the same rows as after Seeknal's commit.
        added: The files with changed rows that the table has now, each with the number of the commit that added it.
        removed: The files of Seeknal's commit that the table no longer has.
        has_layout: Whether the columns are still those that Seeknal gave the table.
        is_open: Whether Seeknal has made no later commit, which would include their changes.
    """

    root: StoredPath
    commit: Commit | None
    every: tuple[ForeignCommit, ...]
    harmful: tuple[ForeignCommit, ...]
    same: tuple[int, ...]
    added: Mapping[str, int]
    removed: frozenset[str]
    has_layout: bool
    is_open: bool

    @property
    def way_back(self) -> str:
        """How to undo the harmful commits, as advice for an error message."""
        number = self.same[-1] if self.same else 0 if self.commit is None else self.commit.snapshot
        return f"go back with deltalake: DeltaTable({str(self.root)!r}).restore({number})"

    def refuse(self, until: int | None = None) -> None:
        """Refuse to read or write rows that another program stored, which were neither checked nor numbered.

        Args:
            until: Consider only commits made at or before this instant, in microseconds since 1970; None: all. A commit without a
                time always counts.

        Raises:
            StoreError: Another program changed the rows or the layout, and Seeknal has made no commit since.
        """
        harmful = [one for one in self.harmful if until is None or one.at is None or one.at <= until]
        if not (harmful and self.is_open):
            return
        label, made = label_of(self.root), self.commit
        listed = ", ".join(map(str, harmful[:_SHOWN])) + (", ..." if len(harmful) > _SHOWN else "")
        if made is None:
            raise StoreError(
                f"The folder {self.root} has a table with rows that Seeknal did not write: {listed}. Move the folder away, and "
                "write the rows to the group, or use another name.",
                commits=tuple(harmful),
            )
        if self.has_layout:
            way_out = f"Take them in with `seeknal adopt {label}` or FeatureStore().groups.adopt({label!r}), or {self.way_back}"
        else:
            way_out = f"Read what you need of them with that program, then {self.way_back}"
        raise StoreError(
            f"Another program changed the rows or columns of {label} after snapshot {made.snapshot}: {listed}. They were neither "
            f"checked nor numbered, so answers could be wrong. {way_out}.",
            commits=tuple(harmful),
        )


def foreign_commits(root: StoredPath, commit: Commit | None) -> ForeignCommits:
    """Read the commits of other programs after one of Seeknal's commits; without a commit, since the table was created.

    For example, commit 5 of Seeknal has the files a and b:

        entry   actions                                     came   gone   harmful
        6       OPTIMIZE: a, b to c, dataChange is false    c      a, b   none
        7       WRITE: adds d                               c, d   a, b   7
        8       RESTORE: removes d                          c      a, b   none, as after 6

    After 6 and 8 the rows are those of Seeknal's commit, so `same` is (6, 8).
    """
    state, first = _State(commit), 1 if commit is None else commit.snapshot + 1
    every: list[ForeignCommit] = []
    same: list[int] = []
    harmful: tuple[ForeignCommit, ...] = ()
    is_open = True
    if commit is None:
        # Seeknal creates a table without rows. If the first entry has some, another program created the table.
        made = list(actions_of(root, 0))
        harmful = () if state.apply(made, 0, is_clean=True) else (_foreign(0, made),)
    seen = {state.key: harmful}
    for number in count(first):
        if not has_entry(root, number):
            break
        actions = list(actions_of(root, number))
        if note_in(actions):
            is_open = False
            break
        every.append(_foreign(number, actions))
        is_harmless = state.apply(actions, number, is_clean=not harmful)
        # A state that occurred before keeps its first verdict, so a restore undoes a harmful commit.
        harmful = seen.setdefault(state.key, harmful if is_harmless else (*harmful, every[-1]))
        same += [] if harmful else [number]
    # A program may declare that a commit only rearranges rows, although it lost some or dropped their numbers. Then it is harmful.
    if commit and state.came and not harmful and not _holds(root, every[-1].number, commit, state.came):
        harmful = tuple(one for one in every if one.number in state.came.values())
        same, state.changed = [number for number in same if number < harmful[0].number], dict(state.came)
    gone, has_layout = frozenset(state.gone), state.layout == state.expected
    return ForeignCommits(root, commit, tuple(every), harmful, tuple(same), state.changed, gone, has_layout, is_open)


def newest_foreign(root: StoredPath) -> ForeignCommits:
    """Read the commits of other programs after Seeknal's newest commit."""
    return foreign_commits(root, newest_commit(root, latest(root)))


def vacuumed_by(root: StoredPath, after: int) -> ForeignCommit | None:
    """Return the first vacuum by another program after a snapshot, which may have removed its files; None if there is none."""
    for number in range(after + 1, latest(root) + 1):
        actions = list(actions_of(root, number))
        found = _foreign(number, actions)
        if found.operation.startswith("VACUUM") and not note_in(actions):
            return found
    return None


class _State:
    """The difference between a table and its state after Seeknal's commit."""

    def __init__(self, commit: Commit | None) -> None:
        self.came: dict[str, int] = {}
        self.gone: set[str] = set()
        self.changed: dict[str, int] = {}
        self.layout: object = None
        self.expected: object = None
        self._commit = commit
        self._arranged: set[str] = set()
        self._features: set[str] = set()

    @property
    def key(self) -> object:
        """The identity of the state: states with equal keys have the same files, columns and unreadable Delta Lake features."""
        layout = None if self.layout == self.expected else json.dumps(self.layout)
        return frozenset(self.came), frozenset(self.gone), layout, frozenset(self._features)

    def apply(self, actions: Iterable[dict[str, Any]], number: int, *, is_clean: bool) -> bool:
        """Apply a commit, and return whether it claims to leave rows and columns as they were.

        Args:
            actions: The commit's actions.
            number: Its number.
            is_clean: Whether the state before it had Seeknal's rows only.
        """
        changes = False
        # An action without `dataChange` counts as a change.
        for action in actions:
            if removed := action.get("remove"):
                path = unquote(removed["path"])
                if self.came.pop(path, None) is None:
                    self.gone.add(path)
                self.changed.pop(path, None)
                changes |= removed.get("dataChange", True)
            if added := action.get("add"):
                changes |= added.get("dataChange", True)
                self._add(unquote(added["path"]), number, is_clean and not added.get("dataChange", True))
            if metadata := action.get("metaData"):
                changes |= self._lay_out(_layout(metadata))
            if protocol := action.get("protocol"):
                self._features |= UNREADABLE & set(protocol.get("readerFeatures") or ())
                changes |= bool(self._features)
        return not changes

    def _add(self, path: str, number: int, is_arranged: bool) -> None:
        if path in self.gone:  # a restore brought back a file of Seeknal's commit
            self.gone.remove(path)
            return
        self.came[path] = number
        if is_arranged:  # remembered, so that the file still counts as harmless when a restore brings it back
            self._arranged.add(path)
        if path not in self._arranged:
            self.changed[path] = number

    def _lay_out(self, layout: object) -> bool:
        if self.expected is None:  # the layout of Seeknal's commit; without a commit, that of the first entry
            fields = delta_schema(self._commit.schema).to_json() if self._commit else None
            self.layout = self.expected = _layout({"schemaString": fields}) if fields else layout
        changed, self.layout = layout != self.layout, layout
        return changed


def _layout(metadata: dict[str, Any]) -> object:
    """Return the layout of the stored rows: names and types of the columns (in any order), partitions and column mapping."""
    fields = json.loads(metadata["schemaString"])["fields"]
    columns = sorted([one["name"], json.dumps(one["type"], sort_keys=True)] for one in fields)
    mapping = (metadata.get("configuration") or {}).get("delta.columnMapping.mode", "none")
    return [columns, metadata.get("partitionColumns") or [], mapping]


def _holds(root: StoredPath, number: int, commit: Commit, added: Iterable[str]) -> bool:
    """Return whether a declared rearrangement is plausible: as many rows as Seeknal's commit has, each with a number."""
    names = list(added)
    gone = backing_of(root).missing(root, names)
    numbered = all(_has_numbers(root / name) for name in names if name not in gone)
    return numbered and read_snapshot(root, number).rows == commit.rows


def _has_numbers(file: StoredPath) -> bool:
    metadata = pq.read_metadata(
        readable([file], [])[0]
    )  # the footer's statistics are enough; without them a file is not trusted
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = map(group.column, range(group.num_columns))
        stats = next((one.statistics for one in columns if one.path_in_schema == ROW_ID), None)
        if stats is None or stats.null_count:
            return False
    return True


def _foreign(number: int, actions: Iterable[dict[str, Any]]) -> ForeignCommit:
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    at = info.get("timestamp")
    engine = info.get("engineInfo") or "an unnamed program"
    return ForeignCommit(number, info.get("operation", "unnamed"), None if at is None else at * 1000, engine)
