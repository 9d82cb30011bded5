"""A write counts what happened to rows, and no zero changes its sign on the way."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.profiles import PROFILE
from seeknal import DataError, Entity, FeatureLookup, FeatureStore, Materialization, SeeknalWarning
from seeknal.define.feature_group import FeatureGroup

pytestmark = pytest.mark.slow

START = datetime(2024, 1, 1, tzinfo=UTC)
MOMENT = pa.timestamp("us", "UTC")


def group(created: str | None = None, name: str = "card") -> FeatureGroup:
    """Define a group."""
    return FeatureGroup(name, Entity("card", ["card"]), Materialization("at", created))


def table(rows: list[tuple[int | None, int, int]]) -> pa.Table:
    """Make rows of (card, day, day of recording); n numbers them."""
    at, made = (pa.array([START + timedelta(days=row[i]) for row in rows], MOMENT) for i in (1, 2))
    cards = pa.array([row[0] for row in rows], pa.int64())
    return pa.table({"card": cards, "at": at, "made": made, "n": pa.array(range(len(rows)), pa.int64())})


def write(store: FeatureStore, fg: FeatureGroup, rows: pa.Table, **options: object):
    """Write rows, whatever notice is given."""
    with warnings.catch_warnings(action="ignore"):
        return store.groups.write(fg, rows, **options)  # type: ignore[arg-type]


def test_merging_raw_rows_reports_how_many_are_kept(home):
    store = FeatureStore(home)
    raw = table([(n % 7, n % 3, 0) for n in range(1000)]).drop_columns("made")
    with pytest.warns(SeeknalWarning) as told:
        first = store.groups.write(group(), raw, mode="merge")
    assert (first.rows, first.superseded, first.replaced) == (1000, 979, 0)
    assert store.groups.versions("card")[0].rows == 21
    assert str(first) == (
        "default/card version 1, snapshot 1: 1,000 rows written; 979 of them superseded by others of the same keys and time"
    )
    assert str(told[0].message) == (
        "default/card: 979 of 1,000 rows are superseded by a later one with the same join keys and event time (for example, 48 rows have card=0, "
        "at=2024-01-01); the write kept the last of each. Aggregate them first, add the column that tells them apart to the join keys, or name a "
        "created_time_col that says which one counts."
    )
    again = write(store, group(), raw, mode="merge")
    assert (again.rows, again.superseded, again.replaced) == (1000, 979, 21)


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_other_modes_keep_such_rows_and_say_that_reads_show_one(home, mode):
    store, raw = FeatureStore(home), table([(1, 0, 0)] * 30).drop_columns("made")
    with pytest.warns(SeeknalWarning, match=r"30 rows have card=1, at=2024-01-01\); reads show the last of each"):
        done = store.groups.write(group(), raw, mode=mode)
    assert (done.rows, done.superseded, done.replaced, store.groups.versions("card")[0].rows) == (30, 29, 0, 30)
    assert store.features.latest([FeatureLookup("card")], output="arrow")["n"].to_pylist() == [29]


def test_a_few_such_rows_are_counted_without_a_notice(home):
    done = FeatureStore(home).groups.write(group(), table([(1, 0, 0), (1, 0, 0), (2, 0, 0)]).drop_columns("made"))
    assert done.superseded == 1


def test_a_created_time_that_decides_no_tie_gives_a_warning(home):
    with pytest.warns(
        SeeknalWarning, match="29 of 30 rows are superseded by a later one with the same join keys and times"
    ):
        done = FeatureStore(home).groups.write(group("made"), table([(1, 0, 5)] * 30))
    assert done.superseded == 29


def test_corrections_with_a_created_time_are_counted_without_a_notice(home):
    done = FeatureStore(home).groups.write(group("made"), table([(1, 0, n) for n in range(30)]), mode="merge")
    assert (done.rows, done.superseded) == (30, 29)


rows = st.lists(st.tuples(st.sampled_from([1, 2, None]), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=12)


@PROFILE
@given(
    writes=st.lists(st.tuples(st.sampled_from(["append", "overwrite", "merge"]), rows), min_size=1, max_size=4),
    created=st.booleans(),
)
def test_counts_are_those_of_a_plain_loop(tmp_path_factory, writes, created):
    store, fg = FeatureStore(tmp_path_factory.mktemp("home")), group("made" if created else None)
    stored: list[tuple[tuple[int | None, int], int]] = []
    for mode, some in writes:
        given_rows = table(some)
        done = write(store, fg, given_rows if created else given_rows.drop_columns("made"), mode=mode)
        new = [((card, day), made if created else 0) for card, day, made in some]
        hidden = len(new) - len(Counter(key for key, _ in new))
        if mode == "merge":
            met = {key for key, _ in new}
            untouched = [row for row in stored if row[0] not in met]
            every = [*((row, False) for row in stored if row[0] in met), *((row, True) for row in new)]
            kept = {}
            for place, ((key, made), is_new) in enumerate(every):
                if key not in kept or (made, place) > kept[key][0]:
                    kept[key] = ((made, place), is_new)
            replaced = len(stored) - len(untouched) - sum(not is_new for _, is_new in kept.values())
            hidden = len(new) - sum(is_new for _, is_new in kept.values())
            stored = untouched + [(key, made) for key, ((made, _), _) in kept.items()]
        else:
            replaced = len(stored) if mode == "overwrite" else 0
            stored = [*([] if mode == "overwrite" else stored), *new]
        assert (done.rows, done.superseded, done.replaced) == (len(new), hidden, replaced)
        assert store.groups.versions("card")[0].rows == len(stored)
    store.close()


def zeros(home: Path) -> tuple[FeatureStore, pa.Table]:
    """Write zeros of both signs, plain and in lists and structs."""
    values = [0.0, -0.0, math.nan]
    columns = {
        "card": pa.array([1, 2, 3]),
        "at": pa.array([START] * 3, MOMENT),
        "x": pa.array(values),
        "small": pa.array(values, pa.float32()),
        "list": pa.array([[value] for value in values]),
        "struct": pa.array([{"a": value} for value in values]),
    }
    store, made = FeatureStore(home), pa.table(columns)
    store.groups.write(group(), made)
    return store, made


def shown(found: pa.Table) -> list[str]:
    """Write the values of each row, signs included."""
    return [str(tuple(row.values())[2:]) for row in found.to_pylist()]


def test_a_merge_keeps_the_sign_of_zero(home):
    store, made = zeros(home)
    for some in (made.slice(0, 1), made.slice(1, 2), made):
        store.groups.write(group(), some, mode="merge")
        assert shown(store.features.latest([FeatureLookup("card")], output="arrow")) == shown(made)


def test_compaction_a_new_version_and_an_overwrite_keep_the_sign_of_zero(home):
    store, made = zeros(home)
    store.groups.write(
        group(), made.set_column(1, "at", pa.array([START + timedelta(days=1)] * 3, MOMENT)), mode="append"
    )
    store.groups.optimize("card")
    assert shown(store.features.latest([FeatureLookup("card")], output="arrow")) == shown(made)
    with pytest.warns(SeeknalWarning, match="version 2"):
        store.groups.write(group(), made.append_column("more", pa.array([-0.0] * 3)), mode="append")
    latest = store.features.latest([FeatureLookup("card")], output="arrow")
    assert shown(latest.drop_columns("more")) == shown(made)


def test_a_pushed_zero_of_the_other_sign_is_another_value_and_the_same_one_is_known(home):
    store, made = zeros(home)
    row = {**made.to_pylist()[0], "at": START}
    assert store.groups.push("card", row).rows == 0
    for change in ({"x": -0.0}, {"list": [-0.0]}, {"struct": {"a": -0.0}}):
        assert store.groups.push("card", row | change).rows == 1
        assert store.groups.push("card", row | change).rows == 0
    assert store.groups.push("card", made).rows == 0
    assert store.groups.push("card", [row | {"small": -0.0}, row | {"small": -0.0}]).rows == 1


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("ms"), pa.timestamp("ns")], ids=str)
def test_keys_that_python_cannot_hold_are_counted(home, kind):
    far = pa.array([10**7] * 3, pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
    rows = pa.table({"card": far, "at": pa.array([START] * 3, MOMENT), "n": [1, 2, 3]})
    assert write(FeatureStore(home), group(), rows).superseded == 2


def test_stored_rows_that_do_not_fit_a_wider_type_are_an_error_that_names_the_column(home):
    store = FeatureStore(home)
    rows = pa.table({"card": [1], "at": pa.array([START], MOMENT), "n": pa.array([253_402_214_400_000_000], MOMENT)})
    write(store, group(), rows)
    finer = rows.set_column(2, "n", pa.array([1], pa.timestamp("ns", "UTC")))
    with pytest.raises(DataError, match=r"Column 'n' has stored values .* that do not fit timestamp\[ns"):
        write(store, group(), finer, mode="append")
    assert store.groups.versions("card")[0].rows == 1
