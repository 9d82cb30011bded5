"""Commands that back up a home and restore it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format
from seeknal.system.progress import working

if TYPE_CHECKING:
    from seeknal.home.backup import Restored

_ENDING = signal.SIGTERM, signal.SIGHUP


def backup(
    place: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to make; it must not be there yet.")],
    form: AsFormat = Format.table,
) -> None:
    """Copy the whole home, as it is at one moment, to a new folder, while it is in use."""
    from seeknal.home import session
    from seeknal.home.backup import backup

    with _tidily(), working("Backing up") as on_progress:
        done = backup(session.store(), place, on_progress=on_progress)
    render.record(
        {
            "backup": str(done.place),
            "at": render.when(done.at),
            "feature_groups": done.groups,
            "online_tables": done.tables,
            "training_sets": done.training_sets,
            "files": done.files,
            "bytes": done.size,
            "seconds": round(done.seconds, 2),
        },
        form,
    )


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The folder of the backup.")],
    load_shared: Annotated[
        bool, typer.Option("--load-shared", help="Load online rows in Redis and other folders too, over what is there.")
    ] = False,
    form: AsFormat = Format.table,
) -> None:
    """Make the home from a backup. What is online in its own folder is loaded again.

    The home must be empty or not there yet. Online rows in Redis or in another folder are left as they are, since the
    home that was backed up may still use them, unless --load-shared is given.
    """
    from seeknal.home import session
    from seeknal.home.backup import restore

    with _tidily(), working("Restoring") as on_progress:
        done = restore(source, session.store(), load_shared=load_shared, on_progress=on_progress)
    render.record(
        {
            "home": str(done.home),
            "as_of": render.when(done.at),
            "feature_groups": done.groups,
            "training_sets": done.training_sets,
            "tables_online": list(done.loaded),
            "seconds": round(done.seconds, 2),
        }
        | ({"not_loaded": _not_loaded(done)} if done.elsewhere else {}),
        form,
    )


def _not_loaded(done: Restored) -> list[dict[str, str]]:
    return [
        {"online_table": one.table, "place": one.place, "load_with": " && ".join(one.commands)}
        for one in done.elsewhere
    ]


@contextmanager
def _tidily() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that a backup or restore in progress removes what it made."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    heeded = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # nohup ignores SIGHUP
    before = {number: signal.signal(number, end) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
