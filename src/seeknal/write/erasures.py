"""Erased entities, remembered by a digest of their keys so that rows from before an erasure do not return unnoticed."""

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
    """Return the digest by which an erased entity is remembered."""
    return blake2b(key, digest_size=32, person=b"seeknal erasure").hexdigest()


def is_erased(catalog: Catalog, record: GroupRecord, schema: Schema, rows: pa.Table) -> pa.BooleanArray | None:
    """Return a mask of the rows dated at or before the erasure of their entity; None if there are no such rows.

    Args:
        catalog: The catalog of the group's home.
        record: The group.
        schema: The rows' schema.
        rows: The rows, in stored types.
    """
    erased = catalog.registry.erasures(record)
    if not erased or not len(rows):
        return None
    moments = rows[schema.event_time.name].cast(pa.int64()).to_pylist()
    keys = Codec(schema).stored_keys(rows)
    # For an entity that was never erased, the default is before the row's own time, so the comparison is false.
    found = [moment <= erased.get(digest(key), moment - 1) for key, moment in zip(keys, moments, strict=True)]
    return pa.array(found, pa.bool_()) if any(found) else None


def warn_of_return(catalog: Catalog, record: GroupRecord, schema: Schema, rows: pa.Table) -> None:
    """Warn about rows that bring erased entities back."""
    back = is_erased(catalog, record, schema, rows)
    if back is not None:
        notice(
            f"{record.label}: {plural(pc.sum(back).as_py())} happened to entities before they were erased, and are stored "
            "again. Leave them out of the frame and erase the entities once more, unless that was meant."
        )
