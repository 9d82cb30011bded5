"""Commands that back up a home, restore it, and move it to shared services."""

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

_ENDING_SIGNALS = signal.SIGTERM, signal.SIGHUP


def backup(
    place: Annotated[
        Path, typer.Argument(metavar="DEST", parser=Path, help="The folder to create; it must not exist yet.")
    ],
    form: AsFormat = Format.table,
) -> None:
    """Copy the whole home, as of one moment, to a new folder. The home can stay in use meanwhile."""
    from seeknal.home import session
    from seeknal.home.backup import backup

    with _exiting_on_signals(), working("Backing up") as on_progress:
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
    source: Annotated[Path, typer.Argument(metavar="SOURCE", parser=Path, help="The folder of the backup.")],
    load_shared: Annotated[
        bool,
        typer.Option("--load-shared", help="Also load online rows in Redis and other folders, over what is there."),
    ] = False,
    form: AsFormat = Format.table,
) -> None:
    """Create the home from a backup, and reload the online rows in its own folder.

    The home must be empty or not exist yet.
    Online rows in Redis or in another folder are left as they are, since the home that was backed up may still use them.
    With --load-shared, they are loaded too.
    """
    from seeknal.home import session
    from seeknal.home.backup import restore

    with _exiting_on_signals(), working("Restoring") as on_progress:
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


def migrate_registry(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="The home whose registry to copy, or the URL of its database.")
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="The home or the URL to copy it to.")],
    form: AsFormat = Format.table,
) -> None:
    """Copy a registry between a file in a home and PostgreSQL, compare all rows, and say how to switch.

    Let no process write to the store meanwhile: a change after the copy is not in it.
    A target that has other content is left as it is, so the command can be interrupted and run again.
    """
    from seeknal import config
    from seeknal.home.migration import migrate_registry

    with _exiting_on_signals():
        done = migrate_registry(source, target, storage=config.load().storage)
    render.record(
        {
            "from": done.source,
            "to": done.target,
            "rows": sum(done.rows.values()),
            "sha256": done.sha256,
            "to_switch": done.switch,
        },
        form,
    )


def move(
    storage: Annotated[
        str | None, typer.Option(help="The object store for tables and training sets, such as s3://BUCKET/PREFIX.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help="The database for the registry, such as postgresql://USER@HOST/DATABASE.")
    ] = None,
    form: AsFormat = Format.table,
) -> None:
    """Move the home to shared services: its tables to an object store, its registry to PostgreSQL, or both.

    The home can stay in use until the last step. Every file is read back and compared, and so is every row of the registry.
    An interrupted move goes on when it is run again.
    """
    from seeknal import config
    from seeknal.home.move import move

    with _exiting_on_signals(), working("Moving") as on_progress:
        done = move(config.load(), storage=storage, registry=registry, on_progress=on_progress)
    render.record(
        {
            "home": str(done.home),
            "files": done.files,
            "bytes": done.size,
            "rows_of_the_registry": done.rows,
            "old_files": str(done.kept) if done.kept else None,
        }
        | ({} if form is Format.table else {"seeknal_toml": list(done.settings)}),
        form,
    )
    if form is Format.table:
        render.note("\n".join(["", "Write into seeknal.toml, and restart what uses the home:", "", *done.settings]))


def _not_loaded(done: Restored) -> list[dict[str, str]]:
    return [
        {"online_table": one.table, "place": one.place, "load_with": " && ".join(one.commands)}
        for one in done.elsewhere
    ]


@contextmanager
def _exiting_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that a backup or restore in progress removes its partial folder."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    # A signal that is ignored stays ignored: nohup relies on that for SIGHUP.
    handled = [number for number in _ENDING_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
