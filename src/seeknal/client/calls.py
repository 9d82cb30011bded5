"""The wire format of the clients: how requests are encoded, and how responses are decoded and checked."""

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
from pyarrow import types as is_

from seeknal.define.feature_group import FeatureLookup
from seeknal.define.windowed_group import WindowedGroup
from seeknal.errors import DataError, DefinitionError, StoreError
from seeknal.names import check_name, check_names, check_text, split_label, split_version
from seeknal.registry.catalog import AsOf
from seeknal.values import exact, frames, types
from seeknal.values.casting import recast
from seeknal.values.times import Interval, instant, moment_of
from seeknal.write.push import Pushed

_ARROW = "application/vnd.apache.arrow.stream"
_BYTES = "application/octet-stream"
_decode = msgspec.msgpack.Decoder(ext_hook=exact.unpacked).decode
TYPED = "application/vnd.seeknal.msgpack"
"""Content type of the keys and rows that clients send: MessagePack in which values keep their Python types."""
KEYS = b"seeknal.keys"
"""Key in the schema metadata of Arrow responses. Its value is the names of the join-key columns, as JSON."""


class UnexpectedResponse(Exception):  # noqa: N818 - turned into a StoreError, which names the URL
    """The response does not come from a Seeknal server."""


class OtherAnswer(UnexpectedResponse):
    """The response answers another request."""


@dataclass(frozen=True)
class PreparedRequest:
    """A request, and the function that decodes its response into the result of the call."""

    path: str
    read: Callable[[IO[bytes]], Any]
    content: bytes | None = None
    """The body or, beside a spine, the part "query" of the form."""
    kind: str = _ARROW
    """Content type of the body."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the query string."""
    spine: object = None
    is_large: bool = False
    """Whether the response may not fit in memory, and goes to a temporary file."""
    is_long: bool = False
    """Whether the server may take any amount of time to respond."""
    if_unsure: str = ""
    """Text to add to an error after which it is unknown whether the server executed the request."""

    def body(self) -> IO[bytes]:
        """Return a buffer for the response: in memory, or a temporary file that is deleted when it is closed."""
        return tempfile.TemporaryFile() if self.is_large else io.BytesIO()

    @contextmanager
    def sending(self) -> Iterator[Callable[[], dict[str, Any]]]:
        """Yield a factory for the request arguments, called once per attempt.

        The spine is read once, into a file, so that retries can resend it.
        """
        method = "POST" if self.content or self.spine is not None else "GET"
        arguments: dict[str, Any] = {"method": method, "url": self.path, "headers": {"accept": _ARROW}}
        if self.spine is None:
            headers = {"content-type": self.kind, "accept": _ARROW}
            yield lambda: arguments | {"content": self.content, "params": self.params, "headers": headers}
            return
        with _spine_file(self.spine) as file:

            def rewound() -> dict[str, Any]:
                file.seek(0)  # an earlier attempt may have sent a part of the file
                files = {"query": (None, self.content, "application/json"), "spine": ("spine", file, _BYTES)}
                return arguments | {"files": files}

            yield rewound

    def read_answer(self, body: IO[bytes], url: str) -> Any:
        """Read a response.

        Raises:
            StoreError: It does not come from a Seeknal server, or answers another request.
        """
        body.seek(0)
        try:
            return self.read(body)
        except OtherAnswer as error:
            raise StoreError(
                f"{url} answered another request: {error}. The response was discarded. Try again; if it happens again, "
                "check the proxies and caches between client and server."
            ) from None
        except UnexpectedResponse as error:
            raise StoreError(f"{url} does not answer as a Seeknal server: {error}. Check the address.") from None


def path_of(kind: str, label: str, project: str | None) -> str:
    """Return the path of a table or group, whose label may name the project too: "shop/spend".

    Without a project, the server finds the only one that has such a table or group.
    """
    within, name = split_label("table or group", label, project)
    where = "" if within is None else f"/{check_name('project', within)}"
    own, number = split_version(name) if kind in {"online", "views"} else (name, None)
    version = "" if number is None else f"@{number}"
    return f"/v1/{kind}{where}/{check_name('table or group', own)}{version}"


def body_of(name: str, rows: object, options: Mapping[str, Any]) -> tuple[bytes, str, Mapping[str, Any]]:
    """Encode keys or rows: a frame as Arrow, a list of dictionaries as MessagePack.

    Args:
        name: The field of a MessagePack body that holds the rows: "keys" or "rows".
        rows: The frame or list.
        options: Further fields. They go into a MessagePack body, or into the query string of an Arrow body.

    Returns:
        The body, its content type, and the fields of the query string.

    Raises:
        DataError: A value has no type that the server knows; the message names its column and row.
    """
    if isinstance(rows, list | tuple):
        try:
            return msgspec.msgpack.encode({name: [exact.packed(row) for row in rows], **options}), TYPED, {}
        except _UNSENDABLE as error:
            raise _unsendable(rows) or DataError(f"{exact.shown(rows)} cannot be sent: {error}.") from None
    query = {key: value for key, value in options.items() if value is not None}
    if "with_status" in query:
        query["with_status"] = "true" if query["with_status"] else "false"
    return frames.to_stream(_standard(frames.to_arrow(rows))), _ARROW, query


def _standard(table: pa.Table) -> pa.Table:
    """Return a table in the memory layouts that the server accepts. Categories, for example, are sent as their values."""

    def standard(kind: pa.DataType) -> pa.DataType:
        try:
            return types.standard(kind)
        except DataError:  # the server rejects it by name, unless it ignores the column
            return kind

    return recast(table, [standard(kind) for kind in table.schema.types])


_UNSENDABLE = ValueError, OverflowError, TypeError, RecursionError


def _unsendable(rows: Sequence[Any]) -> DataError | None:
    """Return an error that names the first value that cannot be sent, its column and its row; None if all can be sent."""
    for number, row in enumerate(rows):
        for name, value in row.items() if isinstance(row, Mapping) else ():
            try:
                msgspec.msgpack.encode(exact.packed(value))
            except _UNSENDABLE as error:
                is_text = isinstance(error, UnicodeEncodeError)
                why = "has half of a character (a lone surrogate), which is not valid text" if is_text else error
                message = f"{name} in row {number} cannot be sent: {exact.shown(value)} {why}."
                return DataError(message, column=name, row=number)
    return None


def read_table(body: IO[bytes]) -> pa.Table:
    """Read a whole Arrow table.

    Raises:
        UnexpectedResponse: The body is not one.
    """
    with _expected():
        return pa.ipc.open_stream(body).read_all()


def check_entities(content: bytes, kind: str, found: pa.Table) -> None:
    """Check that a response has one row for each requested entity, in order.

    Args:
        content: The body of the request. The keys are read from it as the server reads them.
        kind: Its content type.
        found: The response.

    Raises:
        OtherAnswer: It has the rows of other entities.
    """
    keys = read_table(io.BytesIO(content)) if kind == _ARROW else _decode(content)["keys"]
    if len(found) != len(keys):
        raise OtherAnswer(f"it has {len(found):,} rows, but {len(keys):,} entities were requested")
    if not len(keys):
        return
    # The caller's rows may have more columns than the join keys, so the response names these.
    names = msgspec.json.decode((found.schema.metadata or {}).get(KEYS, b"null"), type=list[str] | None)
    if isinstance(keys, pa.Table):
        for name in names or found.column_names[:1]:
            _check_key(name, exact.values(keys[name]) if name in keys.column_names else [], found)
        return
    for name in keys[0] if names is None else names:
        _check_key(name, [key[name] for key in keys], found)


def _check_key(name: str, given: Sequence[Any], found: pa.Table) -> None:
    if name not in found.column_names:
        raise OtherAnswer(f"it lacks the key {name!r}")
    answered = found[name].combine_chunks()
    kind = answered.type
    try:  # with the conversion that the server uses, so that only another value can differ
        asked = exact.read_keys(name, given, kind)
    except DataError:
        raise OtherAnswer(f"{name} is {kind}, but {exact.shown(given[0])} was requested") from None
    if not asked.equals(answered):
        pairs = zip(asked, answered, strict=True)
        row, mine, other = next((row, mine, other) for row, (mine, other) in enumerate(pairs) if mine != other)
        raise OtherAnswer(f"{name} is {other} in row {row}, but {mine} was requested")


def check_spine(own: pa.Table, found: pa.Table) -> None:
    """Check that the rows of a training set are those of the spine.

    Columns of whole numbers, text and times are compared, if they came back in their own types. Others are not, because
    equal values may compare as different: NaN, for example.

    Raises:
        OtherAnswer: The rows differ.
    """
    if len(found) != len(own):
        raise OtherAnswer(f"it has {len(found):,} rows, but the spine has {len(own):,}")
    for name in own.column_names:
        kind = own.schema.field(name).type
        is_exact = is_.is_integer(kind) or is_.is_string(kind) or is_.is_large_string(kind) or is_.is_temporal(kind)
        if is_exact and kind == found.schema.field(name).type and not own[name].equals(found[name]):
            raise OtherAnswer(f"its column {name!r} differs from the spine's")


def read_batches(body: IO[bytes]) -> pa.RecordBatchReader:
    """Return a reader of the batches in a file, which is closed after the last one, or when the reader is discarded.

    Raises:
        UnexpectedResponse: The file has no stream of batches.
    """
    with _expected():
        reader = pa.ipc.open_stream(body)

    def batches() -> Iterator[pa.RecordBatch]:
        with body, reader:
            yield from reader

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def read_pushed(body: IO[bytes], group: str) -> Pushed:
    """Read the outcome of a push.

    Args:
        body: The body of the response.
        group: The group that the rows were pushed to, with or without its project.

    Raises:
        UnexpectedResponse: The response is not the outcome of a push, or is that for another group.
    """
    with _expected():
        decoded = msgspec.json.decode(body.read(), type=dict[str, Any])
        # A newer server may send more fields; they are ignored.
        facts = {one.name: decoded[one.name] for one in fields(Pushed)}
    label = str(facts["group"])
    if group not in {label, label.rpartition("/")[2]}:
        raise OtherAnswer(f"it is of {label!r}, but rows were pushed to {group!r}")
    return Pushed(**facts | {"first": None if facts["first"] is None else instant(facts["first"])})


class _Catalog(msgspec.Struct):
    projects: list[dict[str, Any]]


def read_view(body: IO[bytes], view: str) -> dict[str, Any]:
    """Read the description of a view.

    Raises:
        UnexpectedResponse: The body is not one, or describes another view.
    """
    with _expected():
        found = msgspec.json.decode(body.read(), type=dict[str, Any])
        label = f"{found['project']}/{found['name']}"
    if split_version(view)[0] not in {label, found["name"]}:
        raise OtherAnswer(f"it is of {label!r}, but {view!r} was requested")
    return found


def read_projects(body: IO[bytes]) -> list[dict[str, Any]]:
    """Read the catalog.

    Raises:
        UnexpectedResponse: The body is not one.
    """
    with _expected():
        return msgspec.json.decode(body.read(), type=_Catalog).projects


@contextmanager
def _expected() -> Iterator[None]:
    """Turn any error of reading a response into `UnexpectedResponse`.

    Raises:
        UnexpectedResponse: The response cannot be read.
    """
    try:
        yield
    except (pa.ArrowException, msgspec.MsgspecError, OSError, EOFError, ValueError, KeyError) as error:
        raise UnexpectedResponse(str(error)) from None


def lookup_to_json(one: FeatureLookup) -> dict[str, Any]:
    """Return a lookup as JSON in the form that the server expects.

    Raises:
        DefinitionError: It has the definition of a windowed group, which a server takes from its registry only.
    """
    if isinstance(one.source, WindowedGroup):
        raise DefinitionError(
            f"A server computes {one.name!r} as it is registered, and takes no definition. Register it in the home: "
            f"store.groups.register(...). Then look it up by name: FeatureLookup({one.name!r})."
        )
    lookup = {
        "group": one.name if one.project is None else f"{check_name('project', one.project)}/{one.name}",
        "features": None if one.features is None else list(one.features),
        "prefix": one.prefix,
        "rename": None if one.rename is None else dict(one.rename),
        "version": one.version,
    }
    return {name: value for name, value in lookup.items() if value is not None}


def options_of(date_col: str, keep: Sequence[str] | None, interval: Interval, as_of: AsOf | None) -> dict[str, Any]:
    """Return the options of a training set as JSON in the form that the server expects.

    Raises:
        DefinitionError: An option has a wrong type or value.
        DataError: A time cannot be read.
    """
    moment = as_of if as_of is None or isinstance(as_of, int | Mapping) else moment_of(instant(as_of)).isoformat()
    Interval.check(interval)
    return {
        "date_col": check_text("date_col", date_col),
        "keep": None if keep is None else check_names("keep", keep),
        "start": None if interval.start is None else moment_of(interval.start).isoformat(),
        "end": None if interval.end is None else moment_of(interval.end).isoformat(),
        "as_of": dict(moment) if isinstance(moment, Mapping) else moment,
    }


def _spine_file(spine: Any) -> IO[bytes]:
    """Return a spine as an open file: a Parquet file as it is, any other frame as a temporary Arrow stream.

    Raises:
        DataError: The file cannot be read.
    """
    if isinstance(spine, str | Path) and Path(spine).suffix.lower() in {".parquet", ".pq"} and Path(spine).is_file():
        try:
            return Path(spine).open("rb")
        except OSError as error:
            raise DataError(f"{str(spine)!r} cannot be read: {error}") from None
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    frame = frames.opened(spine)
    # In batches, so that a lazy frame never is in memory as a whole.
    schema, batches = frame.batches(frame.names, 2**16)
    with pa.ipc.new_stream(file, schema) as writer:
        for batch in batches():
            writer.write_batch(batch)
    file.seek(0)
    return file
