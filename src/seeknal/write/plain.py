"""Rows of plain Python values, converted in as few steps as possible.

A value is plain if its column's type has it as it is: an int for int64, a float for a double, text, a boolean, or a point in time with a
time zone, also as text. Other values take the way of `seeknal.values.exact`, and plain ones become what they would become there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import MAXYEAR, MINYEAR, datetime, timedelta
from typing import Any

import pyarrow as pa

from seeknal.define.schema import Schema
from seeknal.values.types import UTC

_PLAIN = {pa.int64(): int, pa.float64(): float, pa.string(): str, pa.bool_(): bool, UTC: datetime}
_KEYS = (pa.int64(), pa.string())
_MINUTE = timedelta(minutes=1)
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _parsed(text: str) -> datetime | None:
    """Return the moment that a text in the usual form of ISO 8601 means; None for a text in another form, or without a zone."""
    if not _ISO.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


class PlainRows:
    """Converts rows of plain values to tables.

    Args:
        schema: The schema of the rows.
    """

    def __init__(self, schema: Schema) -> None:
        self._names = schema.names
        self._set = set(self._names)
        times = {schema.event_time.name, schema.created_time.name if schema.created_time else None}
        columns = [*zip(schema, schema.stored_types, strict=True)]
        self._columns = [(field.name, kind, _PLAIN.get(kind), field.name in times) for field, kind in columns]
        self._needed = {*schema.key_names, *times}
        is_plain = (
            kind in (_KEYS if field in schema.keys else _PLAIN) and (field.name in times or field.type == kind != UTC)
            for field, kind in columns
        )
        self._can = all(is_plain)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table | None:
        """Return rows as a table in stored types; None if a value is not plain, or a row has other columns."""
        if not self._can or any(type(row) is not dict or row.keys() != self._set for row in rows):
            return None
        arrays = []
        for name, kind, plain, is_time in self._columns:
            values = [row[name] for row in rows]
            if is_time:
                values = [_parsed(value) if type(value) is str else value for value in values]
            if not all(type(value) is plain or (value is None and name not in self._needed) for value in values):
                return None
            if is_time and not all(map(_is_plain_time, values)):
                return None
            try:
                arrays.append(pa.array(values, kind))
            except (pa.ArrowException, OverflowError, ValueError):
                return None
        return pa.table(arrays, names=self._names)


def _is_plain_time(value: datetime) -> bool:
    """Return whether a time has a time zone that every library can read, and is not at the edge of what a `datetime` can be."""
    offset = value.utcoffset()
    return offset is not None and not offset % _MINUTE and MINYEAR < value.year < MAXYEAR
