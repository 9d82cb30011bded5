"""Output for users: receipts and handles as tables, moments as datetimes, all missing names, and progress."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import seeknal
from contract.world import HOUR, NOON, group, rows, write, written
from seeknal import (
    Client,
    DataError,
    DefinitionError,
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureStore,
    HistoricalFeaturesDuckDB,
    Materialization,
    StoreError,
)
from seeknal.home.backup import backup, restore

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")]

NOON_UTC = NOON.replace(tzinfo=UTC)
MANY_DIGITS = re.compile(r"\d{12,}")


def receipts():
    """Return one receipt of each kind."""
    fg = group()
    yield write(fg, rows(1, 2))
    yield fg.push({"user_id": 2, "at": NOON, "x": 3})
    table = HistoricalFeaturesDuckDB(FeatureLookup(fg)).serve("table")
    yield table.verify()
    yield FeatureStore().groups.erase("spend", {"user_id": 2})
    yield from fg.versions


def test_receipts_show_moments_as_people_read_them():
    for one in receipts():
        assert not MANY_DIGITS.search(repr(one)), repr(one)
        shown = one._repr_html_()
        assert shown.startswith(f"<table><caption>{type(one).__name__}</caption>")
        assert not MANY_DIGITS.search(shown), shown


def test_receipts_have_their_moments_as_datetimes():
    written, pushed, verified, erased, version = receipts()
    assert (written.rows, pushed.first, pushed.first_event) == (2, 1_704_110_400_000_000, NOON_UTC)
    before = datetime.now(UTC) - timedelta(minutes=10)
    assert all(before < moment < datetime.now(UTC) for moment in (verified.time, erased.time, version.written))
    assert verified.time - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(microseconds=verified.at)


def test_differences_are_a_separate_table_and_values_are_escaped():
    fg = written(pa.table({"user_id": [1], "at": [NOON], "x": ["<b>1</b>"]}))
    table = HistoricalFeaturesDuckDB(FeatureLookup(fg)).serve("table")
    FeatureStore().groups.write(fg.definition, pa.table({"user_id": [1], "at": [NOON], "x": ["<i>"]}))
    found = table.verify()
    assert not found.equal
    assert "&lt;i&gt;" in found._repr_html_()
    assert "<i>" not in found._repr_html_()
    assert "user_id=1" in found._repr_html_()


def test_handles_are_shown_with_their_parts():
    fg = written(rows(1), ttl=HOUR)
    features = HistoricalFeaturesDuckDB(FeatureLookup(fg, features=["x"], rename={"x": "<y>"}))
    saved = features.using_spine(pa.table({"user_id": [1], "when": [NOON]}), "when").save("it")
    assert all(text in fg._repr_html_() for text in ("shop/spend", "1:00:00", "join key", "<td>int64</td>"))
    assert all(text in features._repr_html_() for text in ("shop/spend", "x as &lt;y&gt;", "history"))
    assert all(text in features.serve("t")._repr_html_() for text in ("shop/t", "&lt;y&gt;", "user_id"))
    assert all(
        text in saved._repr_html_()
        for text in ("shop/it", "a spine with timestamps in column &#x27;when&#x27;", saved.content_hash)
    )


def test_a_group_shows_its_contents():
    fg = written(rows(1, 2, 3))
    write(fg, rows(4, y=["new"]), mode="append")
    assert fg.features == ["x", "y"]
    assert [(one.number, one.rows, one.is_current) for one in fg.versions] == [(1, 3, False), (2, 4, True)]
    assert fg.schema.names == ["user_id", "at", "x", "y"]
    assert fg.schema.field("x").type == pa.int64()
    assert fg.head(2, "arrow")["x"].to_pylist() == [4, 3]
    assert fg.head()["x"].tolist() == [4, 3, 2, 1]
    for n in (0, -1, 1.5, "2"):
        with pytest.raises(DefinitionError, match="not a whole number of at least 1"):
            fg.head(n)
    with pytest.raises(DefinitionError, match="No feature group named 'visits'"):
        group("visits").head()


@pytest.mark.parametrize(
    ("given", "description", "pii"),
    [
        ((["user_id"],), None, ("user_id",)),
        ((("user_id",), "A user"), "A user", ("user_id",)),
        (("A user", ["user_id"]), "A user", ("user_id",)),
        (("A user",), "A user", ()),
        (([],), None, ()),
    ],
)
def test_personal_keys_may_still_be_the_third_argument(given, description, pii):
    entity = Entity("user", ["user_id"], *given)
    assert (entity.description, entity.pii_keys) == (description, pii)


def test_a_description_is_text():
    with pytest.raises(DefinitionError, match="description=3 of entity 'user' is not text"):
        Entity("user", ["user_id"], 3)
    with pytest.raises(DefinitionError, match=r"description=\['user_id'\] of entity 'user' is not text"):
        Entity("user", ["user_id"], ["user_id"], ["user_id"])
    with pytest.raises(DefinitionError, match="names nobody, but only join keys can be personal data"):
        Entity("user", ["user_id"], ["nobody"])


def two_keys():
    fg = FeatureGroupDuckDB("two", Entity("pair", ["left", "right"]), Materialization("at"), "shop")
    fg.set_dataframe(pa.table({"left": [1], "right": [2], "at": [NOON], "x": [3], "y": [4]})).write()
    return fg, HistoricalFeaturesDuckDB(FeatureLookup(fg))


def test_all_that_is_missing_is_named(tmp_path):
    fg, features = two_keys()
    spine = pa.table({"when": [NOON]})
    pq.write_table(spine, tmp_path / "spine.parquet")
    both = "'left' and 'right'"
    for frame in (spine, spine.to_pandas(), tmp_path / "spine.parquet"):
        with pytest.raises(DataError, match=f"The spine has no column {both}"):
            features.using_spine(frame, "when").to_dataframe()
    with pytest.raises(DataError, match=f"The row has no {both}"):
        features.using_spine(spine, "when").explain({"when": NOON})
    with pytest.raises(DataError, match=f"The frame for group 'two' has no column {both}"):
        fg.set_dataframe(pa.table({"at": [NOON], "x": [1]})).write()
    table = features.serve("t")
    for keys in ([{}], spine):
        with pytest.raises(DataError, match=f"{both} are missing"):
            table.get_features(keys)
    with pytest.raises(DataError, match=f"lacks {both}"):
        fg.push({"at": NOON, "x": 1, "y": 1})
    with pytest.raises(DataError, match=f"{both} (is|are) missing"):
        FeatureStore().groups.erase("two", {})
    with pytest.raises(DefinitionError, match="no feature named 'a' and 'b'"):
        HistoricalFeaturesDuckDB(FeatureLookup(fg, features=["a", "b"])).to_dataframe()
    with pytest.raises(DefinitionError, match="no feature 'a' and 'b'"):
        table.get_features([{"left": 1, "right": 2}], features=["a", "b"])
    for command in (
        ["explain", "two", "z=1", "--at", "2024-01-01"],
        ["lookup", "t", "z=1"],
        ["erase", "two", "z=1", "--yes"],
    ):
        error = seeknal(*command).stderr
        assert all(f"'{name}'" in error for name in ("left", "right", "z"))


def test_an_explanation_shows_the_winner_and_the_nearest():
    fg = written(rows(*range(50)))
    features = HistoricalFeaturesDuckDB(FeatureLookup(fg)).using_spine(
        pa.table({"user_id": [1], "when": [NOON + 20 * HOUR]}), "when"
    )
    row = {"user_id": 1, "when": NOON + 20 * HOUR}
    whole = features.explain(row, limit=None)
    assert (len(whole), len(features.explain(row)), whole["verdict"][0]) == (50, 10, "won")
    assert [one["x"] for one in whole["features"]][:3] == [20, 21, 19]
    for limit in (1, 3, 49, 50, 51):
        assert features.explain(row, limit=limit).to_dict("list") == whole[:limit].to_dict("list")
    far = {"user_id": 1, "when": NOON - 9 * HOUR}
    assert features.explain(far, limit=2)["verdict"].tolist() == [
        f"future: {9 + i}:00:00 after the moment" for i in (0, 1)
    ]
    outside = features.explain(row, feature_end_time=NOON + 5 * HOUR, limit=3)
    assert [one["x"] for one in outside["features"]] == [5, 20, 21]
    before = features.explain(row, as_of=0, limit=2)
    assert all(verdict.startswith("written later") for verdict in before["verdict"])


def test_the_command_line_says_that_there_are_more():
    written(rows(*range(50)))
    done = seeknal("explain", "spend", "user_id=1", "--at", "2024-01-02", "--limit", "3", "--format", "json")
    assert done.stdout.count('"verdict"') == 3
    assert "has more rows of that entity" in done.stderr
    assert "--limit 30" in done.stderr
    assert "more rows" not in seeknal("explain", "spend", "user_id=1", "--at", "2024-01-02", "--limit", "50").stderr


def test_each_long_call_reports_its_steps(tmp_path):
    steps: list[str] = []
    fg = group()
    fg.set_dataframe(rows(1, 2)).write(on_progress=steps.append)
    assert steps == ["Writing shop/spend"]
    features = HistoricalFeaturesDuckDB(FeatureLookup(fg)).using_spine(
        pa.table({"user_id": [1], "when": [NOON]}), "when"
    )
    table = features.serve("table")
    calls = {
        "to_dataframe": features.to_dataframe,
        "to_parquet": lambda **options: features.to_parquet(tmp_path / "it.parquet", **options),
        "to_batches": lambda **options: features.to_batches(**options).read_all(),
        "save": lambda **options: features.save("it", **options),
        "check": features.check,
    }
    for name, call in calls.items():
        steps.clear()
        call(on_progress=steps.append)
        assert "Joining shop/spend" in steps, name
    for call, first in (
        (lambda **options: features.serve("other", **options), "Loading"),
        (table.verify, "Verifying shop/table"),
        (features.save("again").reproduce, "Reproducing shop/again"),
        (features.save("kept", rows=True).to_dataframe, "Reading shop/kept"),
    ):
        steps.clear()
        call(on_progress=steps.append)
        assert steps[0] == first
    steps.clear()
    backup(FeatureStore(), tmp_path / "saved", on_progress=steps.append)
    restore(tmp_path / "saved", FeatureStore(tmp_path / "again"), on_progress=steps.append)
    assert {"Waiting for those who delete", "Restoring"} < set(steps)


def test_each_retry_reports_its_reason():
    steps: list[str] = []
    with (
        Client("http://127.0.0.1:1", retries=2, on_progress=steps.append) as client,
        pytest.raises(StoreError, match="cannot be reached"),
    ):
        client.catalog()
    assert steps[0] == "Waiting for http://127.0.0.1:1"
    reasons = [step.partition(":1 after ")[2].partition(": ")[0] for step in steps[1:]]
    assert reasons == ["1 of 2 failures", "2 of 2 failures"]


LONG = """
import sys, threading
from seeknal.system import progress
shown, start = threading.Event(), progress._Display.start
progress._Display.start = lambda display: (start(display), shown.set())
with progress.working("Working") as tell:
    tell("A step [of] it")
    waited = shown.wait(10 if sys.stderr.isatty() else 0)
    with progress.working("Inner") as inner:
        inner("not shown")
print(waited)
"""


def test_steps_are_shown_on_a_terminal_and_nowhere_else():
    command = [sys.executable, "-c", LONG]
    piped = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("False\n", "")
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        out = process.communicate()[0]
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    assert out == "True\n"
    assert b"A step [of] it" in seen
    assert b"not shown" not in seen


def test_a_fast_call_shows_nothing_and_loads_no_rich():
    code = "import sys; from seeknal.system.progress import working\nwith working('x') as tell: tell('y')\nprint('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    assert not list(Path.cwd().iterdir())
