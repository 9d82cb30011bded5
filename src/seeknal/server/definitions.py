"""A worker's view of the home: its open tables and its tokens, read again when the registry has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from threading import Lock
from typing import Any, TypeVar

from seeknal.errors import DefinitionError, SeeknalError
from seeknal.home.store import FeatureStore
from seeknal.names import check_name, split_label, the_only
from seeknal.registry import GroupRecord, OnlineTableRecord
from seeknal.registry.tokens import Authenticator
from seeknal.serve.online_table import Found, OnlineTable
from seeknal.serve.parts import Read, Selection, View, filled
from seeknal.server.forms import form_of, moment_text
from seeknal.server.http import Problem, Request
from seeknal.system.stamped import Stamped
from seeknal.values.row_builder import AS_IS, ValueEncoding, compile_row_builder

_MOST_SHAPES = 100
T = TypeVar("T", GroupRecord, OnlineTableRecord)


class Held:
    """An open online table, and the functions that encode its results for JSON or MessagePack.

    Args:
        record: The registered table.
        table: The open table.
        origins: When each of its groups was registered. It tells a group from a later one of the same name.
    """

    def __init__(self, record: OnlineTableRecord, table: OnlineTable, origins: Sequence[int]) -> None:
        self.record = record
        self.table = table
        self.origins = list(origins)
        self.key_kinds = {field.name: field.type for field in table.key_fields}
        self.waits = any(part.waits for part in table.parts)
        self._make_all = self._maker(table.select(None), text=True, for_msgspec=True)
        self._shapes: dict[tuple[bool, tuple[str, ...]], Callable[..., list[dict[str, Any]]]] = {}

    def quick(self, keys: list[dict[str, Any]]) -> tuple[list[Any], list[Read]] | None:
        """Look up all features for JSON, which is the most common request.

        Returns:
            The rows and the reads; None if a key has to be converted, or is wrong.
        """
        plain = self.table.plainly(keys, None)
        if plain is None:
            return None
        columns, reads = plain
        return self._make_all(*columns, *map(filled, self.table.parts, reads)), reads

    def rows(self, found: Found, *, text: bool, with_status: bool) -> list[dict[str, Any]]:
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

    def _maker(self, selection: Selection, *, text: bool, for_msgspec: bool = False) -> Callable[..., list[Any]]:
        forms: dict[str, ValueEncoding] = {name: form_of(kind, text=text) for name, kind in self.key_kinds.items()}
        for piece in selection.pieces:
            features = piece.part.codec.schema.features
            for name, place in zip(piece.names, piece.places, strict=True):
                forms[name] = form_of(features[place].type, text=text)
        plain = {name: form for name, form in forms.items() if form is not AS_IS}
        return compile_row_builder(self.table.keys, selection.layouts, selection.order, plain, for_msgspec=for_msgspec)


class Definitions:
    """The tables and tokens of a home, as of the last refresh.

    Args:
        store: The feature store of the home.
        may_be_open: Whether requests need no token as long as there are none. Once a token is known, they always need
            one, even if another home takes this one's place.
    """

    def __init__(self, store: FeatureStore, *, may_be_open: bool) -> None:
        self.store = store
        self._may_be_open = may_be_open
        self._stamp = b""
        self._changing = Lock()
        self._held: Mapping[tuple[str, str], Held] = {}
        self._projects: Mapping[str, str] = {}
        self._erased = store.tables.erasures()
        self._groups = Stamped[GroupRecord](store.stamp)
        self.authenticator = Authenticator([], may_be_open=may_be_open)

    def refresh(self) -> None:
        """Read what has changed since the last refresh; this takes microseconds if nothing has.

        Raises:
            StoreError: The registry cannot be read.
        """
        store = self.store
        if (stamp := store.stamp()) == self._stamp:
            return
        with self._changing:
            tokens = store.tokens.all()
            # Once locked, the server never opens again, even if the registry loses its tokens.
            self._may_be_open = self._may_be_open and not tokens
            self.authenticator = Authenticator(tokens, may_be_open=self._may_be_open)
            self._erased.refresh()
            records = {(one.project, one.name): one for one in store.tables.all()}
            origins = {(one.project, one.name): one.created_at for one in store.groups.all()}
            held = {}
            for name, known in self._held.items():
                with suppress(SeeknalError):  # the next request for the table opens it, and reports the error
                    now = [origins.get((lookup.project, lookup.group)) for lookup in known.record.lookups]
                    same = records.get(name) == known.record and now == known.origins
                    if name in records:
                        held[name] = known if same else self._open(records[name])
            counts = Counter(name for _, name in records)
            self._projects = {name: project for project, name in records if counts[name] == 1}
            self._held = held
            # The stamp was read first, so a change made since then is seen by the next refresh.
            self._stamp = stamp

    def table(self, project: str | None, name: str) -> Held | None:
        """Return a table, or None if it is not held open. Without a project, return the only one of that name."""
        within = self._projects.get(name) if project is None else project
        return None if within is None else self._held.get((within, name))

    def open(self, project: str | None, name: str, scope: str | None = None) -> Held:
        """Open a table, even if it is open already, and hold it open.

        Args:
            project: The table's project. None: the only one that has a table of that name.
            name: The table's name.
            scope: The only project that the caller may see. None: all.

        Raises:
            Problem: There is no such table, or several projects have one.
        """
        with self._changing:
            record = _only("online table", project, name, self.store.tables.all, scope)
            held = self._open(record)
            self._held = {**self._held, (record.project, record.name): held}
        return held

    def known_group(self, label: str, request: Request) -> GroupRecord | None:
        """Return what `group` does if that was asked since the registry last changed, else None."""
        project, name = split_label("feature group", label, request.project)
        return self._groups.peek((project, name, request.scope_of_token))

    def group(self, label: str, request: Request) -> GroupRecord:
        """Return a group of the request's project, or of the one that its label names: "shop/spend".

        Without a project, return the only group of that name.

        Raises:
            Problem: There is no such group, or several projects have one.
        """
        project, name = split_label("feature group", label, request.project)
        scope = request.scope_of_token
        find = partial(_only, "feature group", project or scope, name, self.store.groups.all, scope)
        return self._groups.get((project, name, scope), find)

    def _open(self, record: OnlineTableRecord) -> Held:
        table = self.store.tables.open_as_registered(record, View(self._erased))
        return Held(record, table, [part.origin for part in table.parts])


def _only(kind: str, project: str | None, name: str, find: Callable[..., Sequence[T]], scope: str | None) -> T:
    """Return the only record of that name among those that the caller may see, or fail with the library's own message.

    Raises:
        Problem: There is no such record, or several projects have one.
    """
    within = scope if project is None else project
    # All names are ASCII, and the database rejects some other texts with an error of its own.
    may_exist = scope in {None, within} and f"{within}{name}".isascii()
    found = find(project=within, name=name) if may_exist else []
    if len(found) == 1:
        return found[0]
    if project is not None:
        check_name("project", project)
    check_name(kind, name)
    try:  # with the names in scope only: a suggestion must not reveal a name of another project
        return the_only(kind, name, project, find(project=scope), "any project")
    except DefinitionError as error:
        status = HTTPStatus.BAD_REQUEST if error.found else HTTPStatus.NOT_FOUND  # type: ignore[attr-defined]  # set by `the_only`
        raise Problem(status, str(error), DefinitionError.__name__) from None
