"""Settings in layers: default < seeknal.toml < environment < argument. Each value records the layer it came from."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path

from seeknal.errors import DefinitionError, StoreError
from seeknal.names import did_you_mean
from seeknal.system.folders import named
from seeknal.system.object_url import storage_of
from seeknal.system.postgres import url as postgres_url
from seeknal.system.redis_url import is_address, problem
from seeknal.system.storage import CACHE_SIZE, Address
from seeknal.system.urls import shown
from seeknal.values.times import span_of

FILE = "seeknal.toml"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?B)")
_UNITS = {f"{letter}{i}B": (1024 if i else 1000) ** power for power, letter in enumerate("KMGT", 1) for i in ("", "i")}
_PATTERNS = {
    "engine": re.compile(r"duckdb|spark"),
    "memory_limit": re.compile(r"\d+(\.\d+)?(\s*[KMGT]i?B|%)"),
    "spark": re.compile(r"local(\[.+\])?|yarn|(k8s|sc|spark)://\S+"),
}
"""What settings look like that are kept as text."""
_UNFIT_FOR_DELTA = re.compile(r"%[0-9A-Fa-f]{2}|[?#\\\x00-\x1f\x7f]")
"""What changes in a path when Delta Lake makes a URL of it: escapes are decoded, and ? and # end the path."""


@dataclass(frozen=True)
class Settings:
    """The values of all settings.

    Args:
        home: Folder of the registry, the offline tables and the online store.
        memory_limit: Memory limit of a query, such as "4GB" or "25%", beyond which it spills to disk. None: half of the
            machine's memory.
        online_store: Location of the online rows: a folder, or the URL of Redis, such as "redis://host:6379/0". None:
            the folder `online` in the home.
        registry: URL of the PostgreSQL database with the registry, such as "postgresql://user@host/database". None: a file in the home.
        storage: The URL of the object store with the offline tables and training sets, such as "s3://bucket/prefix". None: the folder
            of the home.
        cache_size: How many bytes of copies of an object store are kept on the disk, given as text such as "10GB".
        lookback_days: How many days before the bulk of its rows the interval of a write may begin without a notice.
        freshness: Age of the newest event beyond which `seeknal status` calls an online table stale, given as text such
            as "6h". None: no table is stale.
        modules: Modules with request features, which a server imports when it starts, given as a list of names.
        folder: Where these modules are looked for besides Python's own places: the folder of the `seeknal.toml` that names them, else the
            working folder.
        engine: What joins stored rows to a spine: "duckdb" in this process, or "spark" in the executors of Spark.
        spark: The master of Spark, such as "local[*]", "spark://host:7077", or "sc://host:15002" for Spark Connect. None: the Spark session
            of this process, or one on "local[*]".
        origins: Where each value came from, by the name of the setting.
    """

    home: Path
    memory_limit: str | None = None
    online_store: str | None = field(default=None, repr=False)  # URLs may have passwords
    registry: str | None = field(default=None, repr=False)
    storage: str | None = None
    cache_size: int = CACHE_SIZE
    lookback_days: int = 365
    freshness: timedelta | None = None
    modules: tuple[str, ...] = ()
    folder: Path | None = None
    engine: str = "duckdb"
    spark: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """What the home is opened by."""
        return Address(self.home, self.storage, self.registry)


_NAMES = [f.name for f in fields(Settings) if f.name not in {"origins", "folder"}]


def load(**arguments: object) -> Settings:
    """Return the settings that apply in the current folder and environment.

    Raises:
        DefinitionError: A setting is unknown or has a wrong value; the message names its origin.
    """
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for origin, layer in _layers({name: value for name, value in arguments.items() if value is not None}):
        for name, value in layer.items():
            values[name] = _checked(name, value, origin)
            origins[name] = origin
    values["folder"] = _folder(origins.get("modules", ""))
    return Settings(origins=origins, **values)  # type: ignore[arg-type]


def _folder(origin: str) -> Path | None:
    """Return the folder of the file that names modules; the working folder if none does, and None if that was deleted."""
    if Path(origin).name == FILE:
        return Path(origin).parent
    with suppress(OSError):
        return Path.cwd()
    return None


def _layers(arguments: dict[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
    # A home that is named outright does not depend on seeknal.toml, so no error of the search may get in its way.
    is_named = "home" in arguments or bool(os.environ.get("SEEKNAL_HOME"))
    file = _find_file_if_possible() if is_named else find_file()
    yield "default", {"lookback_days": 365} | ({} if is_named or file else {"home": _default_home()})
    if file:
        yield str(file), {"home": file.parent / ".seeknal"} | _read(file)
    for name in _NAMES:
        if value := os.environ.get(variable := f"SEEKNAL_{name.upper()}"):
            yield variable, {name: value}
    yield "argument", arguments


def find_file() -> Path | None:
    """Return the nearest seeknal.toml in the current folder or those above it, or None if there is none.

    Raises:
        StoreError: The current folder was deleted, or a folder cannot be searched.
    """
    try:
        here = Path.cwd()
        return next((folder / FILE for folder in (here, *here.parents) if (folder / FILE).is_file()), None)
    except OSError as error:
        where = f" in {Path(error.filename).parent}" if error.filename else ""
        reason = "the current folder was deleted" if isinstance(error, FileNotFoundError) else error.strerror
        raise StoreError(
            f"The search for {FILE} failed{where}: {reason}. Set SEEKNAL_HOME, or cd to another folder."
        ) from None


def _find_file_if_possible() -> Path | None:
    """Return the nearest seeknal.toml; None if there is none, or if the search fails."""
    with suppress(StoreError):
        return find_file()
    return None


def _default_home() -> Path:
    try:
        return Path.home() / ".seeknal"
    except RuntimeError:
        raise DefinitionError("This user has no home folder, so there is no ~/.seeknal. Set SEEKNAL_HOME.") from None


def _read(file: Path) -> dict[str, object]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{file} is not valid TOML: {error}") from None
    for name in _PLACES:
        if not isinstance(values.get(name, ""), str):
            raise DefinitionError(f"{file} sets {name} to {values[name]!r}, which is not text. Put it in quotes.")
        # A relative path starts at the file, wherever the program runs. `named` expands "~", which must stay in front.
        if name in values and name not in {"registry", "storage"} and "://" not in str(values[name]):
            text = str(values[name])
            values[name] = text if text.startswith("~") else str(file.parent / text)
    return values


def _checked_home(place: str, origin: str) -> Path:
    """Return the path of a home with symbolic links resolved, so that each home has exactly one path.

    Raises:
        DefinitionError: The path is invalid, or has characters that Delta Lake cannot handle.
    """
    home = _resolved(named(place))
    if found := _UNFIT_FOR_DELTA.search(str(home)):
        raise DefinitionError(
            f"{origin} puts the home in {str(home)!r}, and Delta Lake cannot find files whose path contains "
            f"{found.group()!r}. Choose a folder without it."
        )
    return home


def _resolved(place: Path) -> Path:
    try:
        return place.resolve()
    except (OSError, RuntimeError) as error:
        raise DefinitionError(f"{str(place)!r} cannot be the path of a folder: {error}. Choose another.") from None


def checked_store(place: str, origin: str) -> str:
    """Return the location of an online store: a Redis URL as given, or the absolute path of a folder.

    Raises:
        DefinitionError: It is a URL that is not a valid Redis URL, or it cannot be the path of a folder.
    """
    if not is_address(place):
        return str(_resolved(named(place)))
    if (reason := problem(place)) is None:
        return place
    raise DefinitionError(
        f"{origin} puts online rows in {shown(place)!r}: {reason} Give a folder, or redis://HOST:PORT/DATABASE (rediss:// with TLS)."
    )


def checked_registry(url: str, origin: str) -> str:
    """Return the URL of a registry as it was given.

    Raises:
        DefinitionError: It is not a valid URL of a PostgreSQL database.
    """
    if (reason := postgres_url.problem(url)) is None:
        return url
    raise DefinitionError(
        f'{origin} puts the registry in {shown(url)!r}: {reason} Write registry = "postgresql://USER@HOST/DATABASE", for example, or '
        "leave it out: then the registry is a file in the home."
    )


def checked_modules(value: object, origin: str) -> tuple[str, ...]:
    """Return the names of modules in a list, or in a text with commas, as a variable of the environment has them.

    Raises:
        DefinitionError: A name is not that of a module.
    """
    names = value.split(",") if isinstance(value, str) else value
    if isinstance(names, list | tuple) and all(isinstance(one, str) for one in names):
        found = tuple(str(one).strip() for one in names)
        if all(part.isidentifier() for one in found for part in one.split(".")):
            return found
    raise DefinitionError(
        f'{origin} sets modules to {value!r}, which is not a list of modules. Write modules = ["features"].'
    )


def _checked(name: str, value: object, origin: str) -> object:
    if name in _PLACES:
        return _PLACES[name](str(value), origin)
    if name in _PATTERNS and _PATTERNS[name].fullmatch(str(value)):
        return str(value)
    if name == "modules":
        return checked_modules(value, origin)
    if name == "cache_size" and (found := _SIZE.fullmatch(str(value))):
        return int(float(found[1]) * _UNITS[found[2]])
    if name == "lookback_days" and str(value).isdecimal():
        return int(str(value))
    if name == "freshness" and (target := span_of(str(value))):
        return target
    if name not in _NAMES:
        raise DefinitionError(f"{origin} sets {name!r}, which is not a setting.{did_you_mean(name, _NAMES)}")
    example = {
        "memory_limit": '"4GB"',
        "cache_size": '"10GB"',
        "lookback_days": "365",
        "freshness": '"6h"',
        "engine": '"spark"',
        "spark": '"local[*]"',
    }[name]
    raise DefinitionError(
        f"{origin} sets {name} to {value!r}, which is not valid. Write {name} = {example}, for example."
    )


_PLACES: dict[str, Callable[[str, str], object]] = {
    "home": _checked_home,
    "online_store": checked_store,
    "registry": checked_registry,
    "storage": storage_of,
}
"""The settings that name places, each with the check of its value."""
