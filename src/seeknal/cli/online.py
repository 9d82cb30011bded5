"""Commands that load, look up and verify online tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seeknal.cli import render
from seeknal.cli.options import (
    AsFormat,
    Format,
    Group,
    InProject,
    Keys,
    Modules,
    TableOrView,
    import_modules,
    read_row,
)
from seeknal.system.progress import working

if TYPE_CHECKING:
    from seeknal.home.store import FeatureStore
    from seeknal.registry import ViewRecord
    from seeknal.serve.verification import Verified


def materialize(
    group: Group,
    start: Annotated[
        str | None,
        typer.Option("--start-date", "-s", help="First event time to load, such as 2024-01-31; by default all."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--end-date", "-e", help="Last event time to load; a date includes its day.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", "-v", help="The version; by default the current one.")
    ] = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Load the newest row of each entity online, from an interval or from all time.

    Tables that follow the group are refreshed.
    The online table named after the group is created if there is none, with all features of this version.
    With --version, it stays at that version.
    """
    from seeknal.home import session
    from seeknal.values.times import Interval

    interval = Interval.between(start, end)
    with working(f"Loading {group}") as on_progress:
        loaded = session.existing().groups.load(
            group, project=project, interval=interval, version=version, on_progress=on_progress
        )
    render.record(
        {
            "feature_group": loaded.group,
            "version": loaded.version,
            "snapshot": loaded.snapshot,
            "interval": str(interval),
            "rows": loaded.changed,
            "online": loaded.online,
            "seconds": round(loaded.seconds, 2),
        },
        form,
    )


def refresh(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE...]", help="The online tables; by default all.")
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Rewrite all rows of all time, whatever is online; then `verify` finds no difference."
        ),
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Take over rows that another home loaded into a store that both use."),
    ] = False,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Load what changed in the groups of online tables since the last load. Creates no table.

    Exits with 1 if a table is cut off: its group no longer has a feature of it, or has it in another type.
    """
    from seeknal.home import session

    store = session.existing(project)
    with working("Refreshing") as on_progress:
        done = store.tables.refresh(
            tables or None, project=project, full=full, on_progress=on_progress, take_over=take_over
        )
    render.rows(
        [
            {
                "online_table": one.table,
                "feature_group": loaded.group,
                "version": loaded.version,
                "rows": loaded.changed,
                "online": loaded.online,
                "seconds": round(loaded.seconds, 2),
                "cut_off": list(one.cut_off),
            }
            for one in done
            for loaded in one.groups
        ],
        form,
        empty="No online tables yet.",
    )
    if any(one.cut_off for one in done):
        raise typer.Exit(1)


def lookup(
    table: TableOrView,
    keys: Keys,
    module: Modules = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Show the online features of one entity and, for each group, whether its row was found, and its event time.

    The request values of a feature view are given like keys, and what its functions compute of them is shown, too.
    """
    from seeknal.home import session

    store = session.existing()
    record = store.tables.get(table, project=project)
    _import_functions(store, store.views.of(record), module)
    online = store.tables.open(record)
    row = read_row([*online.key_fields, *online.request_fields], keys)
    render.record(online.get_features([row], output="dicts", with_status=True)[0], form)


def _import_functions(store: FeatureStore, view: ViewRecord | None, modules: list[str] | None) -> None:
    """Import the modules that a command names and, if a view has functions, those of the settings, too.

    A table without functions can be used even if a module of the settings cannot be imported.
    """
    if modules or (view and view.content.functions):
        import_modules(store, modules)


def verify(
    table: TableOrView,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Compare this many entities of each group, chosen at random.")
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Recompute the logged answers of a feature view from history instead.")
    ] = False,
    newest: Annotated[int | None, typer.Option("--newest", min=1, help="Of the log, only this many answers.")] = None,
    module: Modules = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Prove that an online table or a feature view returns what a training set as of now contains.

    Exits with 1 if any value differs, or if the table is cut off: its group no longer has a feature of it.
    """
    from seeknal.home import session

    if log and sample is not None:
        raise typer.BadParameter("It chooses among stored entities. With --log, write --newest.", param_hint="--sample")
    if newest is not None and not log:
        raise typer.BadParameter("It chooses among logged answers. Add --log.", param_hint="--newest")
    store = session.existing()
    with working(f"Verifying {table}") as on_progress:
        if log:
            view = store.views.served(table, project=project)
            _import_functions(store, view, module)
            found = store.views.verify_log(view, newest or True, on_progress)
        else:
            record = store.tables.get(table, project=project)
            _import_functions(store, store.views.of(record), module)
            found = store.views.verify(record, sample, on_progress)
    _show(found, form, what="log_of" if log else "online_table", rows="answers" if log else "entities")
    if not found.equal:
        raise typer.Exit(1)


def _show(found: Verified, form: Format, *, what: str, rows: str) -> None:
    render.record(
        {
            what: found.table,
            "at": render.when(found.at),
            rows: found.entities,
            "values": found.values,
            "different": found.different,
            "cut_off": list(found.cut_off),
            "not_compared": list(found.not_compared),
            "first_differences": [
                {
                    "group": one.group,
                    **({} if one.at is None else {"answered_at": render.when(one.at)}),
                    "keys": render.keys(one.keys),
                    "feature": one.feature,
                    "online": one.online,
                    "offline": one.offline,
                    "cause": one.cause,
                }
                for one in found.differences
            ],
        },
        form,
    )
