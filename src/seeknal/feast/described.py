"""What a Feast repository has, as `beside` describes it."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import msgspec
import pyarrow as pa


def read_schema(text: str) -> dict[str, pa.DataType]:
    """Return types by name from the text of a schema. The type null stands for one that Arrow does not have."""
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
    return {field.name: field.type for field in schema}


class Told(msgspec.Struct, frozen=True):
    """What every object of Feast says about itself."""

    name: str
    description: str | None
    owner: str | None
    tags: Mapping[str, str]


class Source(msgspec.Struct, frozen=True):
    """Where the rows of a view are.

    Args:
        kind: The name of Feast's class.
        path: A file or folder, or an address; None if the rows are not in files.
        format: The name of Feast's class of the file's format.
        event_time: The column with the event time.
        created_time: The column with the created time.
        renames: Names in the view by names in the file.
    """

    kind: str
    path: str | None
    format: str
    event_time: str
    created_time: str | None
    renames: Mapping[str, str]


class Key(Told, frozen=True):
    """An entity of Feast, which has one join key."""

    join_key: str


class View(Told, frozen=True):
    """A feature view. `features` is the text of a schema; see `read_schema`."""

    kind: str
    entities: tuple[str, ...]
    features: str
    ttl_seconds: float | None
    source: Source | None
    stream: str | None
    is_online: bool
    is_computed: bool

    @property
    def types(self) -> dict[str, pa.DataType]:
        """The declared types of the features. Those of the file can be others."""
        return read_schema(self.features)


class Inputs(msgspec.Struct, frozen=True):
    """The features of a view that an on-demand feature view takes."""

    view: str
    features: tuple[str, ...]


class OnDemand(Told, frozen=True):
    """An on-demand feature view. `request` and `outputs` are texts of schemas, `code` is the function with its decorator."""

    mode: str
    is_singleton: bool
    aggregates: bool
    code: str
    inputs: tuple[Inputs, ...]
    request: str
    outputs: str


class Part(msgspec.Struct, frozen=True):
    """What a feature service reads from a view: features, by an alias for the view, and with other names for keys."""

    view: str
    alias: str | None
    features: tuple[str, ...]
    keys: Mapping[str, str]

    @property
    def shown(self) -> str:
        """The name of the view in full names of features."""
        return self.alias or self.view


class Service(Told, frozen=True):
    """A feature service."""

    parts: tuple[Part, ...]


class Other(msgspec.Struct, frozen=True):
    """An object of a kind that Seeknal has no counterpart of."""

    kind: str
    name: str


class Described(msgspec.Struct, frozen=True):
    """A whole repository, as applied to its registry."""

    feast: str
    project: str
    entities: tuple[Key, ...]
    views: tuple[View, ...]
    on_demand: tuple[OnDemand, ...]
    services: tuple[Service, ...]
    others: tuple[Other, ...]
    has_local_online_store: bool

    @property
    def is_empty(self) -> bool:
        """Whether nothing was applied."""
        return not (self.views or self.on_demand or self.services or self.others)


class Answer(msgspec.Struct, frozen=True):
    """What Feast computed, as a file of Parquet, or the error with which it failed."""

    file: str | None
    error: str | None


class Answers(msgspec.Struct, frozen=True):
    """An answer for each question, in their order."""

    answers: tuple[Answer, ...]
