"""Several machines on one table in an object store, which no lock file keeps apart, and the local copies of one machine."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from weakref import finalize

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contract.world import HOUR, NOON, rows, write, written
from seeknal.define.schema import Schema
from seeknal.offline import OfflineTable, Snapshot, Write, spare, trimming
from seeknal.offline.entries import actions_of, packed
from seeknal.offline.log import read_commits
from seeknal.offline.scans import scan_stored
from seeknal.system.copies import Copies, Links
from seeknal.system.duck import Duck
from seeknal.system.object_storage import ObjectLocation
from seeknal.system.object_store import ObjectStore
from seeknal.system.retry import Conflict, retry_on_conflict
from seeknal.system.storage import CACHE_SIZE
from seeknal.values.times import DAY, Interval
from seeknal.values.types import UTC

pytestmark = pytest.mark.slow
SCHEMA = Schema((pa.field("k", pa.int64()),), pa.field("at", UTC), None, (pa.field("x", pa.int64()),))
MACHINE = """
import sys
from pathlib import Path
from seeknal.offline import commit
from test_object_machines import append, machine
url, folder, number, skew, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
clock = commit.now
commit.now = lambda: clock() + skew
for i in range(count):
    append(machine(url, folder), number * 1000 + i)
"""


def machine(url: str, folder: Path) -> OfflineTable:
    """Return a table as a machine opens it that shares nothing but the object store: no lock, no copy, no registry."""
    store = ObjectStore(url, folder, Copies(folder / "copies", CACHE_SIZE), lambda: "the home of all")
    return OfflineTable(ObjectLocation(store, "tables").at("shop", "spend"), Duck(folder / "scratch"))


def append(table: OfflineTable, x: int) -> None:
    """Append a row, in as many attempts as it takes."""
    given = pa.table({"k": [1], "at": pa.array([x * DAY], UTC), "x": [x]})

    def step() -> None:
        table.create(SCHEMA)
        base = table.newest()
        table.write(base, Write(given, SCHEMA, 1, "append", Interval()))

    retry_on_conflict("spend", step)


def xs(table: OfflineTable) -> list[int]:
    """Return all stored values of a table."""
    found = pa.concat_tables(table.columns(table.newest().files, ["x"]))
    return sorted(found["x"].to_pylist())


def test_machines_that_write_at_once_lose_and_double_nothing_and_date_their_commits_in_order(s3, tmp_path):
    """Two of them have clocks that are minutes off."""
    skews = [0, 5 * 60_000_000, -5 * 60_000_000]
    folder = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    running = [
        subprocess.Popen(
            [sys.executable, "-c", MACHINE, s3, str(tmp_path / f"machine-{n}"), str(n), str(skew), "12"],
            env={**os.environ, "PYTHONPATH": folder},
        )
        for n, skew in enumerate(skews)
    ]
    assert [one.wait(timeout=300) for one in running] == [0, 0, 0]
    table = machine(s3, tmp_path / "reader")
    assert xs(table) == sorted(n * 1000 + i for n in range(3) for i in range(12))
    commits = [one for one in read_commits(table.root, 0) if one.written]
    dates = [one.at for one in commits]
    assert len(commits) == 36
    assert dates == sorted(set(dates))
    assert [one.next_row_id for one in commits] == list(range(1, 37))


def test_of_two_commits_on_one_snapshot_the_second_is_a_conflict_and_leaves_no_file(s3, tmp_path):
    first, second = (machine(s3, tmp_path / name) for name in ("first", "second"))
    append(first, 0)
    base = second.newest()
    append(first, 1)
    given = pa.table({"k": [1], "at": pa.array([0], UTC), "x": [2]})
    with pytest.raises(Conflict):
        second.write(base, Write(given, SCHEMA, 1, "append", Interval()))
    files = [path.name for path in first.root.iterdir() if path.name.endswith(".parquet")]
    assert sorted(files) == sorted(file.path for file in first.newest().files)


def test_a_commit_to_a_table_that_another_machine_deleted_is_not_in_the_next_table(s3, tmp_path):
    first, second = (machine(s3, tmp_path / name) for name in ("first", "second"))
    append(first, 0)
    base = second.newest()
    first.location.end_table(ObjectLocation(first.location.store, "trash").at("one"))
    fresh = machine(s3, tmp_path / "first")
    append(fresh, 7)
    given = pa.table({"k": [1], "at": pa.array([0], UTC), "x": [2]})
    with pytest.raises(Conflict):
        second.write(base, Write(given, SCHEMA, 1, "append", Interval()))
    assert xs(machine(s3, tmp_path / "reader")) == [7]
    store = first.location.store
    assert all(
        key.startswith(f"{fresh.root.key}/") or key.endswith("current.json") for key in store.client.under("tables")
    )


def test_a_table_that_was_looked_at_before_it_was_deleted_writes_nothing_for_the_next_one(s3, tmp_path):
    first, second = (machine(s3, tmp_path / name) for name in ("first", "second"))
    append(first, 0)
    assert xs(first) == [0]
    second.location.end_table(ObjectLocation(second.location.store, "trash").at("one"))
    append(second, 7)
    given = pa.table({"k": [1], "at": pa.array([0], UTC), "x": [2]})
    with pytest.raises(Conflict, match="was deleted meanwhile"):
        first.write(second.newest(), Write(given, SCHEMA, 1, "append", Interval()))
    assert xs(machine(s3, tmp_path / "reader")) == [7]


def test_what_is_left_of_a_table_that_is_being_deleted_is_not_read_as_a_table(s3, tmp_path):
    first, second = (machine(s3, tmp_path / name) for name in ("first", "second"))
    append(first, 0)
    append(first, 1)
    assert xs(second) == [0, 1]  # whose log entries are in memory from now on
    (first.root / "_delta_log" / f"{0:020}.json").unlink()  # the first step of a deletion
    with pytest.raises(Conflict, match="was deleted meanwhile"):
        second.snapshot()


def test_what_another_machine_commits_during_a_vacuum_stays(s3, tmp_path):
    first, second = (machine(s3, tmp_path / name) for name in ("first", "second"))
    append(first, 0)

    def commit() -> list[Snapshot]:
        append(second, 1)
        return []

    assert first.vacuum(commit) == []
    assert xs(machine(s3, tmp_path / "reader")) == [0, 1]


def test_what_another_machine_may_still_write_or_read_is_removed_only_a_day_later(s3, tmp_path, monkeypatch):
    first, second = (machine(s3, tmp_path / name) for name in ("first", "second"))
    append(first, 0)
    read = second.newest()
    uncommitted = first.root / "0123456789abcdef.parquet"
    first.root.backing.put_file(uncommitted, b"about to be committed")
    schema = Schema(SCHEMA.keys, SCHEMA.event_time, None, (pa.field("x", pa.int64()), pa.field("y", pa.int64())))
    given = pa.table({"k": [1], "at": pa.array([0], UTC), "x": [1], "y": [1]})
    first.write(first.newest(), Write(given, schema, 2, "overwrite", Interval()))
    assert first.vacuum(list) == []
    assert first.orphans() == []
    assert pa.concat_tables(second.columns(read.files, ["x"]))["x"].to_pylist() == [0]
    monkeypatch.setattr(spare, "GRACE", 0)
    assert first.orphans() == [uncommitted]
    assert {file.path for file in first.vacuum(list)} == {uncommitted.name, *(file.path for file in read.files)}
    assert xs(machine(s3, tmp_path / "reader")) == [1]


def test_many_commits_are_packed_and_read_from_packs_on_every_machine(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(trimming, "_KEPT", 4)
    first, second = (machine(s3, tmp_path / name) for name in ("first", "second"))
    for i in range(40):
        append(first if i % 2 else second, i)
    trimming.trim(first.root)
    assert packed(second.root) >= 20
    assert not (second.root / "_delta_log" / f"{1:020}.json").exists()
    assert xs(machine(s3, tmp_path / "reader")) == list(range(40))
    append(second, 40)
    trimming.trim(second.root)
    numbers = [one.snapshot for one in read_commits(first.root, 0) if one.written]
    assert len(numbers) == 41
    assert all(actions_of(second.root, number) for number in numbers)


# Local copies


@pytest.fixture
def place(s3, monkeypatch):
    """A place of its own, in which the tables of the test lie."""
    monkeypatch.setenv("SEEKNAL_STORAGE", s3)
    return s3


class Counting:
    """A source of copies that counts the bytes which are fetched."""

    def __init__(self, content: bytes):
        self._content = content
        self.fetched = 0

    def name_of(self, key: str) -> str:
        return f"place/{key}"

    def tail(self, _key: str, size: int) -> tuple[bytes, int]:
        self.fetched += min(size, len(self._content))
        return self._content[-size:], len(self._content)

    def ranges(self, _key: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        self.fetched += sum(end - start for start, end in wanted)
        return [self._content[start:end] for start, end in wanted]


@pytest.fixture(scope="module")
def wide() -> bytes:
    sink = pa.BufferOutputStream()
    generator = np.random.default_rng(1)
    columns = {f"c{i}": generator.random(100_000) for i in range(12)} | {"a.b": generator.random(100_000)}
    pq.write_table(pa.table(columns), sink, row_group_size=30_000, write_page_index=True)
    return sink.getvalue().to_pybytes()


def test_a_copy_has_what_was_asked_for_and_fetches_the_rest_when_it_is(wide, tmp_path):
    source, made = Counting(wide), Copies(tmp_path, CACHE_SIZE)
    whole = pq.read_table(pa.BufferReader(wide))
    asked = [["c3"], ["c3", "c7"], ["a.b"], None]
    for number, columns in enumerate(asked):
        before = source.fetched
        reader = Links(made)
        path = reader.copy_of(source, "file", columns)
        found = pq.read_table(path, columns=columns)
        assert found.equals(whole.select(found.column_names))
        if number == 0:
            assert source.fetched - before < len(wide) / 3
        again = source.fetched
        Links(made).copy_of(source, "file", columns)
        assert source.fetched == again
    assert source.fetched < 2.2 * len(wide)


def test_a_query_sees_no_hole_of_a_copy_that_it_read_before_a_column_was_added(wide, tmp_path):
    reader, source = Links(Copies(tmp_path, CACHE_SIZE)), Counting(wide)
    whole = pq.read_table(pa.BufferReader(wide))
    for names in (["c1"], ["c2"], ["C3", "c1"], ["a.b"]):
        path = reader.copy_of(source, "file", names)
        sums = ", ".join(f'sum("{name}")' for name in names)
        found = duckdb.sql(f"SELECT {sums} FROM read_parquet('{path}')").fetchall()[0]
        assert found == pytest.approx([pc.sum(whole[name.lower()]).as_py() for name in names])
    assert source.fetched < len(wide)


def test_a_forked_process_leaves_the_links_of_its_parent_alone(wide, tmp_path):
    reader = Links(Copies(tmp_path, CACHE_SIZE))
    path = reader.copy_of(Counting(wide), "file", None)
    if (pid := os.fork()) == 0:
        try:
            finalize._exitfunc()  # noqa: SLF001 - as at the end of a process
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert Path(path).read_bytes() == wide


def test_a_query_cannot_name_a_column_that_was_not_fetched(s3, tmp_path):
    table = machine(s3, tmp_path / "machine")
    append(table, 1)
    paths = [table.root / file.path for file in table.newest().files]
    assert duckdb.sql(f"SELECT x FROM {scan_stored(paths, ['x'])}").fetchall() == [(1,)]
    with pytest.raises(duckdb.BinderException, match='"k" not found'):
        duckdb.sql(f"SELECT k FROM {scan_stored(paths, ['x'])}")


def test_a_copy_whose_process_was_killed_is_not_taken_for_a_whole_one(wide, tmp_path):
    source, made = Counting(wide), Copies(tmp_path, CACHE_SIZE)
    half = made.new_file("place/file")  # a process that was killed while it wrote leaves no note
    half.write_bytes(wide[: len(wide) // 2])
    reader = Links(made)
    path = reader.copy_of(source, "file", None)
    assert Path(path).read_bytes() == wide


def test_copies_of_an_earlier_boot_of_the_machine_are_not_used(wide, tmp_path):
    source, made = Counting(wide), Copies(tmp_path, CACHE_SIZE)
    Links(made).copy_of(source, "file", None)
    made.folder.rename(tmp_path / "earlier")
    (tmp_path / "earlier").joinpath("note").touch()
    fetched = source.fetched
    Links(Copies(tmp_path, CACHE_SIZE)).copy_of(source, "file", None)
    assert source.fetched == fetched + len(wide)
    assert not (tmp_path / "earlier").exists()


def test_the_copies_used_longest_ago_go_first_but_not_from_those_who_read_them(wide, tmp_path):
    source, made = Counting(wide), Copies(tmp_path, 3 * len(wide))
    reader = Links(made)
    kept = reader.copy_of(source, "0", None)
    for number in range(1, 6):
        Links(made).copy_of(source, str(number), None)
        made.trim()
    assert Path(kept).read_bytes() == wide
    there = sum(
        path.stat().st_blocks * 512 for path in made.folder.iterdir() if path.is_file() and path.suffix != ".json"
    )
    assert there <= 3 * len(wide)
    fetched = source.fetched
    Links(made).copy_of(source, "5", None)
    assert source.fetched == fetched
    Links(made).copy_of(source, "0", None)
    assert source.fetched > fetched


def test_processes_that_fetch_the_same_copies_at_once_read_what_is_stored(place, home):
    fg = written(rows(*range(500)))
    write(fg, rows(*range(500, 1000), times=[NOON + (500 + i) * HOUR for i in range(500)]), mode="append")
    for path in home.glob("scratch/objects/*/*"):
        if path.is_file():
            path.unlink()
    code = "from contract.world import *; print(history(group())['x'].to_pylist() == list(range(1000)))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) for _ in range(4)
    ]
    assert [one.communicate(timeout=120)[0] for one in running] == ["True\n"] * 4
