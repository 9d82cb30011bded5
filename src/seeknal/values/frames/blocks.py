"""Fast conversion of few rows with many columns to pandas: all columns of one number type become one pandas block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from seeknal.values.frames.answers import from_arrow
from seeknal.values.frames.libraries import library

_NUMBERS = {pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()}
_NUMBERS |= {pa.float32(), pa.float64()}


class Blocks:
    """A converter from record batches of one schema to pandas frames, with the same result as `from_arrow`.

    Args:
        schema: The schema of the batches.
    """

    def __init__(self, schema: pa.Schema) -> None:
        places: dict[pa.DataType | None, list[int]] = {}
        for i, kind in enumerate(schema.types):
            places.setdefault(kind if kind in _NUMBERS else None, []).append(i)
        self._rest = places.pop(None, [])
        index = library("pandas").Index
        self._blocks = [
            (some, index([schema.names[i] for i in some]), pa.types.is_floating(kind)) for kind, some in places.items()
        ]
        # The blocks are concatenated type by type; this permutation restores the order of the schema.
        self._order = np.argsort([i for some in (*places.values(), self._rest) for i in some])

    def frame(self, batch: pa.RecordBatch) -> Any:
        """Return a batch as a frame, or None if whole numbers have nulls, for which pandas has separate types."""
        pd = library("pandas")
        try:
            parts = [
                pd.DataFrame(batch.select(places).to_tensor(null_to_nan=is_float).to_numpy(), columns=names)
                for places, names, is_float in self._blocks
            ]
        except pa.ArrowTypeError:
            return None
        if self._rest:
            parts.append(from_arrow(pa.Table.from_batches([batch.select(self._rest)]), "pandas"))
        return pd.concat(parts, axis=1).take(self._order, axis=1)
