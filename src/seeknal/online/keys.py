"""Byte encoding of join keys: only equal keys have equal bytes, and bytes sort as the keys do, so that loads are sorted."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from seeknal.online.protocol import LONGEST_KEY

NOBODY = b"\xff" * (LONGEST_KEY + 1)
"""The key of no entity, longer than any stored key. It stands for a null, or a value outside the range of the key's type."""

_DIGEST = 32
_pack = struct.Struct(">Q").pack


Encode = Callable[[Sequence[Sequence[Any]]], list[bytes]]
"""A function that takes entities, as one column of wire values per join key, and returns their encoded keys."""


def key_encoder(kinds: Sequence[pa.DataType]) -> Encode:
    """Return a function that encodes entities whose join keys have these wire types.

    An integer takes 8 bytes, big-endian, and a boolean one byte. A string or binary key is encoded as it is if it is the only
    key. If there are several keys, it ends with two zero bytes, and each zero byte within it is followed by 255.

    For example, the string `shop` and the int64 `1` give, in hexadecimal: `73686f70 0000 8000000000000001`.
    """
    encoders = [_part_encoder(kind) for kind in kinds]
    if len(kinds) == 1:
        return _single_encoder(kinds[0], encoders[0])
    terminators = [None if _is_fixed(kind) else _terminated for kind in kinds]

    def encode_entities(columns: Sequence[Sequence[Any]]) -> list[bytes]:
        parts = [
            encode(column) if end is None else [None if text is None else end(text) for text in encode(column)]
            for encode, end, column in zip(encoders, terminators, columns, strict=True)
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
        except (TypeError, struct.error):  # a null, or a number out of range: check each number separately
            return [key or NOBODY for key in encode(columns[0])]

    return encode_numbers


def encode_whole_numbers(values: np.ndarray[Any, np.dtype[np.int64]]) -> list[bytes]:
    """Return the encoded keys of entities with a single int64 join key, in one vectorized operation."""
    # Flipping the sign bit adds 2**63, as `_offset` requires.
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
    return lambda values: values  # binary keys are bytes already


def _offset(kind: pa.DataType) -> int:
    """Return the number to add to an integer, so that negative numbers sort before positive ones."""
    return 0 if kind == pa.uint64() else 2**63


def _number(value: int | None, offset: int) -> bytes | None:
    try:
        return None if value is None else _pack(value + offset)
    except struct.error:
        return None


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))


def _terminated(text: bytes) -> bytes:
    # The terminator sorts before every other continuation, so a text sorts before those that it is a prefix of.
    return text.replace(b"\0", b"\0\xff") + b"\0\0"


def _bounded(key: bytes | None) -> bytes:
    """Return a key of at most `LONGEST_KEY` bytes.

    The end of a longer key, or of one just as long, is replaced by a digest of the whole. Only such keys have that length.
    """
    if key is None:
        return NOBODY
    if len(key) < LONGEST_KEY:
        return key
    return key[: LONGEST_KEY - _DIGEST] + blake2b(key, digest_size=_DIGEST).digest()


def decode_key(key: bytes, kinds: Sequence[pa.DataType]) -> list[Any] | None:
    """Return the wire values of an encoded entity; None if it was too long to be encoded whole."""
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
    """Return the position of the two zero bytes that end a text; a zero byte within the text is followed by 255."""
    end = 0
    while key[end : end + 2] != b"\0\0":
        end += 2 if key[end : end + 2] == b"\0\xff" else 1
    return end
