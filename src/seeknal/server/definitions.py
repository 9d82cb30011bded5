"""A worker's view of the home: its open tables and its tokens, read again when the registry has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from threading import Lock
from typing import TypeVar

from seeknal.errors import DefinitionError, SeeknalError, StoreError, notice
from seeknal.home.store import FeatureStore
from seeknal.names import check_name, split_label, split_version, the_only
from seeknal.registry import GroupRecord, OnlineTableRecord, ViewRecord
from seeknal.registry.finder import meant
from seeknal.registry.tokens import Authenticator
from seeknal.serve.parts import View
from seeknal.server.held import Held, hold
from seeknal.server.http import Problem, Request
from seeknal.system.stamped import Stamped

T = TypeVar("T", GroupRecord, OnlineTableRecord, ViewRecord)


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
        self._meant: Mapping[tuple[str | None, str], tuple[str, str]] = {}
        self._erased = store.tables.erasures()
        self._groups_by_name: Mapping[tuple[str, str], GroupRecord] = {}
        self._lacks: dict[OnlineTableRecord, DefinitionError | None] = {}
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
            groups = {(one.project, one.name): one for one in store.groups.all()}
            origins = {name: one.created_at for name, one in groups.items()}
            held = {}
            for name, known in self._held.items():
                with suppress(SeeknalError):  # the next request for the table opens it, and reports the error
                    now = [origins.get((lookup.project, lookup.group)) for lookup in known.record.lookups]
                    same = records.get(name) == known.record and now == known.origins
                    if name in records:
                        held[name] = known if same else self._open(records[name])
            self._lacks = self._lacking(records.values())
            self._meant = self._names()
            self._held, self._groups_by_name = held, groups
            # The stamp was read first, so a change made since then is seen by the next refresh.
            self._stamp = stamp

    @property
    def tables(self) -> Sequence[OnlineTableRecord]:
        """The registered tables, as of the last refresh."""
        return list(self._lacks)

    def faults(self, tables: Sequence[OnlineTableRecord]) -> Mapping[str, StoreError]:
        """Return why tables of one online store cannot be looked up, by label, as far as the registry is known."""
        return self.store.tables.faults(tables, self._groups_by_name, self._erased)

    def table(self, project: str | None, name: str) -> Held | None:
        """Return the table that a name means, or None if it is not held open. Without a project, there is only one of that name."""
        exact = self._meant.get((project, name))
        return None if exact is None else self._held.get(exact)

    def open(self, project: str | None, name: str, scope: str | None = None) -> Held:
        """Open a table, even if it is open already, and hold it open.

        Args:
            project: The table's project. None: the only one that has a table of that name.
            name: The table's name.
            scope: The only project that the caller may see. None: all.

        Raises:
            Problem: There is no such table, or several projects have one; or this process lacks the code of the view that it serves.
        """
        with self._changing:
            record = _only("online table", project, name, self._tables, scope)
            try:
                held = self._open(record)
            except DefinitionError as error:
                raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), DefinitionError.__name__) from None
            self._held = {**self._held, (record.project, record.name): held}
        return held

    def _tables(self, project: str | None = None, name: str | None = None) -> list[OnlineTableRecord]:
        """Return the tables that a name means, one of each project, or all without a name."""
        tables = self.store.tables.all(project=project)
        return tables if name is None else self._meant_by(tables, name)

    def view(self, label: str, request: Request) -> list[ViewRecord]:
        """Return the version of a view that a label names, and then all its versions, oldest first.

        Without a number, it is the newest that is served, or else the newest that is not retired.

        Raises:
            Problem: There is no such view or version, or several projects have one.
        """
        name, number = split_version(label)
        scope = request.scope_of_token

        def newest(project: str | None = None, name: str | None = None) -> list[ViewRecord]:
            every = self.store.views.all(project=project)
            return list({one.project: one for one in every if one.name == name}.values()) if name else every

        project = _only("feature view", request.project, name, newest, scope).project
        versions = self.store.views.versions(name, project=project)
        served = [one.view for one in self._tables(project, name)] if number is None else []
        if (wanted := next(iter(served), None) or number) is None:
            return [self.store.views.get(name, project=project), *versions]
        try:
            return [self.store.views.get(name, project=project, version=wanted), *versions]
        except DefinitionError as error:
            raise Problem(HTTPStatus.NOT_FOUND, str(error), DefinitionError.__name__) from None

    def served_views(self, scope: str | None) -> tuple[list[Held], list[str]]:
        """Return the served versions of views in a project, or in all, and the labels of those that a name without a number means."""
        tables = [one for one in self.store.tables.all(project=scope) if one.view is not None]
        held = []
        for record in tables:
            with suppress(SeeknalError, Problem):  # a request for it reports the error
                known = self._held.get((record.project, record.name))
                held.append(known or self.open(record.project, f"{split_version(record.name)[0]}@{record.view}"))
        names = {(one.project, split_version(one.name)[0]) for one in tables}
        newest = [one.label for project, name in sorted(names) for one in self._tables(project, name)]
        return [one for i, one in enumerate(held) if one not in held[:i]], newest

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

    def check_code(self) -> None:
        """Check that this process has the code of the views that are served; of a view with several versions, that of one of them.

        While changed code is rolled out, some processes have the code of a version, and some that of the next one. A version whose
        code is missing gives a notice.

        Raises:
            DefinitionError: It has the code of no version of a view.
        """
        for table, error in self._lacks.items():
            if error and all(self._lacks[one] for one in self._lacks if _view_of(one) == _view_of(table)):
                raise error
            if error:
                notice(str(error))

    def _lacking(self, tables: Iterable[OnlineTableRecord]) -> dict[OnlineTableRecord, DefinitionError | None]:
        """Return why this process cannot compute what each table serves, None if it can. Only tables that are new are looked at."""
        every = list(tables)
        new = [one for one in every if one not in self._lacks]
        found = self._lacks | (self.store.views.missing_code(new) if new else {})
        return {one: found.get(one) for one in every}

    def _meant_by(self, tables: Iterable[OnlineTableRecord], name: str) -> list[OnlineTableRecord]:
        """Return the tables that a name means, one of each project.

        A view without the number of a version means the newest version that is served and that this process has the code of.
        """
        own = list(tables)
        lacks = self._lacking(own) if split_version(name)[1] is None else dict.fromkeys(own)
        able = [one for one in own if not lacks[one]]
        return list({one.project: one for some in (own, able) for one in meant(some, name)}.values())

    def _open(self, record: OnlineTableRecord) -> Held:
        table = self.store.tables.open_as_registered(record, View(self._erased))
        return hold(record, table)

    def _names(self) -> dict[tuple[str | None, str], tuple[str, str]]:
        """Return which table each name means, by project and name, and by name alone if only one project has it."""
        by_view: dict[str, list[OnlineTableRecord]] = {}
        for one in self._lacks:
            by_view.setdefault(split_version(one.name)[0], []).append(one)
        found: dict[tuple[str | None, str], tuple[str, str]] = {}
        for view, some in by_view.items():
            for name in {view, *(one.name for one in some), *(f"{view}@{one.view}" for one in some if one.view)}:
                own = [(one.project, one.name) for one in self._meant_by(some, name)]
                found |= {(exact[0], name): exact for exact in own}
                if len(own) == 1:
                    found[None, name] = own[0]
        return found


def _view_of(table: OnlineTableRecord) -> tuple[str, str]:
    """Return project and name of the view that a table serves."""
    return table.project, split_version(table.name)[0]


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
    check_name(kind, split_version(name)[0])
    try:  # with the names in scope only: a suggestion must not reveal a name of another project
        return the_only(kind, name, project, find(project=scope), "any project")
    except DefinitionError as error:
        status = HTTPStatus.BAD_REQUEST if error.found else HTTPStatus.NOT_FOUND  # type: ignore[attr-defined]  # set by `the_only`
        raise Problem(status, str(error), DefinitionError.__name__) from None
