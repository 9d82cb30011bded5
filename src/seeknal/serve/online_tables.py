"""The online tables: creating them, refreshing them, opening them for lookups, verifying them and deleting them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from seeknal.config import checked_store
from seeknal.define.feature_group import FeatureLookup, check_lookups, check_ttl
from seeknal.define.fill_null import FillNull
from seeknal.errors import DefinitionError, NotOnlineError, SeeknalError, StoreError, notice
from seeknal.load.ask import Ask
from seeknal.load.cutover import Move, Mover
from seeknal.load.feeds import cut_off, feeds, uses
from seeknal.load.loads import Loads
from seeknal.names import check_name, check_names, the_only
from seeknal.online import DEFAULT, State, Stores, shown
from seeknal.registry import GroupRecord, OnlineTableRecord, PinnedLookup, ViewRecord
from seeknal.registry.catalog import Catalog
from seeknal.registry.views import save_version
from seeknal.serve.faults import faults
from seeknal.serve.freshness import Freshness, freshness
from seeknal.serve.online_table import OnlineTable
from seeknal.serve.open_tables import Erasures, Opener, ServedTable
from seeknal.serve.parts import View
from seeknal.system.progress import OnProgress, no_progress
from seeknal.system.retry import retry_on_conflict
from seeknal.system.urls import has_password
from seeknal.values.arguments import check_flag, check_instant, check_number, check_progress, check_share
from seeknal.values.display import Shown
from seeknal.values.times import Interval, Moment, instant_or_none, microseconds, now

if TYPE_CHECKING:
    from seeknal.engine import Engine
    from seeknal.load.loading import Loaded
    from seeknal.registry.source import Source
    from seeknal.serve.answer_log import LogWriter
    from seeknal.serve.verification import Verified

_TRIES = 5
"""How often a table is compared that differs while others push."""


@dataclass(frozen=True)
class Refreshed(Shown):
    """The outcome of refreshing an online table.

    Args:
        table: Project and name of the table.
        groups: The load of each version of a group that feeds the table.
        cut_off: The reasons why groups no longer feed the table; see `seeknal.load.feeds`.
    """

    table: str
    groups: tuple[Loaded, ...]
    cut_off: tuple[str, ...] = ()

    @property
    def changed(self) -> int:
        """The number of entities, over all groups, whose row was put or removed."""
        return sum(one.changed for one in self.groups)

    def __str__(self) -> str:
        lines = [f"{self.table} refreshed", *map(str, self.groups), *(f"cut off: {reason}" for reason in self.cut_off)]
        return "\n  ".join(lines)


@dataclass(frozen=True)
class _Options:
    """How a table is served: its online store, its ttl in microseconds, the share of its answers that is logged, and how it is loaded."""

    target: str
    ttl: int | None
    log: float | None
    ask: Ask


class OnlineTables:
    """The online tables of a store.

    Args:
        catalog: The home's catalog.
        engine: Returns the engine that reads rows. It is called only when rows are read, as for a load.
        stores: The online stores.
        logs: Stores the answers that are logged.
    """

    def __init__(self, catalog: Catalog, engine: Callable[[], Engine], stores: Stores, logs: LogWriter) -> None:
        self._catalog = catalog
        self._registry = catalog.registry
        self._engine = engine
        self._stores = stores
        self._mover = Mover(catalog, engine, stores)
        self._loads = Loads(catalog, engine, stores)
        self._opener = Opener(catalog, stores, logs)
        self._logs = logs

    def all(self, *, project: str | None = None, name: str | None = None) -> list[OnlineTableRecord]:
        """Return the registered tables; only those of a project or of a name, if given."""
        return self._registry.tables(project, name)

    def get(self, name: str | OnlineTableRecord, *, project: str | None = None) -> OnlineTableRecord:
        """Return the registered table of a name; without a project, the only one. "shop/model" names project and table.

        "next_basket@2" names the table that serves version 2 of a feature view, and "next_basket" the one that serves the newest of its
        versions that are served. The record of a table stands for the table of exactly its name.

        Raises:
            DefinitionError: There is no such table, or several projects have one.
        """
        if not isinstance(name, OnlineTableRecord):
            return self._catalog.online_table(name, project)
        found = self._registry.tables(name.project, name.name)
        return the_only("online table", name.name, name.project, found or self.all(), str(self._catalog.storage))

    def of(self, record: GroupRecord) -> list[OnlineTableRecord]:
        """Return the registered tables that use a group."""
        return [table for table in self._registry.tables() if uses(table, record)]

    def open(self, name: str | OnlineTableRecord, *, project: str | None = None) -> ServedTable:
        """Open a table for lookups, for as long as it exists.

        Raises:
            DefinitionError: There is no such table, or several projects have one; or the code of a function of the feature view that it
                serves cannot be imported, or has changed since it was registered.
        """
        return ServedTable(self._opener, self.get(name, project=project))

    def open_as_registered(self, table: OnlineTableRecord, view: View | None = None) -> OnlineTable:
        """Open a table at the versions that its record names; see `Opener.open`."""
        return self._opener.open(table, view)

    def erasures(self) -> Erasures:
        """Return the times of the last erasures, for a caller that keeps tables open and refreshes the times itself."""
        return Erasures(self._registry)

    def serve(  # noqa: PLR0913 - all but the first have defaults
        self,
        lookups: Sequence[FeatureLookup],
        name: str | None = None,
        *,
        fills: Sequence[FillNull] = (),
        target: str | Path | None = None,
        ttl: timedelta | None = None,
        at: Moment | None = None,
        on_progress: OnProgress = no_progress,
        take_over: bool = False,
    ) -> ServedTable:
        """Create an online table of some features, and load it.

        The table keeps these features and their types. It follows each group to its new versions as long as they have
        the features. A lookup that names a version stays at it.

        Args:
            lookups: The features.
            name: The table's name. None: the name of the group, if there is only one.
            fills: Values in place of the nulls of features, which become the defaults of the view that the table serves.
            target: An online store other than the configured one: a folder, or the URL of Redis, without a password. The
                configured one counts as None, however it is spelled.
            ttl: How long stored values are valid, in place of the groups' own ttl. Windows end by themselves.
            at: The time that counts as now. None: the clock.
            on_progress: Called with the progress of the load.
            take_over: Whether this home takes ownership of rows of another home, or of a deleted group, in the store.

        Raises:
            DefinitionError: A group, feature or version does not exist, or an argument has the wrong form.
            StoreError: The online store cannot be written, or has rows of another home.
        """
        options = self._options(target, ttl, at, on_progress, take_over=take_over)
        sources = [self._catalog.source(lookup) for lookup in check_lookups(lookups)]
        if name is None and len(sources) > 1:
            raise DefinitionError('An online table of several groups needs a name: serve(name="...").')
        from seeknal.join import retrieval, viewed

        own = check_name("online table", sources[0].record.name if name is None else name)
        retrieval.check_names(sources, retrieval.keys_of(sources))
        retrieval.check_keys(sources)
        sources = [self._catalog.definitions.settled(source) for source in sources]
        content = viewed.plain_content(sources, fills)
        view = save_version(self._registry, sources[0].record.project, own, content, tells=False)
        return self._create(view, own, sources, options)

    def serve_view(  # noqa: PLR0913 - all but two have defaults
        self,
        view: ViewRecord,
        sources: Sequence[Source],
        *,
        target: str | Path | None = None,
        ttl: timedelta | None = None,
        log: float | None = None,
        at: Moment | None = None,
        on_progress: OnProgress = no_progress,
        take_over: bool = False,
    ) -> ServedTable:
        """Create the online table of a version of a feature view, and load it. Other versions that are served stay so.

        Args:
            view: The version.
            sources: The sources of its lookups, as `FeatureViews.sources` returns them.
            target: As in `serve`.
            ttl: As in `serve`.
            log: The share of the answers to log, from 0 to 1, with all rows of each. None: none.
            at: As in `serve`.
            on_progress: As in `serve`.
            take_over: As in `serve`.

        Raises:
            DefinitionError: The version was retired, the code of a function cannot be imported or has changed, or an argument has the
                wrong form.
            StoreError: The online store cannot be written, or has rows of another home.
        """
        if view.retired_at is not None:
            raise DefinitionError(f"{view.label} was retired. Register its definition again, which takes it up again.")
        view.content.loaded()  # before anything is loaded: code that is not what was registered cannot be served
        options = self._options(target, ttl, at, on_progress, take_over=take_over, log=log)
        return self._create(view, view.table, sources, options)

    def _options(
        self,
        target: str | Path | None,
        ttl: timedelta | None,
        at: Moment | None,
        on_progress: OnProgress,
        *,
        take_over: bool,
        log: float | None = None,
    ) -> _Options:
        check_ttl(ttl)
        check_progress(on_progress)
        ask = Ask((Interval(),), instant_or_none(at), on_progress, take_over=check_flag("take_over", take_over))
        span = None if ttl is None else microseconds(ttl)
        return _Options(self._checked_target(target), span, None if log is None else check_share("log", log), ask)

    def _create(self, view: ViewRecord, name: str, sources: Sequence[Source], options: _Options) -> ServedTable:
        """Create or replace the table of a name that serves a version of a view."""
        if options.ttl is not None and all(source.record.windowed for source in sources):
            raise DefinitionError(
                "ttl is for values that are stored, and these are computed from events at each moment. Leave it out."
            )
        lookups = zip(sources, view.content.lookups, strict=True)
        table = OnlineTableRecord(
            project=view.project,
            name=name,
            lookups=tuple(source.pin(pinned=known.pinned) for source, known in lookups),
            ttl=options.ttl,
            target=options.target,
            created_at=now(),
            view=view.number,
            log=options.log,
        )
        if table.log:
            self._register_log(view, table)
        with self._catalog.lifetimes.using(*(source.record for source in sources)):
            before = retry_on_conflict(table.label, lambda: self._serve(sources, table, options.ask))
        if before and not self._goes_on(before, table):
            notice(f"Online table {table.label!r} was replaced. It now has {table}. It had {before}.")
        return ServedTable(self._opener, table)

    def _register_log(self, view: ViewRecord, table: OnlineTableRecord) -> None:
        """Register the event source of a view's log, before anything is loaded: its name or a column of it may be taken."""
        from seeknal.serve.views import ServedView

        served = ServedView(table, self._opener.parts(table), view.content)
        self._logs.register(served.layout(view).group)

    def _checked_target(self, target: str | Path | None) -> str:
        """Return the name under which the registry lists an online store: DEFAULT if it is the default one, however spelled."""
        if target is None:
            return DEFAULT
        if not isinstance(target, str | Path):
            raise DefinitionError(
                f"target={target!r} is neither a folder nor a URL of Redis. Write target='folder', for example."
            )
        place = checked_store(str(target), "target")
        if has_password(place):
            raise DefinitionError(
                f"target={shown(place)!r} would put a password into the registry. Set online_store in seeknal.toml, or "
                "SEEKNAL_ONLINE_STORE, to that URL, and leave target out."
            )
        return DEFAULT if self._stores.same(place, DEFAULT) else place

    def _serve(self, sources: Sequence[Source], table: OnlineTableRecord, ask: Ask) -> OnlineTableRecord | None:
        """Load a table, and register it in place of the table of the same name. Return that table; None if there was none."""
        known = next(iter(self._registry.tables(table.project, table.name)), None)
        # The rows are loaded before the table is registered, so that no reader opens a table without rows.
        for source in sources:
            state = self._catalog.state_of(source.record)
            self._mover.bring(state, source.version.number, ask, own=Move(table, table), targets=[table.target])
        self._mover.settle([Move(known, table)])
        for lookup in known.lookups if known else ():
            if known and self._registry.group(lookup.project, lookup.group):
                self._mover.sweep(self._catalog.state(lookup.group, lookup.project), [known.target])
        return known

    def _goes_on(self, before: OnlineTableRecord, table: OnlineTableRecord) -> bool:
        """Return whether a table that was served again is the same as before, apart from the versions that it follows."""
        old = feeds(self._catalog, before)
        goals = tuple(replace(one.goal, whole=False) for one in old)
        shared = {name: getattr(table, name) for name in ("target", "created_at", "view", "log")}
        same = replace(before, lookups=goals, **shared) == table
        return same and self._stores.same(before.target, table.target) and not any(one.cut_off for one in old)

    def refresh(
        self,
        names: Sequence[str | OnlineTableRecord] | None = None,
        *,
        project: str | None = None,
        full: bool = False,
        at: Moment | None = None,
        on_progress: OnProgress = no_progress,
        take_over: bool = False,
    ) -> list[Refreshed]:
        """Load what changed in the groups of online tables, in the intervals that were requested before.

        A lookup whose group no longer feeds it stays at its version. If one table cannot be refreshed, the others still are.

        Args:
            names: The tables. None: all tables, of the project if one is given.
            project: Their project.
            full: Rewrite all rows of all time, whatever is online, so that `verify` finds no difference.
            at: The time that counts as now. None: the clock.
            on_progress: Called with each step.
            take_over: Take ownership of rows that another home loaded into an online store that both homes use.

        Raises:
            DefinitionError: There is no such table, or several projects have one.
            StoreError: Some tables could not be refreshed. If only one table is given, its own error is raised instead.
        """
        check_progress(on_progress)
        flags = check_flag("full", full), check_flag("take_over", take_over)
        ask = Ask((), instant_or_none(at), on_progress, *flags)
        records = isinstance(names, list) and all(isinstance(one, OnlineTableRecord) for one in names)
        given = names if names is None or records else check_names("names", names)
        tables = self.all(project=project) if given is None else [self.get(one, project=project) for one in given]
        done, failed = [], []
        for table in tables:
            try:
                done.append(self._refresh(table, ask))
            except SeeknalError as error:
                if len(tables) == 1:
                    raise
                failed.append(f"{table.label}: {error}")
        if failed:
            raise StoreError(f"Of {len(tables)} online tables these could not be refreshed. {' '.join(failed)}")
        return done

    def _refresh(self, table: OnlineTableRecord, ask: Ask) -> Refreshed:
        def step(record: GroupRecord, number: int) -> Loaded:
            state = self._catalog.state_of(record)
            # A load covers all intervals requested before. To request the last of them again adds nothing to them.
            known = [load.interval for load in self._mover.among(state.loads, number, table.target)]
            spans = (Interval(),) if ask.full else tuple(known[-1:])
            return self._mover.bring(state, number, replace(ask, spans=spans), targets=[table.target])[0]

        # Several lookups can be of one version, which is loaded once.
        wanted = {(one.record.id, one.goal.version): one.record for one in feeds(self._catalog, table)}
        with self._catalog.lifetimes.using(*wanted.values()):
            done = [
                retry_on_conflict(record.label, partial(step, record, number)) for (_, number), record in wanted.items()
            ]
        return Refreshed(table.label, tuple(done), self.cut_off(table))

    def verify(
        self,
        name: str | OnlineTableRecord,
        *,
        project: str | None = None,
        sample: int | None = None,
        at: Moment | None = None,
        on_progress: OnProgress = no_progress,
    ) -> Verified:
        """Compare a table's values with the offline join as of a moment; see `seeknal.serve.verification`.

        If rows differ as of now although the store says that they are up to date, the next load rewrites all of them.

        Args:
            name: The table.
            project: Its project.
            sample: Number of entities of each group to compare, chosen at random. None: all of them.
            at: The moment. None: now.
            on_progress: Called with each step.

        Raises:
            DefinitionError: There is no such table, or `sample` is not a whole number of at least 1.
        """
        check_progress(on_progress)
        size = None if sample is None else check_number("sample", sample, 100)
        return self._verify(self.get(name, project=project), instant_or_none(at), size, on_progress)

    def _verify(
        self, table: OnlineTableRecord, at: int | None, sample: int | None, on_progress: OnProgress
    ) -> Verified:
        try:
            verified, doubts = self._compared(table, at, sample, on_progress)
        except NotOnlineError:
            if not (found := self._registry.tables(table.project, table.name)) or found[0] == table:
                raise
            return self._verify(found[0], at, sample, on_progress)  # the table moved to other rows meanwhile
        for lookup, seen in doubts if at is None else ():
            try:
                self._mover.doubt(lookup.space, table.target, seen)
            except StoreError as error:
                notice(f"Only `seeknal refresh --full {table.label}` mends what differs: {error}")
        return verified

    def _compared(
        self, table: OnlineTableRecord, at: int | None, sample: int | None, on_progress: OnProgress
    ) -> tuple[Verified, list[tuple[PinnedLookup, State]]]:
        """Compare a table, and return also the lookups whose rows do not match their state."""
        from seeknal.serve import verification

        catalog = self._catalog
        doubts: list[tuple[PinnedLookup, State]] = []
        for _ in range(_TRIES):
            doubts.clear()
            # First, because rows that are loaded after the moment hide those that were valid then.
            for name, project in {(lookup.group, lookup.project) for lookup in table.lookups}:
                catalog.gate.commit(catalog.origin(catalog.group(name, project)))
            token, moment = catalog.pushes.token(), now() if at is None else at
            opened = self.open_as_registered(table)
            verified = verification.verify(catalog, self._engine(), opened, moment, sample, on_progress, doubts.append)
            if verified.equal or catalog.pushes.token() == token:  # else one side may lack what was pushed in between
                break
        return verified, doubts

    def freshness(self, table: OnlineTableRecord, at: Moment | int) -> Freshness:
        """Return the freshness of a table at a moment, or at microseconds since 1970; see `seeknal.serve.freshness`.

        Raises:
            DefinitionError: The table is not the record of one, such as `get` returns, or its groups are gone.
        """
        if not isinstance(table, OnlineTableRecord):
            raise DefinitionError(
                f"table={table!r} is not the record of an online table. Pass store.tables.get(NAME), for example."
            )
        return freshness(self._catalog, self._loads, table, check_instant("at", at))

    def cut_off(self, table: OnlineTableRecord) -> tuple[str, ...]:
        """Return the reasons why groups no longer feed a table; empty if all do."""
        return cut_off(self._catalog, table)

    def faults(
        self,
        tables: Sequence[OnlineTableRecord],
        groups: Mapping[tuple[str, str], GroupRecord],
        erased: Mapping[int, int],
    ) -> dict[str, StoreError]:
        """Return why tables cannot be looked up, by label; see `seeknal.serve.faults`."""
        return faults(self._registry, self._stores, self._loads, tables, groups, erased)

    def flush_logs(self) -> None:
        """Write the answers that this process has logged for views of this home; see `seeknal.serve.answer_log.flush_of`."""
        from seeknal.serve.answer_log import flush_of

        flush_of(self._catalog.storage.address)

    def close(self) -> None:
        """Write the answers that this process has logged. What cannot be written is told."""
        try:
            self.flush_logs()
        except SeeknalError as error:
            notice(f"Some answers are not logged yet: {error}")

    def delete(self, name: str | OnlineTableRecord, *, project: str | None = None) -> None:
        """Delete an online table, and the rows that no other table uses. The table goes last, so that a retry can finish.

        Raises:
            DefinitionError: There is no such table, or several projects have one.
        """
        with self._catalog.deleting():
            table = self.get(name, project=project)
            with self._mover.hold():
                others = [one for one in self._registry.tables() if one.label != table.label]
                for lookup in table.lookups:
                    if not self._mover.users(others, lookup.space, table.target):
                        record = self._catalog.group(lookup.group, lookup.project)
                        self._mover.remove(record, lookup.version, table.target)
                self._registry.delete_table(table.project, table.name)
            self._mover.nudge(table)
