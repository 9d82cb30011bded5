"""Values to return in place of the nulls of features. No data, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seeknal.errors import DefinitionError
from seeknal.names import check_features

if TYPE_CHECKING:
    import pyarrow as pa

_OF_SPARK: dict[object, str] = {
    "byte": "int8",
    "tinyint": "int8",
    "short": "int16",
    "smallint": "int16",
    "int": "int32",
    "integer": "int32",
    "long": "int64",
    "bigint": "int64",
}
"""Types by their names in Spark, which the first Seeknal used, where Arrow has other names."""


@dataclass(frozen=True)
class FillNull:
    """A value to return in place of the nulls of all features of one type.

    Args:
        value: The value, as text or as a Python value of the type.
        dataType: The type by its name, such as "double", "int64" or "string", by its name in Spark, such as "bigint", or a
            `pyarrow.DataType`.
        columns: The names of the features in the result. None: all features of that type.

    Raises:
        DefinitionError: The value is None, there is no such type, or the columns are not a list of names.
    """

    value: object
    dataType: str | pa.DataType  # noqa: N815 - its name in the first Seeknal
    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.value is None:
            raise DefinitionError("FillNull(value=None) fills nothing. Pass the value to return in place of nulls.")
        _ = self.kind  # checks the type now, not when nulls are filled
        # The class is frozen, so the checked names can only be stored by way of `object`.
        object.__setattr__(self, "columns", check_features(self.columns, "columns"))

    @property
    def kind(self) -> pa.DataType:
        """The type in Arrow."""
        from seeknal.values.types import parse

        return parse(_OF_SPARK.get(self.dataType, self.dataType))


def check_fills(fills: object) -> tuple[FillNull, ...]:
    """Return one `FillNull`, a list of them, or None as a tuple.

    Raises:
        DefinitionError: It is none of these.
    """
    given = () if fills is None else fills if isinstance(fills, list | tuple) else (fills,)
    if wrong := [one for one in given if not isinstance(one, FillNull)]:
        raise DefinitionError(
            f'fill_nulls takes a list of FillNull, not {wrong[0]!r}. Write fill_nulls=[FillNull(value="0", dataType="int64")].'
        )
    return tuple(given)
