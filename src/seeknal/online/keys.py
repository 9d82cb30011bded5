"""How keys look as bytes: equal only for equal keys, and in the order of the keys, so that loads are sorted."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from seeknal.online.protocol import LONGEST_KEY

NOBODY = b"\xff" * (LONGEST_KEY + 1)
"""The key of no entity: what was asked is null, or not in the range of the key's type."""

_DIGEST = 32
_pack = struct.Struct(">Q").pack


Encode = Callable[[Sequence[Sequence[Any]]], list[bytes]]
"""Turns entities, given as one column of wire values per join key, into keys."""


def key_encoder(kinds: Sequence[pa.DataType]) -> Encode:
    """Give what encodes join keys of these wire types.

    Whole numbers take 8 bytes, the greatest byte first; texts are as they are, or, where several keys stand side by
    side, end with two zero bytes, while a zero within is followed by 255.
    """
    encoders = [_part_encoder(kind) for kind in kinds]
    if len(kinds) == 1:
        return _single_encoder(kinds[0], encoders[0])
    closed = [None if _is_fixed(kind) else _ended for kind in kinds]

    def encode_entities(columns: Sequence[Sequence[Any]]) -> list[bytes]:
        parts = [
            encode(column) if end is None else [None if text is None else end(text) for text in encode(column)]
            for encode, end, column in zip(encoders, closed, columns, strict=True)
        ]
        return [_bounded(None if None in entity else b"".join(entity)) for entity in zip(*parts, strict=True)]

    return encode_entities


def _single_encoder(kind: pa.DataType, encode: Callable[[Sequence[Any]], Sequence[bytes | None]]) -> Encode:
    if not pa.types.is_integer(kind):
        return lambda columns: [_bounded(key) for key in encode(columns[0])]
    offset = _offset(kind)

    def encode_numbers(columns: Sequence[Sequence[Any]]) -> list[bytes]:
        try:
            return [_pack(value + offset) for value in columns[0]]
        except (TypeError, struct.error):
            return [key or NOBODY for key in encode(columns[0])]

    return encode_numbers


def encode_whole_numbers(values: np.ndarray[Any, np.dtype[np.int64]]) -> list[bytes]:
    """Encode many entities of one join key, an int64, all at once."""
    text = (values.view(np.uint64) ^ np.uint64(2**63)).astype(">u8").tobytes()
    return [text[i : i + 8] for i in range(0, len(text), 8)]


def _part_encoder(kind: pa.DataType) -> Callable[[Sequence[Any]], Sequence[bytes | None]]:
    if pa.types.is_integer(kind):
        offset = _offset(kind)
        return lambda values: [_number(value, offset) for value in values]
    if pa.types.is_boolean(kind):
        return lambda values: [None if value is None else bytes([value]) for value in values]
    if pa.types.is_string(kind):
        return lambda values: [None if value is None else value.encode(errors="surrogatepass") for value in values]
    return lambda values: values


def _offset(kind: pa.DataType) -> int:
    """Say what to add to a whole number, so that later ones sort behind earlier ones."""
    return 0 if kind == pa.uint64() else 2**63


def _number(value: int | None, offset: int) -> bytes | None:
    try:
        return None if value is None else _pack(value + offset)
    except struct.error:
        return None


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _ended(text: bytes) -> bytes:
    return text.replace(b"\0", b"\0\xff") + b"\0\0"


def _bounded(key: bytes | None) -> bytes:
    """Keep a key within what a store takes: of a long one the end is a digest, and only such keys are that long."""
    if key is None:
        return NOBODY
    if len(key) < LONGEST_KEY:
        return key
    return key[: LONGEST_KEY - _DIGEST] + blake2b(key, digest_size=_DIGEST).digest()


def decode_key(key: bytes, kinds: Sequence[pa.DataType]) -> list[Any] | None:
    """Give the wire values of an encoded entity; None if it was too long to be kept whole."""
    if len(key) >= LONGEST_KEY:
        return None
    values: list[Any] = []
    for kind in kinds:
        if pa.types.is_integer(kind):
            text, key = key[:8], key[8:]
            values.append(int.from_bytes(text, "big") - _offset(kind))
            continue
        if pa.types.is_boolean(kind):
            text, key = key[:1], key[1:]
            values.append(text == b"\1")
            continue
        end = _end_of(key) if len(kinds) > 1 else len(key)
        text, key = key[:end], key[end + 2 :]
        text = text.replace(b"\0\xff", b"\0") if len(kinds) > 1 else text
        values.append(text.decode(errors="surrogatepass") if pa.types.is_string(kind) else text)
    return values


def _end_of(key: bytes) -> int:
    """Find the two zero bytes that end a text, passing over zeros within it, which 255 follows."""
    end = 0
    while key[end : end + 2] != b"\0\0":
        end += 2 if key[end : end + 2] == b"\0\xff" else 1
    return end
