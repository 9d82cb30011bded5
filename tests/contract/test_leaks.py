"""Sums dated by the start of their day are found by their agreement with labels; those dated by its end are never reported.

The events are generated; sums, moments and labels are made from them by plain loops over frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from seeknal import FeatureLookup, HistoricalFeaturesDuckDB, SeeknalWarning
from seeknal.join.periods import Around, Cells, made_of_their_own
from seeknal.values.times import DAY

from .world import NOON, group, rows, write, written

pytestmark = pytest.mark.slow

FIRST = pd.Timestamp("2024-01-01")


@dataclass(frozen=True)
class World:
    """Purchases of some users over some days, and moments to predict at.

    Args:
        events: user_id, at, amount.
        spine: user_id, when; one a day and user, or one an event.
    """

    events: pd.DataFrame
    spine: pd.DataFrame

    @classmethod
    def of(cls, seed: int, users: int = 30, days: int = 40, rate: float = 1.5, by: str = "day") -> World:
        rng = np.random.default_rng(seed)
        often, much = rng.gamma(2, rate / 2, users), rng.lognormal(3, 0.7, users)
        count = rng.poisson(often[:, None] * rng.gamma(3, 1 / 3, (users, days)))
        user, day = (np.repeat(one, count[count > 0]) for one in np.nonzero(count))
        at = FIRST + pd.to_timedelta(day * 24.0 + rng.random(len(day)) * 24, unit="h")
        amount = much[user] * rng.lognormal(0, 0.8, len(user))
        events = pd.DataFrame({"user_id": user, "at": at.floor("us"), "amount": amount})
        if by == "event":
            return cls(events, events.rename(columns={"at": "when"}).assign(noise=rng.random(len(events))))
        user, day = (one.ravel() for one in np.meshgrid(np.arange(users), np.arange(days), indexing="ij"))
        when = FIRST + pd.to_timedelta(day * 24 + rng.random(len(day)) * 24, unit="h")
        return cls(events, pd.DataFrame({"user_id": user, "when": when.floor("us"), "noise": rng.random(len(day))}))

    def sums(self, period: str = "D") -> pd.DataFrame:
        """Sum up each period, dated by its start."""
        dated = self.events.assign(at=self.events["at"].dt.floor(period)).groupby(["user_id", "at"])["amount"]
        return dated.agg(spent="sum", bought="count", largest="max", mean="mean").reset_index()

    def dense(self) -> pd.DataFrame:
        """Sum up each day, those without purchases too."""
        days = pd.date_range(FIRST, self.events["at"].max().floor("D"))
        every = pd.MultiIndex.from_product([self.events["user_id"].unique(), days], names=["user_id", "at"])
        return self.sums().set_index(["user_id", "at"]).reindex(every, fill_value=0).reset_index()

    def later(self, period: str = "D") -> pd.Series:
        """Sum up what is bought in the rest of the period."""
        pairs = self.spine.reset_index().merge(self.events, on="user_id", suffixes=("", "_of"))
        amount = pairs["amount_of"] if "amount_of" in pairs else pairs["amount"]
        rest = (pairs["at"] > pairs["when"]) & (pairs["at"].dt.floor(period) == pairs["when"].dt.floor(period))
        return amount.where(rest, 0).groupby(pairs["index"]).sum().reindex(self.spine.index, fill_value=0)

    def of_day(self, back: int = 0) -> pd.Series:
        """Sum up what is bought in the day of each moment, or so many days before."""
        day = self.spine["when"].dt.floor("D") - pd.Timedelta(days=back)
        known = self.sums().set_index(["user_id", "at"])["spent"]
        return pd.Series(known.reindex(pd.MultiIndex.from_arrays([self.spine["user_id"], day])).fillna(0).to_numpy())

    def label(self, name: str) -> pd.Series:
        """Return a label: of the day of each moment, of the rest of that day, of the day before, or random."""
        yesterday = self.of_day(back=1)
        typical = yesterday.median()
        noise = self.spine["noise"]
        return {
            "spends_later": self.later,
            "buys_later": lambda: self.later() > 0,
            "a_good_day": lambda: self.of_day() > self.of_day().quantile(0.6),
            "amount": lambda: self.spine["amount"],
            "a_large_one": lambda: self.spine["amount"] > self.spine["amount"].median(),
            "yesterday_was_good": lambda: (yesterday > typical) ^ (noise < 0.15),
            "about_yesterday": lambda: yesterday + noise * yesterday.std() * 2,
            "chance": lambda: noise < 0.3,
        }[name]()


def found(world: World, sums: pd.DataFrame, shift: timedelta, features: list[str] | None = None, **columns: pd.Series):
    """Write sums, dated by their start and a shift, and check them beside the spine and these columns."""
    fg = group()
    write(fg, sums.assign(at=sums["at"] + shift)[["user_id", "at", *(features or ["spent"])]])
    spine = world.spine[["user_id", "when"]].assign(**columns)
    return HistoricalFeaturesDuckDB(FeatureLookup(fg)).using_spine(spine, "when").check()


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
@pytest.mark.parametrize("sums", ["active", "dense"])
@pytest.mark.parametrize("label", ["spends_later", "buys_later", "a_good_day", "amount"])
def test_sums_dated_by_the_start_of_their_day_are_found_and_by_its_end_they_are_not(label, sums):
    world = World.of(7, by="event" if label == "amount" else "day")
    frame, y = (world.sums() if sums == "active" else world.dense()), world.label(label)
    texts = found(world, frame, timedelta(0), y=y)
    assert len(texts) == 1
    assert texts[0].startswith("shop/spend: spent ")
    assert (
        "If a row sums up the day starting at its at, a training set sees it before that day is over. Date it by the end of that day."
        in texts[0]
    )
    write(group(), frame.assign(at=frame["at"] + timedelta(days=1))[["user_id", "at", "spent"]])
    spine = world.spine[["user_id", "when"]].assign(y=y)
    again = HistoricalFeaturesDuckDB(FeatureLookup("shop/spend")).using_spine(spine, "when").check()
    assert again == []
    assert "Found: nothing." in again.report
    assert (
        "whether the rows, one for each day, are computed from the day they are dated by: how spent agrees with y"
        in again.report
    )


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_sums_that_correlate_with_labels_without_bounding_them_are_found():
    world = World.of(7, 100, 100, 0.8, "event")
    (text,) = found(world, world.dense(), timedelta(0), y=world.label("a_large_one"))
    assert "spent correlates with each y of the day it is dated by, but these do not correlate with each other" in text
    write(group(), world.dense().assign(at=world.dense()["at"] + timedelta(days=1))[["user_id", "at", "spent"]])
    spine = world.spine[["user_id", "when"]].assign(y=world.label("a_large_one"))
    assert HistoricalFeaturesDuckDB(FeatureLookup("shop/spend")).using_spine(spine, "when").check() == []


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
@pytest.mark.parametrize("zone", ["Asia/Jakarta", "America/New_York"])
def test_days_and_hours_of_any_zone_are_looked_at(zone):
    world = World.of(3, users=40, days=100)
    local = world.events.assign(at=world.events["at"].dt.tz_localize("UTC").dt.tz_convert(zone))
    days = local.assign(at=local["at"].dt.floor("D")).groupby(["user_id", "at"])["amount"].sum().rename("spent")
    moved = World(local, world.spine.assign(when=world.spine["when"].dt.tz_localize("UTC").dt.tz_convert(zone)))
    texts = found(moved, days.reset_index(), timedelta(0), y=moved.later())
    assert len(texts) == 1
    assert "the day it is dated by" in texts[0]
    ended = days.reset_index()
    ended["at"] = (ended["at"] + timedelta(hours=36)).dt.floor("D")  # the next midnight, on days of 23 and 25 hours too
    write(group(), ended)
    spine = moved.spine.assign(y=moved.later())
    assert HistoricalFeaturesDuckDB(FeatureLookup("shop/spend")).using_spine(spine, "when").check() == []


@pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
def test_hours_are_looked_at_as_days_are():
    world = World.of(5, users=30, days=8, rate=24, by="event")
    (text,) = found(world, world.sums("h"), timedelta(0), y=world.later("h"))
    assert "the hour it is dated by" in text


@pytest.mark.parametrize("feature", ["spent", "bought", "largest", "mean"])
def test_each_kind_of_sum_is_found(feature):
    world = World.of(11, by="event")
    with pytest.warns(SeeknalWarning):
        (text,) = found(world, world.sums(), timedelta(0), [feature], y=world.label("amount"))
    assert feature in text


@pytest.mark.parametrize("by", ["day", "event"])
@pytest.mark.parametrize(
    "seeds", [range(20), *(pytest.param(range(i, i + 40), marks=pytest.mark.slow) for i in range(20, 300, 40))], ids=str
)
def test_sums_dated_by_the_end_of_their_day_are_never_reported(seeds, by):
    """For every label: of the day to come, of the day before, which the sums predict well, or random."""
    labels = ["spends_later", "chance", "yesterday_was_good", "about_yesterday"]
    labels += ["a_good_day", "buys_later"] if by == "day" else ["amount", "a_large_one"]
    for seed in seeds:
        shape = np.random.default_rng(seed)
        world = World.of(
            seed, int(shape.integers(5, 40)), int(shape.integers(12, 50)), float(shape.choice([0.4, 1.5, 5])), by
        )
        columns = {name: world.label(name).to_numpy(float) for name in labels}
        frame = world.dense() if seed % 2 else world.sums()
        features, cells = looked_up(world, frame, by_end=True)
        assert list(made_of_their_own(features, columns, cells, DAY)) == [], seed


def looked_up(world: World, frame: pd.DataFrame, *, by_end: bool) -> tuple[dict[str, Around], Cells]:
    """Look up the sums around each moment without the store."""
    day = world.spine["when"].dt.floor("D") - pd.Timedelta(days=int(by_end))
    known = frame.set_index(["user_id", "at"])

    def of(name: str, shift: int) -> np.ndarray:
        places = pd.MultiIndex.from_arrays([world.spine["user_id"], day + pd.Timedelta(days=shift)])
        return known[name].reindex(places).to_numpy(float)

    names = ["spent", "bought", "largest", "mean"]
    features = {name: Around(of(name, 0), of(name, -1), of(name, 1)) for name in names}
    moments = world.spine["when"].astype("datetime64[us]").astype("int64")
    times = np.unique(frame["at"].astype("datetime64[us]").astype("int64"))
    keys = pa.table({"k0": world.spine["user_id"].to_numpy(), "t": moments.to_numpy()})
    return features, Cells.of(keys, DAY, times)


def test_a_date_alone_is_no_evidence():
    """Earlier releases reported these: rows dated at midnights, and a spine with hours."""
    fg = written(rows(1, 2, times=[NOON - timedelta(hours=12), NOON + timedelta(hours=12)]))
    asked = HistoricalFeaturesDuckDB(FeatureLookup(fg))
    checked = asked.using_spine(pa.table({"user_id": [1], "when": [NOON]}), "when").check()
    assert checked == []
    assert "dated by events, not by periods" in checked.report or "too few to tell" in checked.report


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({}, "the spine has no label column to compare with"),
        ({"y": [5]}, "whether x equals the column y"),
        ({}, "in 1 case (one entity, one 7-day period); the spine has only one 7-day period, too few to tell"),
    ],
)
def test_the_report_of_a_small_spine_is_in_the_singular(columns, told):
    fg = written(rows(1, 2, 3, times=[NOON.replace(hour=0) + timedelta(days=7 * week) for week in range(3)]))
    spine = pa.table({"user_id": [1], "when": [NOON + timedelta(days=8)], **columns})
    report = HistoricalFeaturesDuckDB(FeatureLookup(fg, features=["x"])).using_spine(spine, "when").check().report
    assert told in report


@pytest.mark.parametrize("value", ["text", None, [1]], ids=repr)
def test_features_and_labels_of_any_type_can_be_checked(value):
    days = [NOON + timedelta(hours=12 + 24 * i) for i in range(30)]
    kind = pa.string() if value == "text" else pa.int64() if value is None else pa.list_(pa.int64())
    fg = written(rows(*range(30), times=days).append_column("z", pa.array([value] * 30, kind)))
    spine = pa.table({"user_id": [1] * 30 + [None], "when": [*days, None], "y": pa.array([value] * 31, kind)})
    assert HistoricalFeaturesDuckDB(FeatureLookup(fg)).using_spine(spine, "when").check() == []


def test_a_spine_without_rows_or_moments_can_be_checked():
    fg = written(rows(1, 2, 3, times=[NOON + timedelta(hours=12 + 24 * i) for i in range(3)]))
    for spine in (
        pa.table({"user_id": pa.array([], pa.int64()), "when": pa.array([], pa.timestamp("us"))}),
        pa.table({"user_id": [1], "when": pa.array([None], pa.timestamp("us"))}),
    ):
        assert HistoricalFeaturesDuckDB(FeatureLookup(fg)).using_spine(spine, "when").check() == []
