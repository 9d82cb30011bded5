"""The command that checks the health of a home."""

from __future__ import annotations

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format
from seeknal.system.progress import working


def doctor(form: AsFormat = Format.table) -> None:
    """Look whether all is well: versions, room, the join, every table. Exits with 1 if something is not."""
    from seeknal.home import session
    from seeknal.home.doctor import examine

    with working("Looking"):
        findings = examine(session.existing())
    render.rows([{"what": one.what, "fine": one.fine, "found": one.found} for one in findings], form)
    if not all(one.fine for one in findings):
        raise typer.Exit(1)
