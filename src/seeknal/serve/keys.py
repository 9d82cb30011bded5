"""Reading the join keys of a lookup in an online table, which the caller passes as mappings or as a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from seeknal.errors import DataError
from seeknal.names import join_keys_of, misfit, quoted
from seeknal.online import to_wire
from seeknal.values import frames
from seeknal.values.exact import read_keys, values
from seeknal.values.matching import match

_PLAIN: tuple[tuple[Callable[[pa.DataType], bool], type], ...] = (
    (pa.types.is_integer, int),
    (pa.types.is_string, str),
    (pa.types.is_binary, bytes),
    (pa.types.is_boolean, bool),
)


class Key:
    """A join key that a request must contain."""

    def __init__(self, name: str, kind: pa.DataType) -> None:
        self.name = name
        self.kind = kind
        plain = next((one for test, one in _PLAIN if test(kind)), None)
        self.plain = {plain, type(None)}
        """The Python types whose values are the same on the wire."""

    def wire(self, values: list[Any]) -> list[Any]:
        """Return values in their wire form. A value that no key of this type can equal becomes null.

        Raises:
            DataError: A value is not of the key's kind.
        """
        return values if self.is_plain(values) else to_wire(match(self.array(values), self.kind), self.kind)

    def shown(self, values: list[Any]) -> list[Any]:
        """Return values as Python objects of the key's type, as results show them."""
        return values if self.is_plain(values) else list(self.array(values).to_pylist())

    def array(self, values: list[Any]) -> pa.Array:
        """Return values that `wire` accepts as a column of the key's type, or of a wider type if only that holds them exactly."""
        return read_keys(self.name, values, self.kind)

    def is_plain(self, values: list[Any]) -> bool:
        """Return whether all values are of Python types that are the same on the wire."""
        return self.plain.issuperset(map(type, values))


def check_keys(keys: object) -> None:
    """Check that keys are not a single mapping where a list of them is expected.

    Raises:
        DataError: They are a single mapping.
    """
    if isinstance(keys, Mapping):
        raise DataError(f"keys is a single mapping. Pass a list: keys=[{dict(keys)!r}].")


def columns_of(keys: object, kinds: Mapping[str, pa.DataType], table: str) -> dict[str, list[Any]]:
    """Return the requested entities as one column per join key. Other columns of a frame are ignored.

    Args:
        keys: A list of mappings from join key to value, or a frame with the join keys.
        kinds: The type of each join key, by name.
        table: The online table's name.

    Raises:
        DataError: The keys have wrong names.
    """
    if not isinstance(keys, list | tuple):
        return _from_frame(keys, kinds, table)
    names = list(kinds)
    if (columns := exact_columns(keys, names)) is not None:
        return dict(zip(names, columns, strict=True))
    for key in keys:  # one by one, so that the error names the wrong one
        _check(key, names, table)
    return {name: [key[name] for key in keys] for name in names}


def exact_columns(keys: Sequence[Any], names: Sequence[str]) -> list[list[Any]] | None:
    """Return one column per join key; None unless each entity is a mapping with exactly these names."""
    try:
        # `issuperset` compares all lengths in C, which matters for lookups of many keys.
        if not {len(names)}.issuperset(map(len, keys)):
            return None
        columns = [[key[name] for key in keys] for name in names]
        # Reading a name that a defaultdict lacks adds it, which shows in its length.
        return columns if {len(names)}.issuperset(map(len, keys)) else None
    except (KeyError, TypeError, IndexError):
        return None


def _from_frame(keys: object, kinds: Mapping[str, pa.DataType], table: str) -> dict[str, list[Any]]:
    check_keys(keys)
    names = list(kinds)
    if isinstance(keys, str | bytes | int | float):
        raise DataError(f"keys is {keys!r}. Pass a list of mappings: keys=[{{{names[0]!r}: {keys!r}}}].")
    frame = frames.opened(keys)
    missing = [name for name in names if name not in frame.names]
    if len(missing) > 1:
        raise DataError(f"{_keys_of(table, names)}; {quoted(missing)} are missing.")
    frame.require(missing, f"{_keys_of(table, names)}; the frame")
    return {name: values(column) for name, column in zip(names, frame.typed(kinds).table(names).columns, strict=True)}


def _check(key: object, names: Sequence[str], table: str) -> None:
    """Check that an entity is a mapping with exactly the join keys."""
    if not isinstance(key, Mapping):
        raise DataError(f"{key!r} is not a mapping. Pass {{{names[0]!r}: {key!r}}}.")
    if set(key) != set(names):
        problem = (
            misfit((str.__str__(name) if isinstance(name, str) else str(name) for name in key), names)
            or "the key has a name that is not text."
        )
        raise DataError(f"{_keys_of(table, names)}; {problem}", key=dict(key))


def _keys_of(table: str, names: Sequence[str]) -> str:
    return join_keys_of(f"online table {table!r}", names)
