"""Registries of earlier releases are migrated, completely or not at all; one of a later release is refused."""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from commands import at_once, seeknal
from seeknal import FeatureStore, StoreError
from seeknal.registry.sql import migrations, upgrade
from unprivileged import make_read_only, make_writable, run_unprivileged

FOLDER = Path(__file__).parent / "homes"
LACKING = {"bbebae5", "cd7e62b"}
"""Releases whose registries lack columns that cannot be null, and so cannot be read as they are."""
NAMES = sorted(file.name.removesuffix(".tar.gz") for file in FOLDER.glob("*.tar.gz"))
UNMIGRATED = [name for name in NAMES if name != "6995b12"]
"""The homes of before migrations were recorded, each with three groups."""


def earlier(name: str, home: Path) -> Path:
    """Replace the test's home by one of an earlier release, and return the file of its registry."""
    with tarfile.open(FOLDER / f"{name}.tar.gz") as archive:
        archive.extractall(home.parent, filter="data")
    (home.parent / name).rename(home)
    return home / "registry.db"


def layout(file: Path) -> dict[str, list[tuple[object, ...]]]:
    """Read the columns of each table, with types, nulls and keys, the constraints' columns and the indexes."""
    with sqlite3.connect(file) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {}
        for name in names:
            columns = [(row[1], row[2], row[3], row[5]) for row in db.execute(f"PRAGMA table_info({name})")]
            references = [row[2:5] + row[6:7] for row in db.execute(f"PRAGMA foreign_key_list({name})")]
            indexes = [
                (row[2], row[3], *(one[2] for one in db.execute(f"PRAGMA index_info({row[1]})")))
                for row in db.execute(f"PRAGMA index_list({name})")
            ]
            found[name] = [*sorted(columns), *sorted(references), *sorted(indexes, key=str)]
    return found


def migration(file: Path) -> str | None:
    """Read the number of the last migration that a registry has had."""
    with sqlite3.connect(file) as db:
        found = db.execute("SELECT name FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        return db.execute("SELECT version_num FROM alembic_version").fetchone()[0] if found else None


def test_the_last_migration_is_the_head():
    folder = Path(migrations.__file__).parent
    scripts = ScriptDirectory(str(folder), version_locations=[str(folder)])
    assert scripts.get_heads() == [upgrade.HEAD]
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == sorted(numbers, reverse=True)
    assert all(f"m{script.revision}_" in script.path for script in scripts.walk_revisions())


@pytest.mark.parametrize("name", UNMIGRATED)
def test_the_registry_of_an_earlier_release_gets_the_tables_that_a_new_one_has(name, home, tmp_path):
    new = FeatureStore(tmp_path / "new")
    file = earlier(name, home)
    assert migration(file) is None
    groups = {
        record.label: len(FeatureStore(home).groups.versions(record.name, project=record.project))
        for record in FeatureStore(home).core.registry.groups()
    }
    assert migration(file) == upgrade.HEAD
    assert layout(file) == layout(new.core.registry.path)
    assert len(groups) == 3
    assert min(groups.values()) > 0


@pytest.mark.parametrize("name", UNMIGRATED)
def test_a_migration_that_fails_changes_nothing_and_is_done_by_the_next_process(name, home, monkeypatch):
    file = earlier(name, home)
    before = layout(file)
    whole = upgrade.upgrade

    def fail(db):
        whole(db)
        db.execute(text("SELECT * FROM no_such_table"))

    monkeypatch.setattr(upgrade, "upgrade", fail)
    if name in LACKING:
        with pytest.raises(StoreError, match="no_such_table"):
            FeatureStore(home).core.registry.groups()
        assert layout(file) == before
        return
    store = FeatureStore(home)  # as on a full disk: it is read as it is
    assert len(store.core.registry.groups()) == 3
    assert isinstance(store.core.registry.tokens(), list)
    with pytest.raises(StoreError, match="no_such_table"):
        store.core.registry.save_group(store.groups.all()[0].group)
    assert layout(file) == before
    monkeypatch.undo()
    store.core.registry.save_group(store.groups.all()[0].group)  # the first write migrates it
    assert migration(file) == upgrade.HEAD
    assert len(store.core.registry.groups()) == 3


def test_many_processes_may_open_an_earlier_home_at_once(home):
    file = earlier("bbebae5", home)
    code = "import sys; from seeknal import FeatureStore; sys.stdin.readline(); print(len(FeatureStore().core.registry.groups()))"
    assert at_once(code) == ["3\n"] * 4
    assert migration(file) == upgrade.HEAD


def test_an_earlier_home_that_cannot_be_written_is_read_as_it_is(home):
    file = earlier("1dbfeef", home)
    make_read_only(home)
    try:
        code = f"from seeknal import FeatureStore; print(len(FeatureStore({str(home)!r}).core.registry.groups()))"
        assert run_unprivileged(code) == "3\n"
    finally:
        make_writable(home)
    assert migration(file) is None


def test_a_home_of_a_later_release_is_refused_before_anything_is_read_or_written(home):
    FeatureStore(home).core.registry.groups()
    with sqlite3.connect(home / "registry.db") as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    before = layout(home / "registry.db")
    with pytest.raises(StoreError, match=r"by a later release of Seeknal \(migration 9999; .*Install that release"):
        FeatureStore(home).core.registry  # noqa: B018 - opening it is what is refused
    told = seeknal("list", "feature-groups")
    assert (told.returncode, "later release" in told.stderr) == (1, True)
    assert layout(home / "registry.db") == before
