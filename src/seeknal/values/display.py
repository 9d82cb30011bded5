"""How objects are displayed: instants as datetimes, and in a notebook a small HTML table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pyarrow as pa


def sheet(title: str, facts: Mapping[str, object]) -> str:
    """Return facts as an HTML table with a row for each. A list of records becomes a nested table.

    >>> sheet("Group", {"rows": 1200, "online": False})
    '<table><caption>Group</caption><tr><th>rows</th><td>1,200</td></tr><tr><th>online</th><td>no</td></tr></table>'
    """
    lines = (f"<tr><th>{escape(name)}</th><td>{_cell(value)}</td></tr>" for name, value in facts.items())
    return f"<table><caption>{escape(title)}</caption>{''.join(lines)}</table>"


def shown_duration(duration: timedelta) -> str:
    """Return a duration as Python writes it, without a time of day that is zero.

    >>> shown_duration(timedelta(days=1)), shown_duration(timedelta(days=2, hours=3)), shown_duration(timedelta(0))
    ('1 day', '2 days, 3:00:00', '0:00:00')
    """
    return str(duration).removesuffix(", 0:00:00")


def _cell(value: object) -> str:
    if not isinstance(value, list | tuple):
        return escape(_text(value))
    if not value or not isinstance(value[0], Mapping):
        return escape(", ".join(map(_text, value)))
    head = "".join(f"<th>{escape(str(name))}</th>" for name in value[0])
    rows = ("".join(f"<td>{_cell(one)}</td>" for one in record.values()) for record in value)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return f"{value:,}" if isinstance(value, int) else str(value)


class Shown:
    """Base class of frozen dataclasses that display their fields, with instants as datetimes.

    Fields with repr=False are not displayed.
    """

    _moments: ClassVar[Mapping[str, str]] = {}
    """For a field that is an instant, the name of the property that returns it as a datetime."""

    def __init_subclass__(cls) -> None:
        cls.__repr__ = Shown.__repr__  # type: ignore[method-assign]  # dataclasses keep a class's own __repr__

    def _facts(self) -> dict[str, Any]:
        shown = (one.name for one in fields(self) if one.repr)  # type: ignore[arg-type]  # subclasses are dataclasses
        names = (self._moments.get(name, name) for name in shown)
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        facts = {name: _listed(value) for name, value in self._facts().items()}
        return sheet(type(self).__name__, facts)


def _listed(value: object) -> object:
    """Return a mapping as a list of texts, and a list of `Shown` objects as records, which `sheet` can lay out."""
    if isinstance(value, Mapping):
        return [f"{name}={one!r}" for name, one in value.items()]
    if isinstance(value, Sequence) and value and isinstance(value[0], Shown):
        return [{name: _listed(one) for name, one in item._facts().items()} for item in value]  # noqa: SLF001 - same module
    return value


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Return a table's rows as dictionaries for display; see `shown_values`."""
    columns = [shown_values(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def shown_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return values as Python objects for display.

    If Python has no object for one of them, such as a date in the year 12000, all of them become text.
    """
    import pyarrow as pa

    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        pass
    # All of them become text, not just that value: a column with values of two types would be hard to read.
    try:
        return list(column.cast(pa.string()).to_pylist())
    except pa.ArrowException:  # a nested value
        return [column.slice(i, 1).to_string(skip_new_lines=True).strip("[]") for i in range(len(column))]
