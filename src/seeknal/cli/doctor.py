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
        # Without a home, there is nothing to check. Whether there is one in a database is the first check.
        store = session.store() if session.store().settings.registry else session.existing()
        findings = examine(store)
    render.rows([{"what": one.what, "fine": one.fine, "found": one.found} for one in findings], form)
    if not all(one.fine for one in findings):
        raise typer.Exit(1)
