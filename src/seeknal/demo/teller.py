"""How the demo prints what it tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from textwrap import fill
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH = 80


class Teller:
    """Prints headings, sentences and small tables, at most eighty columns wide."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, _WIDTH)
        self._step = 0

    def title(self, text: str) -> None:
        """Print the title of the demo."""
        self._console.print(Text(text, style="bold"))
        self._console.print()

    def heading(self, text: str, *code: str) -> None:
        """Print the numbered heading of the next step, and the code that it runs."""
        self._step += 1
        self._console.print()
        self._console.print(Text(f"{self._step}. {text}", style="bold"))
        self._console.print()
        for line in code:
            self._console.print(Text(f"  {line}", style="cyan"))
        if code:
            self._console.print()

    def say(self, text: str) -> None:
        """Print sentences."""
        self._console.print(
            Text(fill(text, self._width, break_long_words=False, break_on_hyphens=False)), soft_wrap=True
        )

    def table(self, records: Sequence[Mapping[str, Any]], decimals: int = 1) -> None:
        """Print records as a table."""
        table = Table(box=None, padding=(0, 0, 0, 2), header_style="bold")
        for name, value in records[0].items():
            table.add_column(name, justify="right" if isinstance(value, int | float) else "left", overflow="fold")
        for record in records:
            table.add_row(*(Text(shown(value, decimals)) for value in record.values()))
        self._console.print()
        self._console.print(table)
        self._console.print()

    def lines(self, things: Sequence[object]) -> None:
        """Print things, one after the other."""
        self._console.print()
        for one in things:
            self.say(f"  {one}")

    def commands(self, lines: Sequence[str]) -> None:
        """Print commands to copy."""
        self._console.print()
        for line in lines:
            self._console.print(Text(f"  {line}"), soft_wrap=True)


def shown(value: object, decimals: int = 1) -> str:
    """Return a value as the demo prints it."""
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    if isinstance(value, float):
        return f"{value:.{decimals}f}"
    return f"{value:,}" if type(value) is int else "" if value is None else str(value)
