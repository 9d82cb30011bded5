"""Open online tables and feature views, and the encoding of their results for JSON and MessagePack."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from time import perf_counter
from typing import Any

import pyarrow as pa

from seeknal.errors import DataError
from seeknal.names import join_keys_of, misfit, split_version
from seeknal.online import is_plain, to_wire
from seeknal.registry import OnlineTableRecord
from seeknal.serve.online_table import OnlineTable
from seeknal.serve.parts import Read, Selection, filled
from seeknal.serve.views import ServedView
from seeknal.server.forms import form_of, moment_text
from seeknal.values.row_builder import AS_IS, ValueEncoding, compile_row_builder

_MOST_SHAPES = 100
_LONG, _IN_A_ROW = 0.005, 3
"""Seconds after which an answer holds up other requests for too long, and after how many such answers a view is computed in threads."""


class Held:
    """An open online table, and the functions that encode its results for JSON or MessagePack.

    Args:
        record: The registered table.
        table: The open table.
    """

    table: OnlineTable
    computes = False
    """Whether code of users runs, so that only a few rows are answered in the event loop."""

    def __init__(self, record: OnlineTableRecord, table: OnlineTable) -> None:
        self.record = record
        self.table = table
        self.origins = [part.origin for part in table.parts]
        """When each of its groups was registered. It tells a group from a later one of the same name."""
        self.key_kinds = {field.name: field.type for field in (*table.key_fields, *table.request_fields)}
        """The types of what a row must have: join keys and, for a view, request values."""
        self.waits = any(part.waits for part in table.parts)
        self.place = table.parts[0].place
        """The online store with its rows, as messages name it."""
        self._make_all = self._all()
        self._shapes: dict[tuple[bool, tuple[str, ...]], Callable[..., list[dict[str, Any]]]] = {}

    def quick(self, keys: list[dict[str, Any]]) -> tuple[list[Any], list[Read]] | None:
        """Look up all features for JSON, which is the most common request.

        Args:
            keys: The join keys of each entity, as they were decoded.

        Returns:
            The rows and the reads; None if a key has to be converted, or is wrong.
        """
        plain = self.table.plainly(keys, None)
        if plain is None:
            return None
        columns, reads = plain
        return self._make_all(*columns, *map(filled, self.table.parts, reads)), reads

    def rows(self, found: Any, *, text: bool, with_status: bool) -> list[dict[str, Any]]:
        """Return a result as dictionaries that JSON (if `text`) or MessagePack can encode."""
        shape = text, tuple(found.selection.order)
        if (make := self._shapes.get(shape)) is None:
            # A compiled builder for each combination of features that clients request, which nothing else bounds.
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            make = self._shapes[shape] = self._maker(found.selection, text=text)
        columns = [found.keys[name].wire(values) for name, values in found.columns.items()]
        parts = [piece.part for piece in found.selection.pieces]
        made = make(*columns, *map(filled, parts, found.reads))
        if with_status:
            found.add_statuses(made, moment_text)
        return made

    @property
    def is_of_one_version(self) -> bool:
        """Whether the table is named after the version of a view that it serves."""
        return split_version(self.record.name)[1] is not None

    def check_names(self, names: Iterable[str]) -> None:
        """Check that the names in a query are those that a row must have.

        Raises:
            DataError: They are not.
        """
        if missing := misfit(names, self.key_kinds):
            raise DataError(f"{join_keys_of(f'online table {self.record.name!r}', self.key_kinds)}; {missing}")

    def _all(self) -> Callable[..., list[Any]]:
        return self._maker(self.table.select(None), text=True, for_msgspec=True)

    def _maker(self, selection: Selection, *, text: bool, for_msgspec: bool = False) -> Callable[..., list[Any]]:
        forms: dict[str, ValueEncoding] = {name: form_of(kind, text=text) for name, kind in self.key_kinds.items()}
        for piece in selection.pieces:
            features = piece.part.codec.schema.features
            for name, place in zip(piece.names, piece.places, strict=True):
                forms[name] = form_of(features[place].type, text=text)
        plain = {name: form for name, form in forms.items() if form is not AS_IS}
        return compile_row_builder(self.table.keys, selection.layouts, selection.order, plain, for_msgspec=for_msgspec)


class HeldView(Held):
    """An open feature view with request values or computed features; see `Held`.

    Args:
        record: The registered table.
        table: The open table.
    """

    table: ServedView
    computes = True
    _long = 0
    """How many of the last answers took long."""

    def quick(self, keys: list[dict[str, Any]]) -> tuple[list[Any], list[Read]] | None:
        """Compute all features of a few rows for JSON; see `Held.quick`.

        It runs in the event loop: a thread would take half as much processor time again. If functions turn out to be slow, the view
        counts from then on as one that waits, so that they hold up no other request.
        """
        plan = self.table.plan(None)
        if self._make_all is None or len(keys) > plan.few:
            return None
        began = perf_counter()
        try:
            found = self.table.quickly(plan, keys, None)
        finally:
            self._long = self._long + 1 if perf_counter() - began > _LONG else 0
            self.waits = self.waits or self._long >= _IN_A_ROW
        if found is None:
            return None
        return self._make_all([(*row.values(), None) for row in found[0]]), found[1]

    def rows(self, found: Any, *, text: bool, with_status: bool) -> list[dict[str, Any]]:
        """Return an answer as dictionaries that JSON (if `text`) or MessagePack can encode."""
        names = tuple(found.features)
        if (make := self._shapes.get((text, names))) is None:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            make = self._shapes[text, names] = self._builder(names, text=text)
        keys = [found.looked_up_keys[name].wire(values) for name, values in found.columns.items()]
        kinds = self.table.kinds
        features = [to_wire(column, kinds[name]) for name, column in found.features.items()]
        made = make(list(zip(*keys, *features, repeat(None), strict=False)))
        if with_status:
            found.add_statuses(made, moment_text)
        return made

    def check_names(self, names: Iterable[str]) -> None:
        """Check the names in a query; see `Held.check_names`. A request value that has a default may be missing."""
        self.table.check_row(dict.fromkeys(names))

    def _all(self) -> Any:
        """Return the function that encodes the Python values of an answer; None if they differ on the wire."""
        names = self.table.recipe.names
        kinds = [*(field.type for field in self.table.key_fields), *(self.table.kinds[name] for name in names)]
        return self._builder(names, text=True, for_msgspec=True) if all(map(is_plain, kinds)) else None

    def _builder(self, names: tuple[str, ...], *, text: bool, for_msgspec: bool = False) -> Callable[..., list[Any]]:
        kinds: dict[str, pa.DataType] = {field.name: field.type for field in self.table.key_fields}
        kinds |= {name: self.table.kinds[name] for name in names}
        forms = {name: form for name, kind in kinds.items() if (form := form_of(kind, text=text)) is not AS_IS}
        own = [*self.table.keys, *names]
        return compile_row_builder([], [own], own, forms, for_msgspec=for_msgspec)


def hold(record: OnlineTableRecord, table: OnlineTable) -> Held:
    """Return an open table with the functions that encode its results."""
    return HeldView(record, table) if isinstance(table, ServedView) else Held(record, table)
