"""Request values of single rows: whether a value needs no more than a look at its Python type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

_INT64 = 2**63
_EXACT = 2**53


class Unusual(Exception):  # noqa: N818 - not an error: the value is converted in another way
    """A request value that needs more than a check of its type."""


def _float(value: Any) -> Any:
    if type(value) is float or value is None:
        return value
    if type(value) is int and -_EXACT <= value <= _EXACT:
        return float(value)
    raise Unusual


def _int(value: Any) -> Any:
    if value is None or (type(value) is int and -_INT64 <= value < _INT64):
        return value
    raise Unusual


def _bool(value: Any) -> Any:
    if value is None or type(value) is bool:
        return value
    raise Unusual


def _text(value: Any) -> Any:
    if value is None or (type(value) is str and value.isascii()):
        return value
    raise Unusual


CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    str(pa.float64()): _float,
    str(pa.int64()): _int,
    str(pa.bool_()): _bool,
    str(pa.string()): _text,
}
"""The function that converts a value of a type, by the text of the type."""
