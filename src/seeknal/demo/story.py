"""The steps of the demo: what each does to the store, and what the demo prints about it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seeknal.config import FILE
from seeknal.define.aggregations import Mean
from seeknal.define.event_group import event_group
from seeknal.define.feature_group import FeatureGroup, FeatureLookup, Materialization
from seeknal.define.windowed_group import WindowedGroup
from seeknal.demo import flights, leak
from seeknal.entity import Entity
from seeknal.errors import DefinitionError, SeeknalWarning
from seeknal.home.store import FeatureStore
from seeknal.serve.open_tables import ServedTable
from seeknal.system.extras import how_to_install
from seeknal.values.times import instant, show

PROJECT = "flights"
ONLINE_TABLE = "flight_features"

_OURS = "Made by seeknal demo"
"""Start of the descriptions by which a later run recognizes groups of the demo. It must not change."""
_WIDTH = 80

WEATHER = FeatureGroup(
    "weather",
    Entity("airport", ["airport"]),
    Materialization(event_time_col="known_at"),
    PROJECT,
    f"{_OURS}: hourly weather at the airports of New York.",
)
LANDINGS = event_group(
    "landings",
    "landed_at",
    project=PROJECT,
    description=f"{_OURS}: flights from New York, at the time when each landed.",
)
CARRIER_DELAYS = WindowedGroup(
    "carrier_delays",
    Entity("carrier_at_airport", ["carrier", "origin"]),
    LANDINGS,
    {"delay": Mean("arr_delay", over=["3h", "1d"])},
    description=f"{_OURS}: mean arrival delays of a carrier's flights from an airport.",
)
LOOKUPS = (
    FeatureLookup(WEATHER, rename={"airport": "origin"}),
    FeatureLookup(CARRIER_DELAYS),
)
EVENING = datetime(2014, 1, 1, tzinfo=UTC)
"""The moment of the online lookups, the last evening of the year in New York: the windows of today have no flights."""


def run(folder: Path, console: Console) -> None:
    """Run the demo in a folder, and leave it there as a project to explore.

    What an earlier run created there is created again; nothing else in the folder is touched.

    Args:
        folder: The project's folder; created if it is missing.
        console: Where to print.

    Raises:
        DefinitionError: The data is not installed, `folder` is a file, or the folder has groups or an online table of the
            demo's names that the demo did not create.
    """
    teller = _Teller(console)
    store = FeatureStore(folder / ".seeknal")
    year = _open(folder, store, teller)
    _write_weather(store, year, teller)
    _write_landings(store, year, teller)
    training = _train(store, year, teller)
    _show_leak(training, year, teller)
    _serve(store, teller)
    _push(store, year, teller)
    _change_schema(store, year, teller)
    _suggest(folder, teller)


class _Teller:
    """Prints headings, sentences and small tables, at most eighty columns wide."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, _WIDTH)
        self._step = 0

    def title(self, text: str) -> None:
        self._console.print(Text(text, style="bold"))
        self._console.print()

    def heading(self, text: str, *code: str) -> None:
        self._step += 1
        self._console.print()
        self._console.print(Text(f"{self._step}. {text}", style="bold"))
        self._console.print()
        for line in code:
            self._console.print(Text(f"  {line}", style="cyan"))
        if code:
            self._console.print()

    def say(self, text: str) -> None:
        self._console.print(
            Text(fill(text, self._width, break_long_words=False, break_on_hyphens=False)), soft_wrap=True
        )

    def table(self, records: Sequence[Mapping[str, Any]], decimals: int = 1) -> None:
        table = Table(box=None, padding=(0, 0, 0, 2), header_style="bold")
        for name, value in records[0].items():
            table.add_column(name, justify="right" if isinstance(value, int | float) else "left", overflow="fold")
        for record in records:
            table.add_row(*(Text(_shown(value, decimals)) for value in record.values()))
        self._console.print()
        self._console.print(table)
        self._console.print()

    def commands(self, lines: Sequence[str]) -> None:
        self._console.print()
        for line in lines:
            self._console.print(Text(f"  {line}"), soft_wrap=True)


def _shown(value: object, decimals: int = 1) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:.{decimals}f}"
    return f"{value:,}" if type(value) is int else "" if value is None else str(value)


def _open(folder: Path, store: FeatureStore, teller: _Teller) -> flights.Year:
    if folder.exists() and not folder.is_dir():
        raise DefinitionError(f"{folder} is a file. Run the demo in a folder.")
    started = time.perf_counter()
    year = flights.read(store.scratch)
    seconds = time.perf_counter() - started
    _clear(store)
    file = folder / FILE
    if not file.exists():
        file.write_text("# Settings of this Seeknal project. Its data is in the folder .seeknal beside this file.\n")
    teller.title(f"Two hours before departure: will this flight arrive more than {leak.LATE} minutes late?")
    teller.say(
        f"The data is real: {year.flights:,} flights scheduled to leave New York in 2013, and {len(year.weather):,} "
        f"hourly weather readings at its three airports, read in {seconds:.1f} s. Times are in UTC, delays in minutes."
    )
    return year


def _clear(store: FeatureStore) -> None:
    """Delete what an earlier run created, and nothing else.

    Raises:
        DefinitionError: A group or an online table has a name of the demo's, but the demo did not create it.
    """
    # The windowed group comes first: a source is deleted after the groups that are computed from it.
    groups = [
        one for group in (CARRIER_DELAYS, LANDINGS, WEATHER) if (one := store.groups.find(group.name, project=PROJECT))
    ]
    ours = [found.group.name for found in groups if (found.group.description or "").startswith(_OURS)]
    tables = store.tables.all(project=PROJECT, name=ONLINE_TABLE)
    foreign = [f"Feature group {found.label!r}" for found in groups if found.group.name not in ours]
    if any(lookup.group not in ours for table in tables for lookup in table.lookups):
        foreign.append(f"Online table '{PROJECT}/{ONLINE_TABLE}'")
    if foreign:
        raise DefinitionError(
            f"{foreign[0]} in {store.home} was not created by the demo. Run the demo in another folder."
        )
    for table in tables:
        store.tables.delete(table)
    for name in ours:
        store.groups.delete(name, project=PROJECT)


def _write_weather(store: FeatureStore, year: flights.Year, teller: _Teller) -> None:
    teller.heading("Write a feature group: the weather", "store.groups.write(weather, readings)")
    teller.say(
        "Each row is dated by the time at which it was known. The reading for 06:00 was taken "
        "at some minute between 06:00 and 07:00, so it is valid from 07:00 on."
    )
    columns = ["airport", "known_at", "temp", "humid", "wind_speed", "precip", "visib"]
    teller.table(year.weather.select(columns).slice(0, 3).to_pylist())
    started = time.perf_counter()
    written = store.groups.write(WEATHER, year.weather)
    teller.say(f"{written} in {time.perf_counter() - started:.2f} s.")


def _write_landings(store: FeatureStore, year: flights.Year, teller: _Teller) -> None:
    teller.heading(
        "Write events, and define features of windows: how late flights have been",
        "store.groups.write(landings, flights_that_landed)",
        'delay = Mean("arr_delay", over=["3h", "1d"])',
        'carrier_delays = WindowedGroup("carrier_delays", carrier_at_airport,',
        '                               source=landings, features={"delay": delay})',
    )
    first = year.landings.slice(0, 1).to_pylist()[0]
    teller.say(
        f"A delay is known when the flight lands. {first['carrier']} {first['flight']} from {first['origin']} was "
        f"{first['arr_delay']} minutes late. That is known from {_shown(first['landed_at'])} on: when it landed, "
        "converted from the local time of its destination, not when it was due to leave. Each landing is an event. "
        "The features are the mean delays of a carrier's flights from an airport that landed in the three hours before a "
        "moment, and in the day before it."
    )
    teller.table(year.landings.slice(len(year.landings) // 2, 3).to_pylist())
    started = time.perf_counter()
    written = store.groups.write(LANDINGS, year.landings)
    teller.say(
        f"{written} in {time.perf_counter() - started:.2f} s. The features are not stored: they are computed at each moment "
        "that is looked up."
    )


def _train(store: FeatureStore, year: flights.Year, teller: _Teller) -> pa.Table:
    teller.heading(
        "Build a training set: what was known at each moment",
        'lookups = [FeatureLookup(weather, rename={"airport": "origin"}),',
        "           FeatureLookup(carrier_delays)]",
        'store.features.training_set(lookups, flights, "predict_at")',
    )
    spine = year.spine
    started = time.perf_counter()
    training = store.features.training_set(LOOKUPS, spine, "predict_at")
    seconds = time.perf_counter() - started
    teller.say(
        "The spine is the list of flights with the moment of prediction, two hours before scheduled departure. "
        "Each flight gets the newest weather at its origin, and the mean delays of its carrier there, "
        "as known at that moment."
    )
    columns = ["predict_at", "carrier", "origin", "temp", "delay_3h", "delay_1d", "arr_delay"]
    teller.table(training.select(columns).take([*range(2000, len(training), len(training) // 4)]).to_pylist())
    kept = training.select(spine.column_names).equals(spine)
    teller.say(
        f"{len(training):,} rows, {training.num_columns - spine.num_columns} features, {seconds:.1f} s. "
        f"Exactly the spine's rows, in the spine's order: {'yes' if kept else 'no'}. "
        "(Flights that were cancelled or diverted have no arrival delay to learn from and are left out.)"
    )
    return training


def _show_leak(training: pa.Table, year: flights.Year, teller: _Teller) -> None:
    teller.heading("See what a join by date would have done")
    future = leak.measure(year.landed)
    teller.say(
        "It is tempting to average a carrier's delays by day and join on the date. In "
        f"{future.rows:.0%} of the rows, that average includes flights that had not landed yet, among them the very "
        f"flight to predict: {future.flights:.0%} of what it averages lies in the future."
    )
    if not leak.can_train():
        teller.say("To see what that does to a model, install scikit-learn.")
        teller.commands([how_to_install("demo")])
        return
    scores = leak.compare(training, year.landed)
    teller.table(
        [
            {"delay_1d joined": name, "AUC when tested": one.tested, "AUC in use": one.in_use}
            for name, one in scores.items()
        ],
        decimals=3,
    )
    teller.say(
        "Two models learned from January to September and were tested on October to December (AUC: 0.5 is guessing, "
        "1 is perfect). They differ in one column, delay_1d. In use, the whole day's average does not exist yet, so "
        f"both get what is known. {_verdict(scores['by date'], scores['point in time'])}"
    )


def _verdict(naive: leak.Score, honest: leak.Score) -> str:
    if naive.tested > honest.tested and naive.in_use < honest.in_use:
        return "The join by date won the test and loses in use; the point-in-time join keeps its score."
    return "The point-in-time join keeps its score."


def _serve(store: FeatureStore, teller: _Teller) -> None:
    teller.heading(
        "Serve the newest values online",
        f'table = store.tables.serve(lookups, "{ONLINE_TABLE}", at=evening)',
        'table.get_features(keys, output="dicts", at=evening)',
    )
    started = time.perf_counter()
    table = store.tables.serve(LOOKUPS, ONLINE_TABLE, at=EVENING)
    seconds = time.perf_counter() - started
    teller.say(
        f"The same lookups become an online table, {ONLINE_TABLE!r}, with the newest weather, and the landings that windows "
        f"have. Loaded in {seconds:.1f} s. A lookup computes the windows at its own moment. Those of today have none of these "
        f"flights, so all that follows is as of {_shown(EVENING)}, the last evening of that year in New York."
    )
    keys = [{"origin": origin, "carrier": carrier} for origin, carrier in (("JFK", "B6"), ("EWR", "UA"), ("LGA", "DL"))]
    answers = table.get_features(keys, output="dicts", at=instant(EVENING))
    columns = ["origin", "carrier", "temp", "wind_speed", "delay_3h", "delay_1d"]
    teller.table([{name: answer[name] for name in columns} for answer in answers])
    teller.say(f"One key takes {_microseconds(table, keys[0]):,.0f} microseconds (median of 500).")


def _push(store: FeatureStore, year: flights.Year, teller: _Teller) -> None:
    teller.heading(
        "Push what just happened, and prove that online equals offline",
        'store.groups.push("weather", reading)',
        f'store.tables.verify("{ONLINE_TABLE}", at=evening)',
    )
    last = year.weather.filter(pc.equal(year.weather["airport"], "JFK")).sort_by("known_at").to_pylist()[-1]
    reading = last | {"known_at": last["known_at"] + timedelta(hours=1), "wind_speed": 40.0}
    pushed, again = (store.groups.push(WEATHER.name, reading, project=PROJECT) for _ in range(2))
    key = {"origin": "JFK", "carrier": "B6"}
    table = store.tables.open(ONLINE_TABLE, project=PROJECT)
    answer = table.get_features([key], output="dicts", with_status=True, at=instant(EVENING))[0]
    teller.say(
        f"A reading at JFK that we made up, an hour after the last real one: {pushed.rows} row pushed; when it is delivered again, "
        f"{again.rows}. It is in the offline table and online:"
    )
    columns = ["origin", "wind_speed", "weather_status", "weather_event_time"]
    teller.table([{name: answer[name] for name in columns}])
    found = store.tables.verify(ONLINE_TABLE, project=PROJECT, at=EVENING)
    teller.say(
        f"Every online value against a training set as of the same moment: {found.values:,} values of {found.entities} "
        f"entities compared, {found.different} differ."
    )


def _microseconds(table: ServedTable, key: Mapping[str, str]) -> float:
    spans = []
    for _ in range(500):
        started = time.perf_counter_ns()
        table.get_features([key], output="dicts", at=instant(EVENING))
        spans.append(time.perf_counter_ns() - started)
    return median(spans) / 1000


def _change_schema(store: FeatureStore, year: flights.Year, teller: _Teller) -> None:
    teller.heading(
        "Change a schema: add wind chill to the weather", "store.groups.write(weather, readings_with_wind_chill)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeeknalWarning)
        written = store.groups.write(WEATHER, year.weather_with_chill)
    teller.say(f"Writing the readings with one more column creates version {written.version} automatically.")
    teller.table(
        [
            {
                "version": version.number,
                "features": len(version.schema.features),
                "rows": version.rows,
                "written": show(version.written_at)[:16],
                "current": "yes" if version.is_current else "",
            }
            for version in store.groups.versions(WEATHER.name, project=PROJECT)
        ]
    )
    changes = store.groups.diff(WEATHER.name, written.version - 1, written.version, project=PROJECT)
    teller.say(
        f"The difference: {', '.join(map(str, changes))}. Version {written.version - 1} stays as it was, and "
        f"{ONLINE_TABLE!r} keeps its features and their types, and follows what is written from now on."
    )


def _on_path() -> list[str]:
    """Return the command that activates the virtual environment, if the shell does not find `seeknal` without it."""
    activate = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("seeknal") or not activate.exists():
        return []
    near = activate.is_relative_to(Path.cwd())
    return [f"source {shlex.quote(str(activate.relative_to(Path.cwd()) if near else activate))}"]


def _suggest(folder: Path, teller: _Teller) -> None:
    teller.heading("Explore further")
    here = folder.absolute() == Path.cwd()
    enter = [] if here else [f"cd {shlex.quote(str(folder))}"]
    unset = ["unset SEEKNAL_HOME"] if "SEEKNAL_HOME" in os.environ else []
    teller.say(
        f"{'This folder' if here else folder} is a Seeknal project now. Run the demo again at any time: it starts over."
    )
    teller.commands(
        [
            *_on_path(),
            *enter,
            *unset,
            "seeknal list feature-groups",
            "seeknal show feature-group weather",
            "seeknal version diff weather --from 1 --to 2",
            "seeknal explain carrier_delays carrier=B6 origin=JFK --at 2014-01-01",
            f"seeknal refresh {ONLINE_TABLE}",
            f"seeknal verify {ONLINE_TABLE}",
            "seeknal materialize weather --start-date 2013-12-01",
            "seeknal lookup weather airport=JFK",
        ]
    )
