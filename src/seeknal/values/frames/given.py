"""The kinds of frames that a caller can pass, and how the rows of each are read, once per call.

A `Frame` knows the names of its columns before any row is read. `only` reads rows and returns a frame that can be read
repeatedly. A query, a stream or a file is never evaluated twice, because the second result could differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa

from seeknal.errors import DataError
from seeknal.names import did_you_mean, quoted
from seeknal.system.parallel import parallel_map
from seeknal.values import exact
from seeknal.values.frames import relations, texts
from seeknal.values.frames.libraries import library
from seeknal.values.frames.making import to_pandas, to_polars
from seeknal.values.frames.relations import Held

Batches = Callable[[], Iterator[pa.RecordBatch]]
Kinds = Mapping[str, pa.DataType]
_LITTLE = 2**14


class Frame(ABC):
    """A frame from the caller, of any kind."""

    kind: ClassVar[str]

    @property
    def has_text(self) -> bool:
        """Whether values are text, and their types are inferred from it."""
        return False

    @property
    @abstractmethod
    def _labels(self) -> Sequence[Any]:
        """The names of the columns as the library of the frame returns them, not necessarily text."""

    @cached_property
    def names(self) -> list[str]:
        """The names of the columns.

        Raises:
            DataError: A name is not text, or two columns have the same name.
        """
        names = list(self._labels)
        if odd := [name for name in names if not isinstance(name, str)]:
            raise DataError(f"The frame's column {odd[0]!r} has a name that is not text. Rename it.", column=odd[0])
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"The frame has two columns named {repeated[0]!r}. Rename or drop one.", column=repeated[0])
        return list(map(str.__str__, names))  # a subclass of str may have a `__str__` of its own

    def require(self, names: Iterable[str], what: str) -> None:
        """Check that the frame has these columns.

        Args:
            names: The names of the columns.
            what: What to call the frame in the message, such as "The spine".

        Raises:
            DataError: A column is missing. The message names all missing ones, and suggests a column for the first.
        """
        if missing := [name for name in dict.fromkeys(names) if name not in self.names]:
            raise DataError(f"{what} has no column {quoted(missing)}.{self._hint(missing[0])}", column=missing[0])

    def _hint(self, name: str) -> str:
        return did_you_mean(name, self.names)

    def typed(self, kinds: Kinds) -> Frame:
        """Return the frame with expected types for text. A column is parsed as its type if all its values allow it."""
        del kinds
        return self

    @abstractmethod
    def only(self, names: Sequence[str] | None = None) -> Frame:
        """Read these columns, or all, once, and return a frame with the same rows in every later read.

        The frame may have more columns, if those are in memory already.

        Raises:
            DataError: The columns cannot be read.
        """

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """Return these columns, or all, in Arrow and in the order of the rows. The index of a pandas frame is left out.

        Raises:
            DataError: A column cannot be read, or has values that Arrow cannot carry exactly.
        """
        return self.only(names).table(names)

    def batches(self, names: Sequence[str], size: int) -> tuple[pa.Schema, Batches]:
        """Return the schema of these columns, and a function that iterates anew over their batches; see `only`.

        Args:
            names: The columns.
            size: The most rows of a batch.
        """
        table = self.table(names)
        return table.schema, lambda: iter(table.to_batches(max_chunksize=size))

    def beside(self, names: Sequence[str], features: pa.Table) -> Any:
        """Return these columns unchanged, with the features at their right, as a new object of the frame's library."""
        raise NotImplementedError


class InArrow(Frame):
    """An Arrow table, or any frame that was read into one."""

    kind = "arrow"

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def _labels(self) -> Sequence[Any]:
        return list(self._table.column_names)

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        return self if names is None else InArrow(self.table(names))

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """See `Frame.table`."""
        return self._table.select(self.names if names is None else list(names))

    def beside(self, names: Sequence[str], features: pa.Table) -> Any:
        """See `Frame.beside`."""
        table = self._table.select(list(names))
        for field, column in zip(features.schema, features.columns, strict=True):
            table = table.append_column(field, column)
        return table


class Stream(Frame):
    """A stream of Arrow batches, which can be read only once."""

    kind = "arrow"

    def __init__(self, stream: Any) -> None:
        try:
            self._reader = pa.RecordBatchReader.from_stream(stream)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise DataError(
                f"{type(stream).__qualname__} is a single column, not a frame. Pass all columns together; in pandas and Polars, "
                f".to_frame() makes a frame of one column. ({error})"
            ) from None

    @property
    def _labels(self) -> Sequence[Any]:
        return list(self._reader.schema.names)

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        try:
            table = self._reader.read_all()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"The stream of Arrow batches cannot be read: {error}") from error
        return InArrow(table).only(names)


class InPandas(Frame):
    """A pandas frame."""

    kind = "pandas"

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    @property
    def _labels(self) -> Sequence[Any]:
        return list(self._frame.columns)

    def _hint(self, name: str) -> str:
        is_in_index = name in self._frame.index.names
        return " It is in the index: call reset_index() first." if is_in_index else super()._hint(name)

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        del names  # a pandas frame is in memory already, so nothing is evaluated twice
        return self

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """See `Frame.table`."""
        names = self.names if names is None else list(names)
        return pa.Table.from_arrays([exact.series(name, self._frame[name]) for name in names], names=names)

    def beside(self, names: Sequence[str], features: pa.Table) -> Any:
        """See `Frame.beside`."""
        pd = library("pandas")
        is_arrow_backed = any(isinstance(dtype, pd.ArrowDtype) for dtype in self._frame.dtypes)
        right = to_pandas(features, arrow_backed=is_arrow_backed)
        right.index = self._frame.index  # equal, because `concat` aligns rows by their index
        return pd.concat([self._frame[list(names)], right], axis=1)


class InPolars(Frame):
    """A Polars frame, lazy or not."""

    kind = "polars"

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    @property
    def _labels(self) -> Sequence[Any]:
        try:
            return list(self._frame.collect_schema().names())
        except library("polars").exceptions.PolarsError as error:
            raise DataError(f"The lazy Polars frame cannot be read: {error}") from error

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        return InPolars(self._collected(names))

    def _collected(self, names: Sequence[str] | None) -> Any:
        if not hasattr(self._frame, "collect"):  # only a lazy frame has to be evaluated
            return self._frame
        frame = self._frame if names is None else self._frame.select(list(names))
        try:
            return frame.collect()
        except (library("polars").exceptions.PolarsError, OSError) as error:
            raise DataError(f"The lazy Polars frame cannot be read: {error}") from error

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """See `Frame.table`."""
        names = self.names if names is None else list(names)
        frame = self._collected(names)
        return pa.Table.from_arrays([_from_polars(frame, name) for name in names], names=names)

    def beside(self, names: Sequence[str], features: pa.Table) -> Any:
        """See `Frame.beside`."""
        return self._frame.select(list(names)).hstack(to_polars(features))


def _from_polars(frame: Any, name: str) -> pa.ChunkedArray:
    """Return a column in Arrow's oldest layouts, because categories in the newest ones cannot be cast to text."""
    pl = library("polars")
    problem: object = "Python objects have no Arrow type"
    try:
        if frame.schema[name] != pl.Object:
            return frame.select(name).to_arrow(compat_level=pl.CompatLevel.oldest())[name]
    except pa.ArrowInvalid as error:
        problem = error
    raise DataError(f"Column {name!r} is {frame.schema[name]}, which cannot be read: {problem}", column=name)


class InDuckDB(Frame):
    """A DuckDB relation: a query that may return other rows, or the same rows in another order, when it runs again."""

    kind = "duckdb"

    def __init__(self, relation: Any) -> None:
        self._relation = relation

    @property
    def _labels(self) -> Sequence[Any]:
        return list(self._relation.columns)

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        return HeldInDuckDB(Held.of(self._relation, self.names if names is None else names))

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """See `Frame.table`."""
        return relations.read(self._relation, self.names if names is None else names)


class HeldInDuckDB(Frame):
    """The rows of a DuckDB relation that was evaluated."""

    kind = "duckdb"

    def __init__(self, held: Held) -> None:
        self._held = held

    @property
    def _labels(self) -> Sequence[Any]:
        return list(self._held.columns)

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        return self if names is None else HeldInDuckDB(self._held.only(names))

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """See `Frame.table`."""
        return self._held.table(self.names if names is None else names)

    def beside(self, names: Sequence[str], features: pa.Table) -> Any:
        """See `Frame.beside`."""
        return self._held.beside(names, features)


class Text(Frame):
    """The columns of CSV files, as text."""

    kind = "path"

    def __init__(self, text: pa.Table, kinds: Kinds | None = None) -> None:
        self._text = text
        self._kinds = kinds or {}

    @property
    def has_text(self) -> bool:
        """See `Frame.has_text`."""
        return True

    @property
    def _labels(self) -> Sequence[Any]:
        return list(self._text.column_names)

    def typed(self, kinds: Kinds) -> Frame:
        """See `Frame.typed`."""
        return Text(self._text, kinds)

    def only(self, names: Sequence[str] | None = None) -> Frame:
        """See `Frame.only`."""
        return InArrow(self.table(names))

    def table(self, names: Sequence[str] | None = None) -> pa.Table:
        """See `Frame.table`."""
        names = self.names if names is None else list(names)
        serial = len(self._text) < _LITTLE
        columns = parallel_map(lambda name: texts.typed(self._text[name], self._kinds.get(name)), names, serial=serial)
        return pa.Table.from_arrays(columns, names=names)
