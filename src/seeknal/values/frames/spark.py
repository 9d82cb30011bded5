"""Spark DataFrames, classic and of Spark Connect: a query in a cluster, whose rows have no order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from seeknal.errors import DataError
from seeknal.values import types
from seeknal.values.casting import recast
from seeknal.values.frames.given import Frame, InArrow


def in_spark_types(table: pa.Table) -> pa.Table:
    """Return a table in the nearest exact types that Spark has: those in which the values are stored in Delta Lake."""
    return recast(table, [types.stored(kind) for kind in map(types.logical, table.schema.types)])


class InSpark(Frame):
    """A Spark DataFrame. Its rows are brought here when something needs them all; a training set on Spark does not."""

    kind = "spark"

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    @property
    def _labels(self) -> Sequence[Any]:
        return list(self.frame.columns)

    def select(self, names: Sequence[str]) -> Any:
        """Return a Spark DataFrame of these columns."""
        return self.frame.select(*(f"`{name.replace('`', '``')}`" for name in names))

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        return HeldFromSpark(self.table(names), self.frame.sparkSession)

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """See `Frame.table`."""
        with reading():
            table: pa.Table = self.select(self.names if names is None else names).toArrow()
        return table

    def schema(self, names: Sequence[str]) -> pa.Table:
        """Return a table of these columns without rows; nothing is evaluated."""
        with reading():
            table: pa.Table = self.select(names).limit(0).toArrow()
        return table


class HeldFromSpark(InArrow):
    """The rows of a Spark DataFrame that was evaluated."""

    kind = "spark"

    def __init__(self, table: pa.Table, session: Any) -> None:
        super().__init__(table)
        self._session = session

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        return self if names is None else HeldFromSpark(self.table(names), self._session)

    def beside(self, names: Sequence[str], features: pa.Table) -> Any:
        """See `Frame.beside`."""
        return self._session.createDataFrame(in_spark_types(super().beside(names, features)))


@contextmanager
def reading() -> Iterator[None]:
    """Raise an error of Spark as a DataError.

    Raises:
        DataError: Spark raised an error.
    """
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        raise DataError(f"The Spark DataFrame cannot be read: {error}") from error
