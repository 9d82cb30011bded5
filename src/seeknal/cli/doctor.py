"""The command that checks the health of a home."""

from __future__ import annotations

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format
from seeknal.system.progress import working


def doctor(form: AsFormat = Format.table) -> None:
    """Check the home: versions, disk space, the join, every group and table. Exits with 1 if a check fails."""
    from seeknal.home import session
    from seeknal.home.doctor import examine

    with working("Checking"):
        findings = examine(session.existing())
    render.rows([{"what": one.what, "fine": one.fine, "found": one.found} for one in findings], form)
    if not all(one.fine for one in findings):
        raise typer.Exit(1)
