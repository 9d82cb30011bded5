"""Every command line gets a result, or a one-line error that says what to do, never an error of another library."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import click
import pyarrow as pa
import pytest
import typer
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from commands import seeknal, seeknal_process
from contract.profiles import PROFILE
from seeknal import Entity, FeatureLookup, FeatureStore, Materialization, ViewDefinition
from seeknal.cli.app import app
from seeknal.define.feature_group import FeatureGroup
from seeknal.join.inquiry import Inquiry

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
KEYS = ["name=a", "number=1", "flag=true", "day=2024-01-01", "at=2024-01-01T12:00", "raw=x", "price=1.50"]
COMMANDS = {
    "init": [],
    "info": [],
    "doctor": [],
    "debug": ["spend"],
    "explain": ["spend", *KEYS, "--at", "2024-02-01"],
    "materialize": ["spend", "--start-date", "2024-01-01"],
    "lookup": ["online", *KEYS],
    "verify": ["online"],
    "status": ["online"],
    "optimize": ["spend", "--yes"],
    "refresh": ["online"],
    "adopt": ["spend"],
    "clean": ["spend", "--before", "2020-01-01", "--dry-run"],
    "erase": ["spend", *KEYS],
    "backup": ["nowhere/at/all"],
    "restore": ["nowhere"],
    "import-feast": ["nothing"],
    "migrate-registry": ["nothing", "nowhere"],
    "move": ["--registry", "nothing"],
    "delete-table": ["nothing"],
    "version list": ["spend"],
    "version show": ["spend"],
    "version diff": ["spend", "--from", "1", "--to", "2"],
    "version rollback": ["spend", "--to", "1"],
    "view list": [],
    "view show": ["orders"],
    "view diff": ["orders"],
    "view retire": ["orders@1"],
    "list feature-views": [],
    "dataset list": [],
    "dataset show": ["may"],
    "dataset reproduce": ["may"],
    "dataset delete": ["nothing"],
    "token create": ["another", "--project", "shop", "--right", "read"],
    "token list": [],
    "token show": ["web"],
    "token revoke": ["nothing"],
    "list projects": [],
    "list entities": [],
    "list feature-groups": [],
    "list online-tables": [],
    "list datasets": [],
    "list tokens": [],
    "show project": ["shop"],
    "show entity": ["visit"],
    "show feature-group": ["spend"],
    "show online-table": ["online"],
    "show dataset": ["may"],
    "show token": ["web"],
    "delete project": ["nothing"],
    "delete entity": ["nothing"],
    "delete feature-group": ["nothing"],
    "delete online-table": ["nothing"],
    "delete dataset": ["nothing"],
    "delete token": ["nothing"],
}
ODD = [
    *("", " ", "é", "\u202e", "\U0001f600", "a\x1b[31m", "a\x00b", "\udcff", "a/b", "/", "//", "shop/", "/spend", "../x"),
    *("a" * 5000, "-1", "0", "1", "9" * 30, "1e400", "nan", "1.5", "0x1F", "٣", "0x", "0xzz", "=", "=x", "x=", "*", "%s"),
    *("2024-02-30", "0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "-0001-01-01", "2024-01-01T25:00", "20240101"),
    *("9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59", "99999999999d", "0h", "[bold]", "{}", "None"),
]  # fmt: skip


def walk(command: click.Command, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name, one in getattr(command, "commands", {}).items():
        yield from walk(one, *path, name)
    if not hasattr(command, "commands"):
        yield " ".join(path), command


TREE = {name: one for name, one in walk(typer.main.get_command(app)) if name not in {"serve", "demo"}}


@pytest.fixture
def filled(home) -> FeatureStore:
    store = FeatureStore(home)
    entity = Entity("visit", [one.partition("=")[0] for one in KEYS])
    group = FeatureGroup("spend", entity, Materialization("seen"), "shop")
    kinds = {"price": pa.decimal128(10, 2), "at": pa.timestamp("us")}
    values = ["a", 1, True, date(2024, 1, 1), datetime(2024, 1, 1, 12), b"x", Decimal("1.50")]
    keys = {name: pa.array([value], kinds.get(name)) for name, value in zip(entity.join_keys, values, strict=True)}
    rows = pa.table({**keys, "seen": pa.array([NOON]), "total": [1]})
    store.groups.write(group, rows)
    store.tables.serve([FeatureLookup("shop/spend")], "online")
    store.training_sets.save("may", Inquiry([FeatureLookup("shop/spend")], "latest"))
    store.groups.write(group, rows.append_column("more", pa.array([2])))
    store.views.register(ViewDefinition("orders", [FeatureLookup("shop/spend")]))
    store.views.register(ViewDefinition("orders", [FeatureLookup("shop/spend", features=["total"])]))
    store.tokens.create("web", "shop", ["read"])
    return store


def test_every_command_is_tried():
    assert set(TREE) == set(COMMANDS)


@st.composite
def typed(draw: st.DrawFn) -> list[str]:
    """A command, one of whose words or options is odd."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    words, odd = list(COMMANDS[name]), draw(st.one_of(st.sampled_from(ODD), st.text(max_size=20)))
    options = [one.opts[0] for one in TREE[name].params if one.param_type_name == "option" and not one.is_flag]
    places = [place for place, word in enumerate(words) if not word.startswith("--")]
    place = draw(st.sampled_from([*places, *options])) if places or options else "--format"
    if isinstance(place, str):
        words += [place, odd]
    else:
        key, is_key, _ = words[place].partition("=")
        words[place] = f"{key}={odd}" if is_key and draw(st.booleans()) else odd
    return [*name.split(), *words]


@settings(PROFILE, max_examples=4 * PROFILE.max_examples)
@given(words=typed())
@example(words=["debug", "\udcff"])
@example(words=["lookup", "online", *(word.replace("2024-01-01", "0000-01-01") for word in KEYS)])
@example(words=["materialize", "spend", "--start-date", "9999-12-31T23:59:59.999999-23:59"])
@example(words=["clean", "spend", "--ttl", "9" * 12])
@example(words=["status", "online", "--target", "99999999999d"])
@example(words=["backup", "a" * 5000])
@example(words=["backup", "\0"])
@example(words=["import-feast", "a" * 5000])
@example(words=["import-feast", "\0"])
@example(words=["demo", "\0"])
@example(words=["backup", "~nobody-of-that-name/x"])
@example(words=["dataset", "reproduce", "may", "--output", "not/there.parquet"])
@example(words=["explain", "spend", *KEYS, "--at", "2024-02-01", "--as-of", "²"])
def test_every_command_line_succeeds_or_is_refused_in_one_line(words, filled):
    done = seeknal(*words)
    assert done.returncode in {0, 1, 2}
    assert "This is a bug" not in done.stderr, (words, done.stderr)
    assert "Traceback" not in done.stderr
    assert (done.returncode == 1) == done.stderr.splitlines()[-1:][0].startswith("Error: ") if done.stderr else True


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SEEKNAL_HOME", "~nobody-of-that-name/x"),
        ("SEEKNAL_HOME", "a" * 5000),
        ("SEEKNAL_HOME", "/dev/null/x"),
        ("SEEKNAL_ONLINE_STORE", "redis://[::1"),
        ("SEEKNAL_ONLINE_STORE", "redis://host:99999"),
        ("SEEKNAL_ONLINE_STORE", "~nobody-of-that-name/x"),
        ("SEEKNAL_LOOKBACK_DAYS", "²"),
        ("SEEKNAL_FRESHNESS", "99999999999d"),
    ],
)
def test_every_environment_variable_is_used_or_refused_in_one_line(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)
    done = seeknal("refresh" if value == "/dev/null/x" else "info")  # `info` needs no home
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert "This is a bug" not in done.stderr


@pytest.mark.parametrize("line", ["home = 5", "online_store = [1]", "[home]", "home = '~nobody-of-that-name'"])
def test_every_settings_file_is_used_or_refused_in_one_line(line, monkeypatch):
    monkeypatch.delenv("SEEKNAL_HOME")
    Path("seeknal.toml").write_text(line)
    done = seeknal("info")
    assert done.returncode == 1
    assert "seeknal.toml" in done.stderr or "cannot be the path" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["--timeout", "nan"], ["--timeout", "inf"], ["--workers", "9" * 12], ["--certificate", "a" * 5000, "--key", "x"]],
)
def test_invalid_server_options_are_refused_in_one_line(words, filled):
    done = seeknal("serve", "--port", "0", *words)
    assert done.returncode in {1, 2}
    assert "This is a bug" not in done.stderr


def test_passwords_are_not_printed(monkeypatch):
    monkeypatch.setenv("SEEKNAL_ONLINE_STORE", "redis://me:sesame@host:99999")
    assert "sesame" not in seeknal("info").stderr


@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_text_that_the_terminal_has_no_letters_for_is_printed_as_codes(form, home):
    group = FeatureGroup("spend", Entity("user", ["user"]), Materialization("seen"))
    rows = pa.table({"user": ["\U0001f600"], "seen": pa.array([NOON]), "total": [1]})
    FeatureStore(home).groups.write(group, rows)
    done = seeknal_process("debug", "spend", "-f", form, env={"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0, done.stderr
    read = {"json": json.loads, "yaml": yaml.safe_load, "table": lambda text: [{"user": text.split()[3]}]}[form]
    assert read(done.stdout)[0]["user"] == ("\\U0001f600" if form == "table" else "\U0001f600")


def test_the_commands_are_valid_before_they_are_made_odd(filled):
    for name, words in COMMANDS.items():
        if "nothing" not in words and name not in {"adopt", "backup", "restore"}:
            done = seeknal(*name.split(), *words)
            assert done.returncode == 0 or "add --yes" in done.stderr, (name, done)


LISTS = (
    "list projects",
    "list entities",
    "list feature-groups",
    "list online-tables",
    "list datasets",
    "list feature-views",
    "view list",
    "list tokens",
    "token list",
    "dataset list",
    "info",
)
LOOKING = (
    "list feature-groups --project shop",
    "lookup model user_id=1",
    "verify model",
    "refresh",
    "status",
    "doctor",
    "serve --port 0",
    "materialize spend",
    "version list spend",
    "erase spend user_id=1 --yes",
    "token create me --project shop --right read",
)


@pytest.mark.parametrize("command", LOOKING)
def test_a_command_that_only_looks_makes_no_home(home, command):
    done = seeknal(*command.split())
    assert (done.returncode, "There is no feature store in" in done.stderr) == (1, True)
    assert not home.exists()


@pytest.mark.parametrize("command", LISTS)
def test_lists_are_empty_before_there_is_a_home(home, command):
    assert seeknal(*command.split()).returncode == 0
    assert not home.exists()
