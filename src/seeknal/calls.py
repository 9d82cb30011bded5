"""What clients ask of a server, as it goes over the wire, and how they read what comes back."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa

from seeknal import exact, frames
from seeknal.catalog import AsOf
from seeknal.errors import DataError, StoreError
from seeknal.feature_group import FeatureLookup
from seeknal.names import check_name, split_label
from seeknal.pushing import Pushed
from seeknal.times import Interval, instant, moment_of

_ARROW = "application/vnd.apache.arrow.stream"
_MSGPACK = "application/msgpack"
_BYTES = "application/octet-stream"


class NoAnswer(Exception):  # noqa: N818 - it becomes one, of the address
    """What came is no answer of Seeknal's."""


@dataclass(frozen=True)
class Call:
    """A request, and what makes of its answer what the caller wants."""

    path: str
    read: Callable[[IO[bytes]], Any]
    content: bytes | None = None
    kind: str = _ARROW
    params: Mapping[str, Any] = field(default_factory=dict)
    spine: object = None
    is_large: bool = False
    is_long: bool = False
    """Whether the server may take as long as it takes to answer."""

    def body(self) -> IO[bytes]:
        """Give where the answer is to be put: in memory, or a file that goes when it is closed."""
        return tempfile.TemporaryFile() if self.is_large else io.BytesIO()

    @contextmanager
    def sending(self) -> Iterator[Callable[[], dict[str, Any]]]:
        """Give what gives the arguments of a request, for each try; a spine is read once, and sent again from a file."""
        method = "POST" if self.content or self.spine is not None else "GET"
        arguments: dict[str, Any] = {"method": method, "url": self.path, "headers": {"accept": _ARROW}}
        if self.spine is None:
            headers = {"content-type": self.kind, "accept": _ARROW}
            yield lambda: arguments | {"content": self.content, "params": self.params, "headers": headers}
            return
        with _spine_file(self.spine) as file:

            def again() -> dict[str, Any]:
                file.seek(0)
                files = {"query": (None, self.content, "application/json"), "spine": ("spine", file, _BYTES)}
                return arguments | {"files": files}

            yield again

    def read_answer(self, body: IO[bytes], url: str) -> Any:
        """Read an answer.

        Raises:
            StoreError: It is none of Seeknal's.
        """
        body.seek(0)
        try:
            return self.read(body)
        except NoAnswer as error:
            raise StoreError(
                f"{url} does not answer as a Seeknal server: {error}. Look whether the address is right."
            ) from None


def path_of(kind: str, label: str, project: str | None) -> str:
    """Name what a call is about; "shop/spend" says the project too, and without one the server finds it."""
    within, name = split_label("table or group", label, project)
    where = "" if within is None else f"/{check_name('project', within)}"
    return f"/v1/{kind}{where}/{check_name('table or group', name)}"


def body_of(name: str, given: object, options: Mapping[str, Any]) -> tuple[bytes, str, Mapping[str, Any]]:
    """Write rows as they are given: a frame as Arrow, dictionaries as MessagePack, with options in the query or beside.

    Returns:
        The body, its kind, and the query.
    """
    if isinstance(given, list | tuple):
        try:
            return msgspec.msgpack.encode({name: list(given), **options}, enc_hook=_plain), _MSGPACK, {}
        except (OverflowError, UnicodeEncodeError) as error:
            raise DataError(f"A value cannot be sent: {error}.") from None
    query = {key: value for key, value in options.items() if value is not None}
    if "with_status" in query:
        query["with_status"] = "true" if query["with_status"] else "false"
    return frames.to_stream(frames.to_arrow(given)), _ARROW, query


def _plain(value: Any) -> Any:
    """Return a value that MessagePack does not know as one that it does: numbers of NumPy, moments of pandas."""
    try:
        plain = exact.plain(value)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{exact.shown(value)} cannot be sent: it {error}.") from None
    if plain is value:
        raise DataError(f"{exact.shown(value)} cannot be sent. Give numbers, text, bytes, moments, lists or mappings.")
    return plain


def read_table(body: IO[bytes]) -> pa.Table:
    """Read a whole table.

    Raises:
        NoAnswer: It is none.
    """
    with _expected():
        return pa.ipc.open_stream(body).read_all()


def read_batches(body: IO[bytes]) -> pa.RecordBatchReader:
    """Read batches from a file, which is closed behind the last, or when nobody wants more.

    Raises:
        NoAnswer: There are none.
    """
    with _expected():
        reader = pa.ipc.open_stream(body)

    def batches() -> Iterator[pa.RecordBatch]:
        with body, reader:
            yield from reader

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def read_pushed(body: IO[bytes]) -> Pushed:
    """Read what a push did.

    Raises:
        NoAnswer: It does not say.
    """
    with _expected():
        told = msgspec.json.decode(body.read(), type=dict[str, Any])
        given = {one.name: told[one.name] for one in fields(Pushed)}
    return Pushed(**given | {"first": None if given["first"] is None else instant(given["first"])})


class _Catalog(msgspec.Struct):
    projects: list[dict[str, Any]]


def read_projects(body: IO[bytes]) -> list[dict[str, Any]]:
    """Read the catalog.

    Raises:
        NoAnswer: It is none.
    """
    with _expected():
        return msgspec.json.decode(body.read(), type=_Catalog).projects


@contextmanager
def _expected() -> Iterator[None]:
    """Say of what cannot be read that it is no answer of Seeknal's.

    Raises:
        NoAnswer: It cannot be read.
    """
    try:
        yield
    except (pa.ArrowException, msgspec.MsgspecError, OSError, EOFError, ValueError, KeyError) as error:
        raise NoAnswer(str(error)) from None


def described(one: FeatureLookup) -> dict[str, Any]:
    """Write a lookup as the server takes it."""
    told = {
        "group": one.name if one.project is None else f"{check_name('project', one.project)}/{one.name}",
        "features": None if one.features is None else list(one.features),
        "prefix": one.prefix,
        "rename": None if one.rename is None else dict(one.rename),
        "version": one.version,
    }
    return {name: value for name, value in told.items() if value is not None}


def options_of(date_col: str, keep: Sequence[str] | None, span: Interval, as_of: AsOf | None) -> dict[str, Any]:
    """Write what is asked of a spine as the server takes it."""
    moment = as_of if as_of is None or isinstance(as_of, int | Mapping) else moment_of(instant(as_of)).isoformat()
    return {
        "date_col": date_col,
        "keep": None if keep is None else list(keep),
        "start": None if span.start is None else moment_of(span.start).isoformat(),
        "end": None if span.end is None else moment_of(span.end).isoformat(),
        "as_of": dict(moment) if isinstance(moment, Mapping) else moment,
    }


def _spine_file(spine: Any) -> IO[bytes]:
    """Give a spine as a file: one of Parquet as it is, any other frame as an Arrow stream."""
    if isinstance(spine, str | Path) and Path(spine).suffix.lower() in {".parquet", ".pq"} and Path(spine).is_file():
        try:
            return Path(spine).open("rb")
        except OSError as error:
            raise DataError(f"{str(spine)!r} cannot be read: {error}") from None
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever sends it closes it
    frame = frames.opened(spine)
    schema, batches = frame.batches(frame.names, 2**16)
    with pa.ipc.new_stream(file, schema) as writer:
        for batch in batches():
            writer.write_batch(batch)
    file.seek(0)
    return file
