"""The steps of the demo: what each does to the store, and what the demo prints about it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from seeknal.config import FILE
from seeknal.define.aggregations import Mean
from seeknal.define.event_group import event_group
from seeknal.define.feature_group import FeatureGroup, FeatureLookup, Materialization
from seeknal.define.feature_view import ViewDefinition
from seeknal.define.label import Label
from seeknal.define.windowed_group import WindowedGroup
from seeknal.demo import features, flights, leak
from seeknal.demo.teller import Teller, shown
from seeknal.entity import Entity
from seeknal.errors import DefinitionError, SeeknalWarning
from seeknal.home.store import FeatureStore
from seeknal.registry import ViewRecord
from seeknal.serve.open_tables import ServedTable
from seeknal.system.extras import how_to_install
from seeknal.values.times import instant, show
from seeknal.views.feature_views import ViewSpine

PROJECT = "flights"
TRAINING_SET = "flights_2013"
_FORMER_TABLE = "flight_features"
"""The online table of the demo of earlier releases."""

_OURS = "Made by seeknal demo"
"""Start of the descriptions by which a later run recognizes groups of the demo. It must not change."""

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
VIEW = ViewDefinition(
    "late_flights",
    LOOKUPS,
    request={"distance": "int64"},
    functions=[features.delay_100mi],
    label=Label(
        LANDINGS,
        feature="arr_delay",
        within="2d",
        entity=Entity("flight", ["carrier", "flight", "origin", "day_of_flight"]),
    ),
    description=f"{_OURS}: how late a flight will arrive.",
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
    teller = Teller(console)
    store = FeatureStore(folder / ".seeknal")
    year = _open(folder, store, teller)
    _write_weather(store, year, teller)
    _write_landings(store, year, teller)
    view = _define(store, teller)
    training = _train(store, view, year, teller)
    _show_leak(training, year, teller)
    _serve(store, view, teller)
    _push(store, view, year, teller)
    _recompute(store, view, teller)
    _change_schema(store, year, teller)
    _suggest(folder, teller)


def _open(folder: Path, store: FeatureStore, teller: Teller) -> flights.Year:
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
    """Delete what an earlier run created, and nothing else. The view stays: its definition is the same in each run.

    Raises:
        DefinitionError: A group, a view, a training set or an online table has a name of the demo's, but the demo did not create it.
    """
    views = [one for one in store.views.all(project=PROJECT) if one.name == VIEW.name]
    of_view = {name for one in views for name in (one.log, *_label_group(one))}
    # A source is deleted after the windowed groups that are computed from it.
    names = [*of_view, CARRIER_DELAYS.name, LANDINGS.name, WEATHER.name]
    groups = {name: one for name in names if (one := store.groups.find(name, project=PROJECT))}
    ours = [name for name, one in groups.items() if name in of_view or _is_ours(one.group.description)]
    made = [one for one in store.training_sets.all(project=PROJECT) if one.name == TRAINING_SET]
    served = {_FORMER_TABLE, *(view.table for view in views)}
    tables = [one for one in store.tables.all(project=PROJECT) if one.name in served]
    foreign = [f"Feature view {one.label!r}" for one in views if not _is_ours(one.description)]
    foreign += [f"Feature group {one.label!r}" for name, one in groups.items() if name not in ours]
    foreign += [f"Training set {one.label!r}" for one in made if one.view is None or one.view.name != VIEW.name]
    foreign += [f"Online table {one.label!r}" for one in tables if any(own.group not in ours for own in one.lookups)]
    if foreign:
        raise DefinitionError(
            f"{foreign[0]} in {store.home} was not created by the demo. Run the demo in another folder."
        )
    for table in tables:
        store.tables.delete(table)
    for training_set in made:
        store.training_sets.delete(training_set)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", SeeknalWarning
        )  # that the view reads what is deleted: it is written again below
        for name in ours:
            store.groups.delete(name, project=PROJECT)


def _is_ours(description: str | None) -> bool:
    return (description or "").startswith(_OURS)


def _label_group(view: ViewRecord) -> list[str]:
    """Return the name of the group that computes the label of a view, if it has one."""
    return [view.content.label.lookup.group] if view.content.label else []


def _write_weather(store: FeatureStore, year: flights.Year, teller: Teller) -> None:
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


def _write_landings(store: FeatureStore, year: flights.Year, teller: Teller) -> None:
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
        f"{first['arr_delay']} minutes late. That is known from {shown(first['landed_at'])} on: when it landed, "
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


def _define(store: FeatureStore, teller: Teller) -> ViewRecord:
    teller.heading(
        "Define a feature view: what the model reads",
        "@request_feature(outputs={'delay_100mi': 'float64'}, mode='array')",
        "def delay_100mi(delay_3h, distance):",
        "    return delay_3h / distance * 100",
        "",
        'view = FeatureView("late_flights",',
        '    lookups=[FeatureLookup(weather, rename={"airport": "origin"}),',
        "             FeatureLookup(carrier_delays)],",
        '    request={"distance": "int64"}, functions=[delay_100mi],',
        '    label=Label(landings, "arr_delay", within="2d", entity=flight))',
    )
    view = store.views.register(VIEW)
    content = view.content
    teller.say(
        f"{view.label} reads {len(content.features)} features: {len(content.types)} that are looked up, the distance, which whoever "
        "asks must say, and one that is computed of both when the model is asked. What it predicts is the delay of the flight itself, "
        "which is among the landings of the two days after the moment, never before it."
    )
    return view


def _train(store: FeatureStore, view: ViewRecord, year: flights.Year, teller: Teller) -> pa.Table:
    teller.heading(
        "Build a training set: what was known at each moment",
        f'train = view.training_set(flights, "predict_at", name="{TRAINING_SET}",',
        '    label_until="2014-01-04", split=("2013-10-01", "2013-12-01"))',
    )
    spine = year.spine
    rows = ViewSpine(spine, "predict_at", label_until=datetime(2014, 1, 4, tzinfo=UTC))
    split = (datetime(2013, 10, 1, tzinfo=UTC), datetime(2013, 12, 1, tzinfo=UTC))
    started = time.perf_counter()
    made = store.views.training_set(view, TRAINING_SET, rows, split=split)
    training = store.training_sets.rows(made)
    seconds = time.perf_counter() - started
    teller.say(
        "The spine is the list of flights with the moment of prediction, two hours before scheduled departure. "
        "Each flight gets the newest weather at its origin, and the mean delays of its carrier there, "
        "as known at that moment, and then its own delay as the label."
    )
    columns = ["predict_at", "carrier", "origin", "temp", "delay_3h", "delay_100mi", "arr_delay"]
    teller.table(training.select(columns).take([*range(2000, len(training), len(training) // 4)]).to_pylist())
    kept = training.select(spine.column_names).equals(spine)
    parts = Counter(store.training_sets.parts(made, training).to_pylist())
    teller.say(
        f"{len(training):,} rows, {len(view.content.features)} features, {seconds:.1f} s. "
        f"Exactly the spine's rows, in the spine's order: {'yes' if kept else 'no'}. "
        f"{parts['train']:,} are to train, {parts['validation']:,} to validate, {parts['test']:,} to test. The training set is saved: "
        "it gives the same rows for ever. (Flights that were cancelled or diverted have no arrival delay to learn from and are left out.)"
    )
    return training


def _show_leak(training: pa.Table, year: flights.Year, teller: Teller) -> None:
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


def _serve(store: FeatureStore, view: ViewRecord, teller: Teller) -> None:
    teller.heading(
        "Serve the view: the newest values, and what is computed of them",
        "view.serve(log=1)",
        "view.get_features(rows)",
    )
    started = time.perf_counter()
    table = store.views.serve(view, log=1, at=EVENING)
    seconds = time.perf_counter() - started
    teller.say(
        "What the view looks up is loaded into the online store: the newest weather, and the landings that windows "
        f"have. It took {seconds:.1f} s. An answer computes the windows at its own moment. Those of today have none of these "
        f"flights, so all that follows is as of {shown(EVENING)}, the last evening of that year in New York."
    )
    asked = [
        {"origin": origin, "carrier": carrier, "distance": distance}
        for origin, carrier, distance in (("JFK", "B6", 1069), ("EWR", "UA", 2565), ("LGA", "DL", 762))
    ]
    answers = table.get_features(asked, output="dicts", at=instant(EVENING))
    columns = ["origin", "carrier", "distance", "wind_speed", "delay_3h", "delay_1d", "delay_100mi"]
    teller.table([{name: answer[name] for name in columns} for answer in answers])
    teller.say(f"One row takes {_microseconds(table, asked[1]):,.0f} microseconds (median of 500).")


def _push(store: FeatureStore, view: ViewRecord, year: flights.Year, teller: Teller) -> None:
    teller.heading(
        "Push what just happened, and prove that online equals offline",
        'store.groups.push("weather", reading)',
        "view.verify()",
    )
    last = year.weather.filter(pc.equal(year.weather["airport"], "JFK")).sort_by("known_at").to_pylist()[-1]
    reading = last | {"known_at": last["known_at"] + timedelta(hours=1), "wind_speed": 40.0}
    pushed, again = (store.groups.push(WEATHER.name, reading, project=PROJECT) for _ in range(2))
    row = {"origin": "JFK", "carrier": "B6", "distance": 1069}
    table = store.tables.open(view.table, project=PROJECT)
    answer = table.get_features([row], output="dicts", with_status=True, at=instant(EVENING))[0]
    teller.say(
        f"A reading at JFK that we made up, an hour after the last real one: {pushed.rows} row pushed; when it is delivered again, "
        f"{again.rows}. It is in the offline table and online:"
    )
    columns = ["origin", "wind_speed", "weather_status", "weather_event_time"]
    teller.table([{name: answer[name] for name in columns}])
    found = store.views.verify(view, at=EVENING)
    teller.say(
        f"Every looked-up value against a training set as of the same moment: {found.values:,} values of {found.entities} "
        f"entities compared, {found.different} differ."
    )


def _recompute(store: FeatureStore, view: ViewRecord, teller: Teller) -> None:
    teller.heading("Recompute from history what was answered", "view.verify(log=True)")
    found = store.views.verify_log(view)
    teller.say(
        f"Each answer above was logged, with what was asked. What history gives for its moment now: {found.values:,} values of "
        f"{found.entities:,} answers compared. The reading at JFK was pushed after the first answer, but its time is "
        f"before that answer's, so {found.different} differs:"
    )
    teller.lines(found.differences)


def _microseconds(table: ServedTable, row: Mapping[str, object]) -> float:
    spans = []
    for _ in range(500):
        started = time.perf_counter_ns()
        table.get_features([row], output="dicts", at=instant(EVENING))
        spans.append(time.perf_counter_ns() - started)
    return median(spans) / 1000


def _change_schema(store: FeatureStore, year: flights.Year, teller: Teller) -> None:
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
        f"{VIEW.name} keeps its features and their types, and follows what is written from now on."
    )


def _on_path() -> list[str]:
    """Return the command that activates the virtual environment, if the shell does not find `seeknal` without it."""
    activate = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("seeknal") or not activate.exists():
        return []
    near = activate.is_relative_to(Path.cwd())
    return [f"source {shlex.quote(str(activate.relative_to(Path.cwd()) if near else activate))}"]


def _suggest(folder: Path, teller: Teller) -> None:
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
            f"seeknal view show {VIEW.name}",
            f"seeknal refresh {VIEW.name}",
            f"seeknal verify {VIEW.name}",
            "seeknal materialize weather --start-date 2013-12-01",
            "seeknal lookup weather airport=JFK",
        ]
    )
