"""Erased entities, which are remembered by a digest of their keys, so that their past does not come back unseen."""

from __future__ import annotations

from hashlib import blake2b

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.schema import Schema
from seeknal.errors import notice, plural
from seeknal.online import Codec
from seeknal.registry import GroupRecord
from seeknal.registry.catalog import Catalog


def digest(key: bytes) -> str:
    """Return what an erased entity is remembered by."""
    return blake2b(key, digest_size=32, person=b"seeknal erasure").hexdigest()


def is_erased(catalog: Catalog, record: GroupRecord, schema: Schema, rows: pa.Table) -> pa.BooleanArray | None:
    """Return which rows happened to an entity before it was erased; None if there are none.

    Args:
        catalog: Where the group is.
        record: The group.
        schema: The rows' schema.
        rows: The rows, in stored types.
    """
    erased = catalog.registry.erasures(record)
    if not erased or not len(rows):
        return None
    moments = rows[schema.event_time.name].cast(pa.int64()).to_pylist()
    keys = Codec(schema).stored_keys(rows)
    found = [moment <= erased.get(digest(key), moment - 1) for key, moment in zip(keys, moments, strict=True)]
    return pa.array(found, pa.bool_()) if any(found) else None


def warn_of_return(catalog: Catalog, record: GroupRecord, schema: Schema, rows: pa.Table) -> None:
    """Give notice of rows that bring erased entities back."""
    back = is_erased(catalog, record, schema, rows)
    if back is not None:
        notice(
            f"{record.label}: {plural(pc.sum(back).as_py())} happened to entities before they were erased, and are stored "
            "again. Leave them out of the frame and erase the entities once more, unless that was meant."
        )
