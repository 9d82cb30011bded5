"""A registry in PostgreSQL: its URL, its schema, its sessions, and what happens when the server or a connection is gone."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing

import httpx2
import pytest
from sqlalchemy import text

from commands import at_once, seeknal
from contract.world import group, python, rows, write, written
from seeknal import DefinitionError, FeatureLookup, FeatureStore, NotOnlineError, StoreError
from seeknal.config import checked_registry
from seeknal.registry.postgres.implementation import PostgresRegistry
from seeknal.registry.sql import upgrade
from seeknal.registry.sql.tables import metadata
from seeknal.system.postgres import sessions
from seeknal.system.postgres.url import problem
from seeknal.system.urls import shown
from seeknal.values.times import Interval
from servers import Postgres, Server, free_port, wait_for
from test_registry import group_of

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("registry_kind", ["postgres"], indirect=True)]
SECRET = "hunter2"


@pytest.fixture
def registry(home) -> PostgresRegistry:
    """The registry of the test's home."""
    return FeatureStore(home).core.registry


@pytest.fixture
def server():
    """A server of the test's own, which it may kill."""
    found = Postgres().start()
    yield found
    found.stop()


# Its URL


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://host/db", "only postgresql:// is supported"),
        ("registry.db", "only postgresql:// is supported"),
        ("postgresql://host:0/db", "a port is not a number"),
        ("postgresql://host:70000/db", "a port is not a number"),
        ("postgresql://host/db?sslmod=require", "no parameter 'sslmod'. Did you mean 'sslmode'?"),
        ("postgresql://host/db?schema=Team", "the schema 'Team' is not a name"),
        ("postgresql://host/db?schema=pg_x", "the schema 'pg_x' is not a name"),
        ('postgresql://host/db?schema=a"; DROP TABLE token', "is not a name"),
        (f"postgresql://me:{SECRET}/x@host/db", "cannot be parsed"),
        (f"postgresql://me:{SECRET}#@host/db", "cannot be parsed"),
        (f"postgresql://me:{SECRET}%zz@host/db", "cannot be parsed"),
        (f"postgresql://me:{SECRET}/db", "a port is not a number"),
        (f"postgresql://host/db?passwd={SECRET}", "no parameter 'passwd'. Did you mean 'password'?"),
    ],
)
def test_an_invalid_url_is_refused_before_anything_is_done(url, said, monkeypatch, home):
    with pytest.raises(DefinitionError) as caught:
        checked_registry(url, "registry")
    assert said in str(caught.value)
    monkeypatch.setenv("SEEKNAL_REGISTRY", url)
    answer = seeknal("list", "feature-groups")
    assert (answer.returncode, said in answer.stderr, SECRET in answer.stderr) == (1, True, False)
    assert not home.exists()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgres://host",
        "postgresql:///db?host=/var/run/postgresql&schema=team_a",
        "postgresql://me:p%40ss@[::1]:5432,other:5433/db?sslmode=verify-full&sslrootcert=/etc/ca.pem&target_session_attrs=read-write",
        "postgresql://?service=features",
    ],
)
def test_urls_of_libpq_are_valid(url):
    assert problem(url) is None
    assert checked_registry(url, "registry") == url


def test_a_password_is_shown_nowhere(registry_kind, home, postgres, monkeypatch, capfd):
    with postgres.client() as client:
        client.execute(f"CREATE ROLE keeper SUPERUSER LOGIN PASSWORD '{SECRET}'")
    url = postgres.url("keeper").replace("postgres@", f"keeper:{SECRET}@")
    monkeypatch.setenv("SEEKNAL_REGISTRY", url)
    written(rows(1))
    store = FeatureStore(home)
    seen = [repr(store), repr(store.settings), str(store.core.storage), repr(store.core.storage.address)]
    seen += [str(store.core.registry), shown(url), shown(f"{url}&sslpassword={SECRET}&oauth_client_secret={SECRET}")]
    for command in ("info", "status", "doctor", "debug spend", "list feature-groups"):
        answer = seeknal(*command.split())
        assert answer.returncode == 0, answer.stderr
        seen += [answer.stdout, answer.stderr]
    for wrong in (url.replace("/postgres?", "/nowhere?"), url.replace(f":{postgres.port}", f":{free_port()}")):
        monkeypatch.setenv("SEEKNAL_REGISTRY", wrong)
        answer = seeknal("list", "feature-groups")
        assert (answer.returncode, "keeper:***@127.0.0.1" in answer.stderr) == (1, True)
        seen += [answer.stdout, answer.stderr]
    assert SECRET not in "".join([*seen, *capfd.readouterr()])
    monkeypatch.setenv("SEEKNAL_REGISTRY", url)
    assert "keeper:***@127.0.0.1" in seeknal("info").stdout
    with postgres.client() as client:
        client.execute("DROP SCHEMA keeper CASCADE")
        client.execute("DROP ROLE keeper")


def test_a_missing_extra_is_named(postgres_url):
    code = "import sys; sys.modules['psycopg'] = None; from seeknal.cli import main; sys.argv[1:] = ['list', 'feature-groups']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "needs the extra 'postgres'" in done.stderr, "[postgres]" in done.stderr) == (
        1,
        True,
        True,
    )


# Its schema


def test_registries_of_one_database_know_nothing_of_each_other(home, postgres, tmp_path, monkeypatch):
    written(rows(1))
    monkeypatch.setenv("SEEKNAL_REGISTRY", postgres.url("another"))
    other = FeatureStore(tmp_path / "other")
    assert not other.exists
    assert other.core.registry.groups() == []
    assert other.exists
    with postgres.client() as client:
        client.execute("DROP SCHEMA another CASCADE")


def test_text_is_ordered_by_its_bytes_whatever_the_order_of_the_database(registry, postgres):
    with postgres.client() as client:  # whose own order is that of the bytes too, so the columns are asked
        found = client.execute(
            "SELECT table_name, column_name, collation_name FROM information_schema.columns "
            "WHERE table_schema = %s AND data_type IN ('text', 'character varying')",
            [registry.sessions.schema],
        ).fetchall()
    named = {(table, column): collation for table, column, collation in found}
    texts = {
        (table.name, one.name)
        for table in metadata.tables.values()
        for one in table.columns
        if one.type.python_type is str
    }
    assert {named[one] for one in texts} == {"C"}
    assert len(texts) > 30


def test_a_registry_belongs_to_the_tables_of_one_home(home, tmp_path):
    written(rows(1))
    with pytest.raises(StoreError, match="is that of another home, whose tables lie elsewhere"):
        FeatureStore(tmp_path / "other").groups.all()
    home.rename(tmp_path / "moved")
    assert [one.name for one in FeatureStore(tmp_path / "moved").groups.all()] == ["spend"]


def test_many_processes_may_create_a_registry_at_once(home, postgres_url):
    code = "import sys; from seeknal import FeatureStore; sys.stdin.readline(); print(FeatureStore().core.registry.groups())"
    assert at_once(code) == ["[]\n"] * 4


def test_a_registry_of_a_later_release_is_refused_and_one_without_a_migration_gets_it(registry, home):
    number = "UPDATE alembic_version SET version_num = :number"
    registry.take(lambda db: db.execute(text(number), {"number": "9999"}), writes=True)
    with pytest.raises(StoreError, match=r"by a later release of Seeknal \(migration 9999"):
        PostgresRegistry(registry.sessions.url)
    registry.take(lambda db: db.execute(text(number), {"number": upgrade.HEAD}), writes=True)
    assert PostgresRegistry(registry.sessions.url).groups() == []


def test_a_session_goes_on_after_a_migration_by_another_process(registry, postgres):
    for _ in range(10):  # by then its session has prepared the statement
        assert registry.tokens() == []
    with postgres.client() as client:
        client.execute(f"ALTER TABLE {registry.sessions.schema}.token ALTER COLUMN created_at TYPE text")
    assert registry.tokens() == []


def test_a_database_that_cannot_keep_all_text_is_refused(postgres, monkeypatch):
    with postgres.client() as client:
        client.execute("CREATE DATABASE narrow TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    monkeypatch.setenv("SEEKNAL_REGISTRY", postgres.url("a").replace("/postgres?", "/narrow?"))
    with pytest.raises(
        StoreError, match=r"stores text as SQL_ASCII, which lacks characters. Create one with ENCODING 'UTF8'"
    ):
        FeatureStore().groups.all()


def test_a_user_without_rights_is_told_which_one(postgres, monkeypatch):
    with postgres.client() as client:
        client.execute("CREATE ROLE guest LOGIN")
    monkeypatch.setenv("SEEKNAL_REGISTRY", postgres.url("a").replace("postgres@", "guest@"))
    with pytest.raises(StoreError, match="cannot be used: permission denied for database postgres"):
        FeatureStore().groups.all()


def test_settings_of_the_database_change_no_promise(home, postgres, monkeypatch, registry_kind):
    hostile = "-c%20default_transaction_read_only%3Don%20-c%20default_transaction_isolation%3Dserializable"
    monkeypatch.setenv("SEEKNAL_REGISTRY", f"{os.environ['SEEKNAL_REGISTRY']}&options={hostile}")
    written(rows(1))
    write(group(), rows(1, 2), mode="append")
    assert FeatureStore().groups.all()[0].name == "spend"


def test_text_with_a_nul_is_refused_before_anything_is_stored(registry):
    before = registry.stamp()
    given = group_of("spend")
    for text_with_nul in ("\0", "what\0else"):
        with pytest.raises(DefinitionError, match="stores no text with a NUL character"):
            registry.save_group(type(given)(given.name, given.entity, given.materialization, "shop", text_with_nul))
    assert (registry.groups(), registry.entities(), registry.stamp()) == ([], [], before)


# Its sessions


def sessions_in(postgres: Postgres) -> int:
    with postgres.client() as client:
        count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mine'"
        return client.execute(count).fetchone()[0]


def test_the_stores_of_a_process_share_a_few_sessions_which_end_with_them(home, postgres, monkeypatch):
    monkeypatch.setenv("SEEKNAL_REGISTRY", f"{os.environ['SEEKNAL_REGISTRY']}&application_name=mine")
    stores = [FeatureStore(home) for _ in range(20)]
    for store in stores:
        store.core.registry.groups()
    assert sessions_in(postgres) == 1
    del store, stores
    gc.collect()
    wait_for(lambda: sessions_in(postgres) == 0)


def test_a_store_works_in_a_forked_and_in_a_spawned_process_and_still_in_its_own(home):
    written(rows(1))
    store = FeatureStore(home)
    with store.core.storage.lock("groups").shared():
        if (child := os.fork()) == 0:
            code = 1
            try:
                store.core.registry.save_group(group_of("of_the_child"))
                with store.core.storage.lock("turn").exclusive():
                    code = 0 if len(store.groups.all()) == 2 else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert store.core.storage.lock("groups").try_exclusive() is None
        store.core.registry.save_group(group_of("of_the_parent"))
    code = "import pickle, sys; print(len(pickle.loads(sys.stdin.buffer.read()).groups.all()))"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(store), capture_output=True, check=True)
    assert done.stdout == b"3\n"


@pytest.mark.parametrize("writes", [False, True])
def test_an_interrupted_transaction_ends_though_its_traceback_is_kept(registry, postgres, writes):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def step(db):
        db.execute(text("SELECT name FROM entity")).fetchone()
        signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            registry.take(step, writes=writes)
        registry.save_group(group_of("spend"))
        assert open_transactions(postgres) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.tb.tb_next


def open_transactions(postgres: Postgres) -> int:
    """Count the sessions that are in a transaction and do nothing."""
    with postgres.client() as client:
        count = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        return client.execute(count).fetchone()[0]


# Faults


def test_calls_after_a_restart_of_the_server_do_not_notice_it(server, home, monkeypatch):
    monkeypatch.setenv("SEEKNAL_REGISTRY", server.url("a"))
    written(rows(1))
    registry = FeatureStore(home).core.registry
    stamp = registry.recent_stamp()
    for number in range(3):
        server.kill()
        server.start()
        assert len(registry.groups()) == 1 + 2 * number
        registry.save_group(group_of(f"restarted_{number}"))
        server.cut()
        registry.save_group(group_of(f"cut_{number}"))
    assert len(registry.groups()) == 7
    with server.client() as client:  # which this process hears of by its own connection only
        seen = registry.recent_stamp()
        client.execute("SET search_path = a")
        client.execute("UPDATE change SET number = number + 1")
    wait_for(lambda: registry.recent_stamp() not in {seen, stamp})


def test_a_server_that_is_away_is_an_error_that_names_it(server, home, monkeypatch):
    monkeypatch.setenv("SEEKNAL_REGISTRY", server.url("a"))
    registry = FeatureStore(home).core.registry
    stamp = registry.recent_stamp()
    server.kill()
    for call in (registry.groups, registry.stamp, lambda: registry.save_group(group_of("spend"))):
        with pytest.raises(
            StoreError, match=rf"The registry at postgresql://postgres@127.0.0.1:{server.port}/.* cannot be reached"
        ):
            call()
    assert registry.recent_stamp() == stamp
    server.start()
    assert registry.groups() == []


def test_an_open_table_answers_while_the_registry_is_away_and_follows_it_again_afterwards(server, home, monkeypatch):
    monkeypatch.setenv("SEEKNAL_REGISTRY", server.url("a"))
    monkeypatch.setattr("seeknal.serve.open_tables._LOOK", 0)
    fg, store = written(rows(1)), FeatureStore(home)
    store.tables.serve([FeatureLookup("spend")], "serving")
    table = store.tables.open("serving")

    def answer() -> object:
        return table.get_features([{"user_id": 1}], "dicts")[0]["x"]

    assert answer() == 1
    server.kill()
    assert [answer() for _ in range(3)] == [1, 1, 1]
    server.start()
    write(fg, rows(1, 2))
    store.tables.refresh()
    assert answer() == 2
    store.tables.delete("serving")
    with pytest.raises(NotOnlineError, match="was deleted"):
        answer()


@pytest.mark.parametrize("looked_up", [True, False])
def test_an_open_table_answers_however_short_before_the_registry_goes_it_was_opened_or_others_have_written(
    server, home, monkeypatch, looked_up
):
    monkeypatch.setenv("SEEKNAL_REGISTRY", server.url("a"))
    monkeypatch.setattr("seeknal.serve.open_tables._LOOK", 0)
    written(rows(1))
    store, other = FeatureStore(home), FeatureStore(home)
    store.tables.serve([FeatureLookup("spend")], "serving")
    table = store.tables.open("serving")
    if looked_up:
        assert table.get_features([{"user_id": 1}], "dicts")[0]["x"] == 1
    number = store.core.registry.recent_stamp()
    other.core.registry.save_group(group_of("another"))
    wait_for(lambda: store.core.registry.recent_stamp() != number)
    server.kill()
    assert [table.get_features([{"user_id": 1}], "dicts")[0]["x"] for _ in range(3)] == [1, 1, 1]
    server.start()
    store.tables.delete("serving")
    with pytest.raises(NotOnlineError, match="was deleted"):
        wait_for(lambda: not table.get_features([{"user_id": 1}], "dicts"))


def test_a_write_whose_connection_is_cut_before_the_commit_is_made_once(registry, postgres):
    record, runs = registry.save_group(group_of("spend")), []

    def step(db):
        begin = registry.begin_loads.__wrapped__
        begin(registry, db, record, 1, [("", Interval())])
        runs.append(len(runs))
        if len(runs) == 1:
            postgres.cut()
        begin(registry, db, record, 1, [("other", Interval())])
        return len(runs)

    assert registry.take(step, writes=True) == 2
    assert len(registry.loads(record)) == 2


def test_a_read_whose_connection_is_cut_is_repeated(registry, postgres):
    registry.save_group(group_of("spend"))
    runs = []

    def step(db):
        runs.append(len(runs))
        if len(runs) == 1:
            postgres.cut()
        return db.scalar(text("SELECT count(*) FROM feature_group"))

    assert registry.take(step) == 1


def test_a_connection_that_is_lost_in_a_commit_is_an_error_that_leaves_it_open(registry):
    def end_in_commit(db):
        db.execute(
            text(
                "CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
            )
        )
        when = "AFTER INSERT ON token DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION leave()"
        db.execute(text(f"CREATE CONSTRAINT TRIGGER leaving {when}"))

    registry.take(end_in_commit, writes=True)
    token = "INSERT INTO token VALUES ('i', 'n', 'p', '[]', 'd', 1, NULL)"
    with pytest.raises(StoreError, match=r"lost in the middle of a commit: .* may have been made or not"):
        registry.take(lambda db: db.execute(text(token)), writes=True)
    assert registry.groups() == []


def test_a_reader_sees_one_state_while_others_write(registry):
    registry.save_group(group_of("a"))

    def step(db):
        before = db.scalar(text("SELECT count(*) FROM feature_group"))
        thread = threading.Thread(target=registry.save_group, args=(group_of("b"),))
        thread.start()
        thread.join()
        return before, db.scalar(text("SELECT count(*) FROM feature_group"))

    assert registry.take(step) == (1, 1)
    assert len(registry.groups()) == 2


WRITER = """
import sys
from seeknal import FeatureStore, StoreError
from test_registry import Interval, group_of
store, name = FeatureStore(), sys.argv[1]
number = 0
while True:
    try:
        registry = store.core.registry
        record = registry.save_group(group_of(f"{name}{number}"))
        if not registry.loads(record):
            registry.begin_loads(record, 1, [("", Interval())])
        print("done", number, flush=True)
        number += 1
    except StoreError as error:
        print("failed", error, flush=True)
"""


def test_nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed_in_mid_write_and_mid_read(
    server, home, monkeypatch
):
    monkeypatch.setenv("SEEKNAL_REGISTRY", server.url("a"))
    writers = {name: python(WRITER, name) for name in "ab"}
    told = {name: [] for name in writers}

    def listen(name):
        told[name].extend(writers[name].stdout)

    threads = [threading.Thread(target=listen, args=(name,)) for name in writers]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(1, 5):
            for name in writers:
                wait_for(lambda name=name, least=25 * round_: sum("done" in one for one in told[name]) > least)
            server.kill()
            server.start()
    finally:
        for process in writers.values():
            process.kill()
    for thread in threads:
        thread.join()
    for process in writers.values():
        process.communicate()
    registry = FeatureStore(home).core.registry
    names = Counter(one.name for one in registry.groups())
    assert set(names.values()) == {1}
    for name, lines in told.items():
        done = [line.split()[1] for line in lines if line.startswith("done") and line.endswith("\n")]
        assert {f"{name}{number}" for number in done} <= set(names)
        errors = [line for line in lines if line.startswith("failed")]
        assert all("The registry at postgresql://postgres@127.0.0.1" in line for line in errors)
        for number in done:
            assert len(registry.loads(registry.group("shop", f"{name}{number}"))) == 1


def test_a_process_that_dies_in_a_write_holds_nobody_up(registry, home):
    code = "import signal; from seeknal import FeatureStore; r = FeatureStore().core.registry; r.take(lambda db: (print('in', flush=True), signal.pause()), writes=True)"
    with python(code) as process:
        assert process.stdout.readline() == "in\n"
        waiting = threading.Thread(target=registry.save_group, args=(group_of("spend"),))
        waiting.start()
        process.kill()
    waiting.join(60)
    assert [one.name for one in registry.groups()] == ["spend"]


def test_a_write_that_waits_too_long_for_another_is_an_error(registry, monkeypatch):
    monkeypatch.setattr(sessions, "WRITING", 1)
    hurried = PostgresRegistry(f"{registry.sessions.url}&application_name=hurried")
    with closing(sessions.connect(registry.sessions.url, 60)) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [registry.sessions.key("write")])
        with pytest.raises(StoreError, match=r"Another process has been writing to the registry at .* for 1 seconds"):
            hurried.save_group(group_of("spend"))
    assert hurried.groups() == []


def test_a_server_answers_while_the_registry_is_away_and_follows_it_again_afterwards(server, home, monkeypatch):
    monkeypatch.setenv("SEEKNAL_REGISTRY", server.url("a"))
    written(rows(1))
    store = FeatureStore(home)
    store.tables.serve([FeatureLookup("spend")], "serving")
    token = store.tokens.create("a", "shop", ["read"])
    with Server(home) as running:

        def status() -> int:
            url = f"{running.url}/v1/online/shop/serving?user_id=1"
            return httpx2.get(url, headers={"Authorization": f"Bearer {token}"}).status_code

        assert status() == 200
        server.kill()
        assert [status() for _ in range(20)] == [200] * 20
        server.start()
        store.tokens.revoke("a")
        wait_for(lambda: status() == 401)


def test_the_workers_of_a_server_follow_what_another_process_defines_within_a_second(home):
    written(rows(1))
    store = FeatureStore(home)
    store.tables.serve([FeatureLookup("spend")], "serving")
    token = store.tokens.create("a", "shop", ["read"])
    with Server(home, "--workers", "2") as server:

        def status(bearer: str) -> int:
            url = f"{server.url}/v1/online/shop/serving?user_id=1"
            with httpx2.Client() as client:  # a connection of its own, so that any worker may answer
                return client.get(url, headers={"Authorization": f"Bearer {bearer}"}).status_code

        assert {status(token) for _ in range(10)} == {200}
        store.tokens.revoke("a")
        wait_for(lambda: {status(token) for _ in range(10)} == {401}, 10)
        given = store.tokens.create("b", "shop", ["read"])
        wait_for(lambda: {status(given) for _ in range(10)} == {200}, 10)
