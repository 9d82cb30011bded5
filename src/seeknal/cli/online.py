"""Commands that load, look up and verify online tables."""

from __future__ import annotations

from typing import Annotated

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format, Group, InProject, Keys, Table, read_keys
from seeknal.system.progress import working


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
    table: Table,
    keys: Keys,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Show the online features of one entity and, for each group, whether its row was found, and its event time."""
    from seeknal.home import session

    online = session.existing().tables.open(table, project=project)
    answer = online.get_features(
        [read_keys(f"Online table {online.record.name!r}", online.key_fields, keys)], output="dicts", with_status=True
    )
    render.record(answer[0], form)


def verify(
    table: Table,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="Compare this many entities of each group, chosen at random.")
    ] = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Prove that an online table returns what a training set as of now contains.

    Exits with 1 if any value differs, or if the table is cut off: its group no longer has a feature of it.
    """
    from seeknal.home import session

    with working(f"Verifying {table}") as on_progress:
        found = session.existing().tables.verify(table, project=project, sample=sample, on_progress=on_progress)
    render.record(
        {
            "online_table": found.table,
            "at": render.when(found.at),
            "entities": found.entities,
            "values": found.values,
            "different": found.different,
            "cut_off": list(found.cut_off),
            "first_differences": [
                {
                    "group": one.group,
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
    if not found.equal:
        raise typer.Exit(1)
