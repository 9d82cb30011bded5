"""The command line, as a person or a script uses it."""

import json
import shlex
import subprocess
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake

from commands import seeknal, seeknal_process, seeknal_terminal
from seeknal import Entity, FeatureGroupDuckDB, FeatureLookup, FeatureStore, HistoricalFeaturesDuckDB, Materialization

pytestmark = pytest.mark.slow


def answer(*arguments: str):
    """Run a command that must succeed, and read the JSON it prints."""
    done = seeknal(*arguments, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def failure(*arguments: str) -> str:
    """Run a command that must fail, and return its error."""
    done = seeknal(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    return done.stderr.removeprefix("Error: ").strip()


def spend(project="shop", **columns):
    """Write three users' spending."""
    group = FeatureGroupDuckDB(
        "spend", Entity("user", ["user_id"], pii_keys=["user_id"]), Materialization("day"), project=project
    )
    frame = pd.DataFrame(
        {"user_id": [1, 2, 3], "day": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"]), "total": [10, 20, 30]}
        | columns
    )
    group.set_dataframe(frame).set_features().write()
    return group


@pytest.fixture
def two_versions():
    spend()
    with pytest.warns(UserWarning, match="now at version 2: added visits"):
        return spend(visits=[1, 2, 3])


def test_versions_are_listed_with_what_a_person_asks_first(two_versions):
    versions = answer("version", "list", "spend")
    assert [(v["version"], v["features"], v["rows"], v["current"]) for v in versions] == [
        (1, 1, 3, False),
        (2, 2, 3, True),
    ]
    assert all(v["created"] and v["last_write"] for v in versions)


def test_a_version_is_shown_as_field_and_type(two_versions):
    shown = answer("version", "show", "spend", "--version", "1")
    assert shown["schema"] == [
        {"field": "user_id", "type": "int64", "role": "join key"},
        {"field": "day", "type": "timestamp[us]", "role": "event time"},
        {"field": "total", "type": "int64", "role": "feature"},
    ]


def test_a_difference_can_be_parsed(two_versions):
    assert answer("version", "diff", "spend", "--from", "1", "--to", "2") == {
        "group": "spend",
        "from": 1,
        "to": 2,
        "added": [{"name": "visits", "type": "int64"}],
        "removed": [],
        "modified": [],
        "rows": {"from": 3, "to": 3},
        "null_rates": {
            "from": {"user_id": 0.0, "day": 0.0, "total": 0.0},
            "to": {"user_id": 0.0, "day": 0.0, "total": 0.0, "visits": 0.0},
        },
    }


def test_yaml_says_the_same_as_json(two_versions):
    done = seeknal("version", "list", "spend", "--format", "yaml")
    assert yaml.safe_load(done.stdout) == answer("version", "list", "spend")


def test_materialize_says_rows_seconds_version_and_snapshot(two_versions):
    loaded = answer("materialize", "spend", "--start-date", "2024-01-02", "--version", "1")
    assert (loaded["rows"], loaded["version"], loaded["snapshot"]) == (2, 1, 1)
    assert loaded["seconds"] >= 0


def test_materialize_puts_exactly_that_version_online(two_versions):
    answer("materialize", "spend", "--start-date", "2024-01-01")
    status = {"spend_status": "found", "spend_event_time": "2024-01-02T00:00:00+00:00"}
    assert answer("lookup", "spend", "user_id=2") == {"user_id": 2, "total": 20, "visits": 2} | status
    answer("materialize", "spend", "--start-date", "2024-01-01", "--version", "1")
    assert answer("lookup", "spend", "user_id=2") == {"user_id": 2, "total": 20} | status
    unknown = answer("lookup", "spend", "user_id=99")
    assert unknown == {"user_id": 99, "total": None, "spend_status": "not_found", "spend_event_time": None}


def test_a_served_table_keeps_its_version_when_the_group_moves_on(two_versions):
    HistoricalFeaturesDuckDB([FeatureLookup(two_versions)]).serve("for_model_7")
    answer("materialize", "spend", "--start-date", "2024-01-01", "--version", "1")
    found = answer("lookup", "for_model_7", "user_id=3")
    assert {name: found[name] for name in ("user_id", "total", "visits")} == {"user_id": 3, "total": 30, "visits": 3}


def test_everything_is_listed(two_versions):
    HistoricalFeaturesDuckDB([FeatureLookup(two_versions)]).serve("online")
    assert answer("list", "projects") == [{"project": "shop", "feature_groups": 1, "online_tables": 1}]
    assert answer("list", "entities")[0]["join_keys"] == ["user_id"]
    assert answer("list", "feature-groups")[0]["version"] == 2
    assert answer("list", "online-tables")[0]["online_table"] == "online"
    assert answer("list", "feature-groups", "--project", "shop")
    assert "No project named 'shp'" in failure("list", "feature-groups", "--project", "shp")


def test_a_group_and_a_table_are_shown_in_full(two_versions):
    HistoricalFeaturesDuckDB([FeatureLookup(two_versions)]).serve("online")
    group = answer("show", "feature-group", "spend")
    assert (group["event_time"], group["loads"][0]["entities"]) == ("day", 3)
    assert [column["feature"] for column in answer("show", "online-table", "online")["columns"]] == ["total", "visits"]


def test_debug_shows_the_last_rows_and_masks_personal_data():
    spend()
    rows = answer("debug", "spend", "--limit", "2")
    assert [row["total"] for row in rows] == [30, 20]
    assert {row["user_id"] for row in rows} == {"***"}


def test_clean_counts_first_and_removes_then():
    group = spend()
    assert answer("clean", "spend", "--before", "2024-01-03", "--dry-run")["would_be_removed"] == 2
    assert len(HistoricalFeaturesDuckDB([FeatureLookup(group)]).to_dataframe()) == 3
    assert answer("clean", "spend", "--before", "2024-01-03", "--yes")["removed"] == 2
    assert HistoricalFeaturesDuckDB([FeatureLookup(group)]).to_dataframe()["total"].tolist() == [30]
    assert answer("clean", "spend", "--ttl", "30", "--yes")["removed"] == 1


def test_cleaned_rows_leave_the_online_store_too():
    spend()
    answer("materialize", "spend", "--start-date", "2024-01-01")
    answer("clean", "spend", "--before", "2024-01-02", "--yes")
    assert answer("lookup", "spend", "user_id=1")["total"] is None


def test_nothing_is_lost_without_a_yes():
    spend()
    for command in (["clean", "spend", "--before", "2024-01-03"], ["delete", "feature-group", "spend"]):
        assert "add --yes" in failure(*command)
    assert answer("version", "list", "spend")[0]["rows"] == 3


def test_a_deleted_group_is_gone_and_can_be_made_anew(home):
    spend()
    answer("materialize", "spend", "--start-date", "2024-01-01")
    assert answer("delete", "feature-group", "spend", "--yes") == {"deleted": "shop/spend"}
    assert answer("list", "feature-groups") == answer("list", "online-tables") == answer("list", "entities") == []
    assert not (home / "offline" / "shop" / "spend").exists()
    spend()
    assert answer("version", "list", "spend")[0]["rows"] == 3


def test_a_group_that_is_served_cannot_be_deleted():
    HistoricalFeaturesDuckDB([FeatureLookup(spend())]).serve("online")
    assert "delete online-table shop/online" in failure("delete", "feature-group", "spend", "--yes")
    assert answer("delete-table", "online", "--yes") == {"deleted": "shop/online"}
    answer("delete", "feature-group", "spend", "--yes")


def test_a_group_is_found_over_all_projects_until_two_have_it():
    spend("shop")
    assert answer("version", "list", "spend")
    spend("bank")
    assert failure("version", "list", "spend") == (
        "Several projects have a feature group named 'spend'. Write 'bank/spend' or 'shop/spend'."
    )
    assert answer("version", "list", "spend", "--project", "bank")
    assert answer("version", "list", "bank/spend")
    assert "There is 'bank/spend' and 'shop/spend'." in failure("version", "list", "spend", "--project", "default")


def test_a_misspelt_name_gets_a_suggestion():
    spend()
    assert "Did you mean 'spend'?" in failure("version", "list", "spned")
    assert "no version 7. There are: 1." in failure("version", "show", "spend", "--version", "7")
    assert "No online table named 'spend'" in failure("lookup", "spend", "user_id=1")


def test_a_lookup_says_what_is_wrong_with_a_key():
    spend()
    answer("materialize", "spend", "--start-date", "2024-01-01")
    assert "user_id is int64, which 'abc' is not." in failure("lookup", "spend", "user_id=abc")
    assert "'user' is not a join key, and 'user_id' is missing. Did you mean 'user_id'?" in failure(
        "lookup", "spend", "user=1"
    )
    assert "has 'user_id' twice" in failure("lookup", "spend", "user_id=1", "user_id=2")


def test_all_keys_that_are_missing_are_named():
    entity = Entity("visit", ["shop_id", "user_id", "till"])
    group = FeatureGroupDuckDB("visits", entity, Materialization("day"))
    group.set_dataframe(pd.DataFrame({"shop_id": [1], "user_id": [2], "till": [3], "day": ["2024-01-01"], "x": [1]}))
    group.write()
    answer("materialize", "visits", "--start-date", "2024-01-01")
    for command in (["lookup", "visits"], ["explain", "visits", "--at", "2024-02-01"], ["erase", "visits", "--yes"]):
        assert "are shop_id, user_id and till; 'shop_id' and 'user_id' are missing." in failure(*command, "till=3")


NOON = datetime(2024, 5, 1, 12, 30, 15, 250_000)
KEYS = {
    pa.int64(): [2_070, -5],
    pa.uint64(): [2**64 - 1, 1_000_000],
    pa.string(): ["1,000", "two words", "it's", "a=b"],
    pa.bool_(): [True, False],
    pa.date32(): [NOON.date(), date(1969, 12, 31)],
    pa.timestamp("us"): [NOON, datetime(1969, 12, 31, 23, 59, 59, 999_999)],
    pa.timestamp("us", "UTC"): [NOON.replace(tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC)],
    pa.decimal128(20, 9): [Decimal("0E-9"), Decimal("1234567.891")],
    pa.binary(): [b"\x00\xff", b"text", b"0x41"],
}


@pytest.mark.parametrize("kind", KEYS, ids=str)
def test_a_key_that_is_printed_can_be_pasted_back(kind):
    visits, numbers = pa.array(KEYS[kind], kind), range(1_000, 1_000 + len(KEYS[kind]))
    day = pa.array([NOON] * len(visits), pa.timestamp("us", "UTC"))
    group = FeatureGroupDuckDB("seen", Entity("visit", ["visit"]), Materialization("day"))
    group.set_dataframe(pa.table({"visit": visits, "day": day, "n": pa.array(numbers)})).write()
    answer("materialize", "seen", "--start-date", "2024-01-01")
    for row in answer("debug", "seen", "--limit", "99"):
        shown = seeknal("lookup", "seen", f"visit={row['visit']}").stdout
        printed = dict(line.split(maxsplit=1) for line in shown.splitlines())
        assert (printed["n"], printed["seen_status"]) == (str(row["n"]), "found")
        assert seeknal("lookup", "seen", f"visit={printed['visit']}").stdout == shown
        receipt = answer("erase", "seen", f"visit={printed['visit']}", "--yes")
        assert (receipt["rows"], shlex.split(receipt["erased"])) == (1, [f"visit={printed['visit']}"])


@pytest.mark.parametrize(
    "command",
    [
        ["materialize"],
        ["version", "diff", "spend", "--from", "1"],
        ["clean", "spend"],
        ["clean", "spend", "--ttl", "1", "--before", "2024-01-01"],
        ["lookup", "spend", "user_id"],
        ["list"],
        ["nonsense"],
        ["version", "list", "spend", "--format", "xml"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(command):
    done = seeknal(*command)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_wrong_date_is_one_clear_line():
    spend()
    assert "'yesterday' is not a valid time" in failure("materialize", "spend", "--start-date", "yesterday")
    assert "ends (2024-01-01) before it starts" in failure(
        "materialize", "spend", "--start-date", "2024-02-01", "--end-date", "2024-01-01"
    )


def test_init_makes_the_folder_a_project(monkeypatch):
    monkeypatch.delenv("SEEKNAL_HOME")
    made = answer("init")
    assert Path(made["settings"]).name == "seeknal.toml"
    assert answer("info")["settings"][0]["value"] == str(Path.cwd() / ".seeknal")
    assert "already exists" in failure("init")
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert answer("info")["settings"][0]["from"].endswith("seeknal.toml")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ".seeknal/\n"),
        ("*.pyc\n", "*.pyc\n.seeknal/\n"),
        ("*.pyc", "*.pyc\n.seeknal/\n"),
        ("/.seeknal\n", "/.seeknal\n"),
        ("# .seeknal/\n!.seeknal/\n", "# .seeknal/\n!.seeknal/\n.seeknal/\n"),
    ],
)
def test_init_keeps_git_from_the_data(before, after, monkeypatch):
    monkeypatch.delenv("SEEKNAL_HOME")
    if before is not None:
        Path(".gitignore").write_text(before)
    answer("init")
    assert Path(".gitignore").read_text() == after
    subprocess.run(["git", "init", "-q"], check=True)
    Path(".seeknal").mkdir()
    Path(".seeknal/registry.db").touch()
    seen = subprocess.run(["git", "status", "--porcelain", "-uall"], capture_output=True, text=True, check=True).stdout
    assert ".seeknal" not in seen


def test_one_grammar_lists_shows_and_deletes_all_things():
    group = spend()
    features = HistoricalFeaturesDuckDB([FeatureLookup(group)])
    features.serve("online")
    features.using_latest().save("may")
    FeatureStore().tokens.create("web", "shop", ["read"])
    things = {
        "project": "shop",
        "entity": "user",
        "feature-group": "spend",
        "online-table": "online",
        "dataset": "may",
        "token": "web",
    }
    for thing, name in things.items():
        (line,) = answer("list", "entities" if thing == "entity" else f"{thing}s")
        assert name in line.values()
        shown = answer("show", thing, name)
        assert name in shown.values()
        assert name[:-1] in failure("show", thing, name[:-1])
        assert f"Did you mean {name!r}?" in failure("delete", thing, name[:-1], "--yes")
        if thing != "entity":  # which cannot go while a table serves its group
            assert "add --yes" in failure("delete", thing, name)
    assert "seeknal delete online-table shop/online" in failure("delete", "entity", "user", "--yes")
    assert answer("delete", "token", "web", "--yes") == {"revoked": "web"}
    assert answer("delete", "dataset", "may", "--yes") == {"deleted": "shop/may"}
    assert answer("delete", "online-table", "online", "--yes") == {"deleted": "shop/online"}
    assert answer("delete", "entity", "user", "--yes")["feature_groups"] == ["shop/spend"]
    assert answer("list", "entities") == answer("list", "projects") == []


def test_a_project_is_deleted_with_all_that_is_in_it():
    group, other = spend(), spend("bank")
    features = HistoricalFeaturesDuckDB([FeatureLookup(group)])
    features.serve("online")
    features.using_latest().save("may")
    FeatureStore().tokens.create("web", "shop", ["read"])
    shown = answer("show", "project", "shop")
    assert [len(shown[kind]) for kind in ("feature_groups", "entities", "online_tables", "datasets")] == [1, 1, 1, 1]
    both = [FeatureLookup(other, rename={"total": "other"}), FeatureLookup(group)]
    HistoricalFeaturesDuckDB(both).serve("both")
    assert "seeknal delete online-table bank/both" in failure("delete", "project", "shop", "--yes")
    assert len(answer("show", "project", "shop")["online_tables"]) == 1
    answer("delete", "online-table", "both", "--yes")
    done = seeknal("delete", "project", "shop", "--yes", "--format", "json")
    assert json.loads(done.stdout) == {
        "deleted": "shop",
        "online_tables": ["shop/online"],
        "datasets": ["shop/may"],
        "feature_views": ["shop/online"],
        "feature_groups": ["shop/spend"],
    }
    assert "seeknal delete token web" in done.stderr
    assert [one["project"] for one in answer("list", "projects")] == ["bank"]
    assert len(answer("debug", "spend")) == 3


def test_a_token_is_created_only_for_an_existing_project(home):
    spend()
    for command in (["--project", "shp"], ["--project", "nope"]):
        assert "no token was created" in failure("token", "create", "web", *command, "--right", "read")
    assert "Did you mean 'shop'?" in failure("token", "create", "web", "--project", "shp", "--right", "read")
    assert answer("list", "tokens") == []
    assert seeknal("token", "create", "web", "--project", "shop", "--right", "read").stdout.startswith("snk_")
    assert seeknal("token", "create", "all", "--project", "*", "--right", "read").returncode == 0
    new = seeknal("token", "create", "new", "--project", "nope", "--right", "read", "--new-project")
    assert new.stdout.startswith("snk_")


def test_a_name_that_says_another_project_is_refused():
    spend()
    assert "'shop/spend' is in project 'shop', not in 'bank'" in failure("version", "list", "shop/spend", "-p", "bank")


def test_a_home_can_be_moved(home, monkeypatch):
    spend()
    answer("materialize", "spend", "--start-date", "2024-01-01")
    home.rename(home.parent / "elsewhere")
    monkeypatch.setenv("SEEKNAL_HOME", str(home.parent / "elsewhere"))
    assert "30" in seeknal_process("lookup", "spend", "user_id=3").stdout
    assert len(answer("debug", "spend")) == 3


@pytest.mark.parametrize("columns", [80, 200])
def test_no_line_is_wider_than_the_terminal(two_versions, columns):
    commands = "list feature-groups", "show feature-group spend", "version list spend", "debug spend", "--help"
    printed = "".join(seeknal_terminal(*command.split(), columns=columns) for command in commands)
    assert all(word in printed for word in ("last_write", "loaded_on_write", "visits", "materialize"))
    assert max(map(len, printed.splitlines())) <= columns


def test_a_long_list_is_shown_by_its_first_items_and_a_long_path_whole(tmp_path):
    spend(taste=[list(range(64)), [], None])
    assert "0, 1, 2, 3, 4, 5, ... (64 in all)" in seeknal_terminal("debug", "spend", columns=200)
    home = tmp_path / ("long" * 30)
    found = seeknal_process("info", env={"SEEKNAL_HOME": str(home)}).stdout
    assert str(home) in found


def test_a_value_cannot_command_the_terminal():
    spend(colour=["\x1b[31mred", "", None])
    assert "\\x1b[31mred" in seeknal("debug", "spend").stdout
    assert "\\x1b[31mred" in seeknal_terminal("debug", "spend")


def test_a_list_that_is_piped_has_a_line_a_row_with_every_value_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    spend(place=[[0.1234567890123] * 9, [], None], note=["word " * 60, "two\nlines", "\u2028"])
    header, *lines = seeknal("debug", "spend").stdout.splitlines()
    assert (len(lines), header.split()) == (3, ["user_id", "day", "total", "place", "note"])
    assert "0.1234567890123, " * 8 in lines[2]
    assert ("word " * 60).strip() in lines[2]


def test_a_version_is_current_again_after_a_rollback(two_versions):
    assert answer("version", "rollback", "spend", "--to", "1")["version"] == 1
    assert [one["current"] for one in answer("version", "list", "spend")] == [True, False]
    assert "Version 1 of shop/spend is the current one" in failure("version", "rollback", "spend", "--to", "1")


def test_a_diff_counts_rows_and_nulls(two_versions):
    two_versions.set_dataframe(
        pd.DataFrame({"user_id": [9], "day": [datetime(2024, 1, 9)], "total": [None], "visits": [1]})
    ).write(mode="append")
    found = answer("version", "diff", "spend", "--from", "1", "--to", "2")
    assert found["rows"] == {"from": 3, "to": 4}
    assert found["null_rates"]["to"]["total"] == 0.25
    shown = seeknal("version", "diff", "spend", "--from", "1", "--to", "2").stdout
    assert "Rows: 3 in version 1, 4 in version 2." in shown


def test_optimizing_asks_first_and_says_what_it_did():
    spend()
    assert "add --yes" in failure("optimize", "spend")
    assert answer("optimize", "spend", "--yes")["files"] == 1


def test_erasing_gives_a_receipt():
    spend()
    receipt = answer("erase", "spend", "user_id=2", "--yes")
    assert (receipt["rows"], receipt["erased"]) == (1, "user_id=2")
    assert len(answer("debug", "spend")) == answer("version", "list", "spend")[0]["rows"] == 2
    assert "user_id is int64, which 'x' is not." in failure("erase", "spend", "user_id=x", "--yes")


def test_the_doctor_finds_what_a_killed_writer_left(home):
    spend()
    assert all(one["fine"] for one in answer("doctor"))
    (home / "offline/shop/spend/half-written.parquet").write_bytes(b"PAR1")
    done = seeknal("doctor", "--format", "json")
    assert done.returncode == 1
    assert [one["found"] for one in json.loads(done.stdout) if not one["fine"]] == [
        "1 orphaned file, 4 bytes: removed by seeknal optimize shop/spend"
    ]
    assert answer("optimize", "spend", "--yes")["files_deleted"] == 1
    assert all(one["fine"] for one in answer("doctor"))


def test_the_doctor_finds_a_table_whose_files_are_gone(home):
    spend()
    next((home / "offline/shop/spend").glob("*.parquet")).unlink()
    done = seeknal("doctor")
    assert done.returncode == 1
    assert "Snapshot 1 of shop/spend is gone" in done.stdout


def test_a_write_that_creates_a_version_gives_a_warning():
    group = spend()
    frame = pd.DataFrame({"user_id": [1], "day": [datetime(2024, 1, 9)], "other": [1]})
    with pytest.warns(UserWarning, match="removed total, added other"):
        group.set_dataframe(frame).set_features().write(datetime(2024, 1, 9))


def test_verify_exits_with_one_if_any_value_differs(two_versions):
    HistoricalFeaturesDuckDB([FeatureLookup(two_versions)]).serve("online")
    found = answer("verify", "online")
    assert (found["entities"], found["different"], found["first_differences"]) == (3, 0, [])
    frame = pd.DataFrame({"user_id": [1], "day": pd.to_datetime(["2024-02-01"]), "total": [99], "visits": [9]})
    two_versions.set_dataframe(frame).set_features().write(mode="append")
    done = seeknal("verify", "online", "--format", "json")
    assert done.returncode == 1
    first = json.loads(done.stdout)["first_differences"][0]
    assert (first["keys"], first["feature"], first["offline"], first["cause"]) == (
        "user_id=1",
        "total",
        99,
        "not loaded yet",
    )
    shown = answer("show", "feature-group", "spend")["online"]
    assert (shown[0]["up_to_date"], shown[0]["holes"]) == (False, "none")


def test_status_shows_how_fresh_each_table_is_and_exits_with_1_when_one_is_stale(home):
    group = FeatureGroupDuckDB(
        "spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"), project="shop"
    )
    moment = pd.Timestamp.now("UTC") - pd.Timedelta(hours=2)
    group.set_dataframe(
        pd.DataFrame({"user_id": [1, 2], "at": [moment, moment - pd.Timedelta(days=9)], "x": [1, 2]})
    ).write()
    HistoricalFeaturesDuckDB([FeatureLookup(group)]).serve("fresh")
    fine = seeknal("status", "--format", "json")
    (row,) = json.loads(fine.stdout)
    assert (fine.returncode, row["online_table"], row["stale"], row["behind"]) == (0, "shop/fresh", None, False)
    assert row["age"].startswith("2:00:")
    assert seeknal("status", "fresh", "--target", "3h").returncode == 0
    stale = seeknal("status", "--target", "90m", "--format", "json")
    assert (stale.returncode, json.loads(stale.stdout)[0]["stale"]) == (1, True)
    group.push({"user_id": 1, "at": pd.Timestamp.now("UTC"), "x": 5})
    assert seeknal("status", "--target", "90m").returncode == 0
    group.set_dataframe(pd.DataFrame({"user_id": [3], "at": [pd.Timestamp.now("UTC")], "x": [5]})).write(mode="append")
    assert json.loads(seeknal("status", "--format", "json").stdout)[0]["behind"] is True
    assert "is not a duration" in seeknal("status", "--target", "soon").stderr


def test_status_has_a_line_for_each_table_though_one_cannot_be_read(home):
    for name in ("fine", "changed"):
        group = FeatureGroupDuckDB(name, Entity("user", ["user_id"]), Materialization("day", online=True))
        group.set_dataframe(pd.DataFrame({"user_id": [1], "day": ["2024-01-01"], "x": [1]})).write()
    added = pa.table({"user_id": [2], "day": pa.array([0], pa.timestamp("us", "UTC")), "x": [5]})
    write_deltalake(home / "offline/default/changed", added, mode="append", schema_mode="merge")
    done = seeknal("status", "--format", "json")
    assert done.returncode == 1
    changed, fine = json.loads(done.stdout)
    assert "seeknal adopt default/changed" in changed["cut_off"][0]
    assert (fine["online_table"], fine["behind"], fine["cut_off"]) == ("default/fine", False, [])


def test_the_target_of_status_can_be_set(home):
    group = FeatureGroupDuckDB(
        "spend", Entity("user", ["user_id"]), Materialization(event_time_col="at"), project="shop"
    )
    group.set_dataframe(pd.DataFrame({"user_id": [1], "at": ["2024-01-01"], "x": [1]})).write()
    HistoricalFeaturesDuckDB([FeatureLookup(group)]).serve("old")
    assert seeknal("status").returncode == 0
    Path("seeknal.toml").write_text('freshness = "2d"\n')
    assert seeknal("status").returncode == 1
