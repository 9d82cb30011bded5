"""Commands about what is online."""

from __future__ import annotations

from typing import Annotated

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format, Group, InProject, Keys, Table, read_keys
from seeknal.progress import working


def materialize(
    group: Group,
    start: Annotated[str, typer.Option("--start-date", help="First event time to load, such as 2024-01-31.")],
    end: Annotated[str | None, typer.Option("--end-date", help="Last event time to load; a date has its day.")] = None,
    version: Annotated[int | None, typer.Option("--version", "-v", help="Which version; the current one.")] = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Put the newest row of each entity of an interval online.

    The online table named after the group then answers from this version; other tables keep the
    version they were served with.
    """
    from seeknal import session
    from seeknal.times import Interval

    span = Interval.between(start, end)
    with working(f"Loading {group}"):
        loaded = session.store().load(group, project, span=span, version=version)
    render.record(
        {
            "feature_group": loaded.group,
            "version": loaded.version,
            "snapshot": loaded.snapshot,
            "interval": str(span),
            "changed": loaded.changed,
            "online": loaded.online,
            "seconds": round(loaded.seconds, 2),
        },
        form,
    )


def lookup(
    table: Table,
    keys: Keys,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Show the online features of one entity."""
    from seeknal import session

    online = session.store().online_table(table, project)
    answer = online.get_features([read_keys(online.key_fields, keys)], output="dicts")
    render.record(answer[0], form)
