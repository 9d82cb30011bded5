"""Seeknal and another program commit to one table in random order; every result has each adopted change and each write."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from contract.profiles import PROFILE
from seeknal import Entity, FeatureLookup, FeatureStore, Materialization, StoreError
from seeknal.define.feature_group import FeatureGroup

START = datetime(2024, 1, 1, tzinfo=UTC)
GROUP = FeatureGroup("visits", Entity("user", ["user_id"]), Materialization("at"))
users, days = st.integers(1, 3), st.integers(0, 1)
rows = st.lists(st.tuples(users, days), min_size=1, max_size=3)
steps = st.one_of(
    st.tuples(st.sampled_from(["append", "merge", "overwrite", "foreign append", "foreign append of a copy"]), rows),
    st.tuples(st.sampled_from(["foreign delete", "foreign update"]), users),
    st.tuples(st.sampled_from(["compact", "vacuum", "optimize", "undo", "undo"]), st.none()),
)


class World:
    """A table, and beside it the rows that it should hold: ((user, day), n), in the order in which they count as written.

    When another program appends or updates rows and then rewrites their files, nothing tells any more which of two rows of one
    user and day was first. Nor does anything where it gives some rows of a commit the numbers of others. Any of them may then be
    the answer.

    Args:
        home: Where the store is.
    """

    def __init__(self, home: Path) -> None:
        self.store = FeatureStore(home)
        self.root = home / "offline" / "default" / "visits"
        self.numbers = count()
        self.rows: list[tuple[tuple[int, int], int]] = []
        self.adopted = self.rows
        self.changed: set[tuple[int, int]] = set()  # what the other program appended or updated
        self.unordered = self.unordered_when_adopted = frozenset[tuple[int, int]]()
        self.write("append", [(1, 0), (2, 0)])

    def table(self, keys: list[tuple[int, int]]) -> pa.Table:
        """Make rows with new numbers."""
        at = pa.array([START + timedelta(days=day) for _, day in keys], pa.timestamp("us", "UTC"))
        return pa.table({"user_id": [user for user, _ in keys], "at": at, "n": [next(self.numbers) for _ in keys]})

    def step(self, what: str, argument: object) -> None:
        """Apply one step to the table and to the expected rows."""
        if what in ("append", "merge", "overwrite"):
            self.settle()
            self.write(what, argument)
        elif what.startswith("foreign append"):
            self.append(argument, copied=what.endswith("copy"))
        elif what == "foreign delete":
            DeltaTable(self.root).delete(f"user_id = {argument}")
            self.rows = [row for row in self.rows if row[0][0] != argument]
            self.unordered |= self.changed
        elif what == "foreign update":
            DeltaTable(self.root).update(predicate=f"user_id = {argument}", updates={"n": "n + 1000"})
            same = [row for row in self.rows if row[0][0] != argument]
            self.rows = same + [(key, n + 1000) for key, n in self.rows if key[0] == argument]
            self.unordered |= self.changed
            self.changed |= {key for key, _ in self.rows if key[0] == argument}
        elif what == "compact":
            DeltaTable(self.root).optimize.compact()
            self.unordered |= self.changed
        elif what == "vacuum" and self.rows == self.adopted:
            DeltaTable(self.root).vacuum(0, dry_run=False, enforce_retention_duration=False)
        elif what == "optimize":
            self.settle()
            self.store.groups.optimize("visits")
        elif what == "undo" and self.rows != self.adopted:
            with pytest.raises(StoreError) as caught:
                self.latest()
            exec(f"from deltalake import DeltaTable\n{str(caught.value).partition('with deltalake: ')[2].rstrip('.')}")
            self.rows, self.unordered = self.adopted, self.unordered_when_adopted
            self.changed = set()
        self.check()

    def write(self, mode: str, keys: list[tuple[int, int]]) -> None:
        """Write with Seeknal."""
        made = self.table(keys)
        with warnings.catch_warnings(action="ignore"):
            self.store.groups.write(GROUP, made, mode=mode)
        new = list(zip(keys, made["n"].to_pylist(), strict=True))
        stays = [row for row in self.rows if mode == "append" or (mode == "merge" and row[0] not in keys)]
        self.rows = self.adopted = stays + new
        self.unordered -= set(keys)
        self.unordered_when_adopted = self.unordered

    def append(self, keys: list[tuple[int, int]], *, copied: bool) -> None:
        """Append as another program does, with numbers of rows that are there or without."""
        made = self.table(keys)
        if copied:
            there = DeltaTable(self.root).to_pyarrow_table()["_seeknal_row_id"].to_pylist() or [0]
            ids = [there[i % len(there)] for i in range(len(made))]
            made = made.append_column("_seeknal_row_id", pa.array(ids, pa.int64()))
        write_deltalake(self.root, made, mode="append", schema_mode="merge")
        self.rows = [*self.rows, *zip(keys, made["n"].to_pylist(), strict=True)]
        self.unordered -= set(keys)
        self.changed |= set(keys)
        if copied:
            self.unordered |= {key for key in keys if keys.count(key) > 1}

    def latest(self) -> dict[tuple[int, int], int]:
        """Return the value that reads must show for each user and day."""
        found = self.store.features.history([FeatureLookup("visits")], output="arrow").to_pylist()
        return {(row["user_id"], (row["at"].replace(tzinfo=UTC) - START).days): row["n"] for row in found}

    def settle(self) -> None:
        """Adopt the changes of another program, if there are any."""
        if self.rows == self.adopted:
            return
        self.store.groups.adopt("visits")
        self.adopted, self.unordered_when_adopted = self.rows, self.unordered
        self.changed = set()
        self.check()

    def check(self) -> None:
        """Compare results with the expected rows; if another program changed the table, check that reads are refused."""
        if self.rows == self.adopted:
            found, expected = self.latest(), dict(self.rows)
            for key in self.unordered & expected.keys():
                assert (key, found[key]) in self.rows
                expected[key] = found[key]
            assert found == expected
        else:
            with pytest.raises(StoreError, match="Another program changed"):
                self.latest()


@PROFILE
@given(plan=st.lists(steps, min_size=1, max_size=6))
def test_whatever_another_program_does_answers_are_right_or_refused(tmp_path_factory, plan):
    world = World(tmp_path_factory.mktemp("home"))
    for what, argument in plan:
        world.step(what, argument)
    world.settle()
    world.store.close()
