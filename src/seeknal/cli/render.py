"""Output: the same result as a table for people, or as JSON or YAML for programs."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from math import isfinite, isnan
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seeknal.cli.options import Format
from seeknal.errors import DefinitionError
from seeknal.values.times import show

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)

Record = Mapping[str, Any]
_GAP = "  "
_MANY = 6
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def rows(records: Sequence[Record], form: Format, *, empty: str = "Nothing there.") -> None:
    """Print records.

    On a terminal, they are the rows of a table or, if that would be too wide, blocks of one line per field; long lists are
    shortened. In a pipe or a file, each record is one line with all values in full.
    """
    if form is not Format.table:
        _dump([_plain(record) for record in records], form)
    elif not records:
        stdout.print(empty)
    elif not sys.stdout.isatty():
        _print_lines(records)
    elif _fits(records):
        stdout.print(_table(records))
    else:
        for number, fields in enumerate(records):
            if number:
                stdout.print()
            _print_sheet({name: _glance(value) for name, value in fields.items()})


def record(fields: Record, form: Format) -> None:
    """Print one record, one line per field. Fields that are lists of records become tables below it."""
    if form is not Format.table:
        _dump(_plain(fields), form)
        return
    nested = {name: value for name, value in fields.items() if _is_table(value)}
    _print_sheet({name: _text(value) for name, value in fields.items() if name not in nested})
    for name, value in nested.items():
        stdout.print()
        stdout.print(Text(name, style="bold"))
        rows(value, form)


def note(text: str) -> None:
    """Print a sentence below a table."""
    stdout.print(text, soft_wrap=True)


def _dump(value: Any, form: Format) -> None:
    # Encodings other than UTF lack most characters; JSON and YAML can escape them.
    has_all = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    if form is Format.json:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=not has_all))
        return
    import yaml

    typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=has_all).rstrip())


def _plain(value: Any) -> Any:
    """Return a value in the types of JSON. A value of another type becomes text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if isinstance(value, date) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, date):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, list | tuple) and not _is_table(value):
        return ", ".join(map(_text, value))
    return printable("" if value is None else str(value))


def printable(text: str) -> str:
    """Escape control characters, so that no value can send commands to the terminal or span several lines."""
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def _glance(value: Any) -> str:
    """Return a value as text for a table on a terminal. A long list is cut to its first items."""
    if isinstance(value, list | tuple) and len(value) > _MANY:
        return f"{_text(value[:_MANY])}, ... ({len(value)} in all)"
    return _text(value)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fits(records: Sequence[Record]) -> bool:
    """Return whether all columns fit beside each other on the terminal without breaking a word."""
    widths = [max(map(len, _words(records, name))) for name in records[0]]
    return sum(widths) + len(_GAP) * (len(widths) - 1) <= stdout.width


def _words(records: Sequence[Record], name: str) -> list[str]:
    return [name, *(word for record in records for word in _glance(record[name]).split())]


def _print_lines(records: Sequence[Record]) -> None:
    """Print one line per record, in aligned columns, with every value in full, for programs such as grep."""
    columns = []
    for name in records[0]:
        # The width in cells of the terminal: a Chinese character takes two, a combining accent none.
        cells = [printable(name), *(_text(record[name]) for record in records)]
        width, numeric = max(map(cell_len, cells)), _is_numeric(records, name)
        spaces = [" " * (width - cell_len(cell)) for cell in cells]
        columns.append([s + c if numeric else c + s for s, c in zip(spaces, cells, strict=True)])
    for line in zip(*columns, strict=True):
        typer.echo(_GAP.join(line).rstrip())


def _is_numeric(records: Sequence[Record], name: str) -> bool:
    return all(_is_number(record[name]) or record[name] is None for record in records)


def _table(records: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 0, 0, len(_GAP)))
    for name in records[0]:
        # Only a value with blanks can be wrapped: half a number or name could be mistaken for the whole.
        whole = not any(" " in _glance(r[name]) for r in records)
        table.add_column(
            Text(printable(name)), justify="right" if _is_numeric(records, name) else "left", no_wrap=whole
        )
    for r in records:
        table.add_row(*(Text(_glance(value)) for value in r.values()))
    return table


def _print_sheet(fields: Mapping[str, str]) -> None:
    """Print one line per field. Long values are not wrapped, so that they can be copied."""
    width = max((len(printable(name)) for name in fields), default=0)
    for name, value in zip(map(printable, fields), fields.values(), strict=True):
        line = Text.assemble((name.ljust(width), "bold"), _GAP, value)
        line.rstrip()
        stdout.print(line, soft_wrap=True)


def keys(entity: Mapping[str, Any]) -> str:
    """Return the join keys of an entity as text that can be pasted into a command."""
    return shlex.join(f"{name}={_text(value)}" for name, value in entity.items())


def when(instant: int | None) -> str:
    """Return an instant, given in microseconds since 1970, as text in UTC, cut to the second; "" for None."""
    return "" if instant is None else show(instant - instant % 1_000_000)


def confirm(question: str, yes: bool) -> None:
    """Ask the user to confirm that data may be deleted; do nothing if `yes` is true.

    Raises:
        DefinitionError: No user can answer, because stdin is not a terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise DefinitionError(f"{question} There is no terminal to ask on. To confirm, add --yes.")
    typer.confirm(question, abort=True)
