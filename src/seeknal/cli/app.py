"""The application: registers all commands, and turns errors into one line on stderr and an exit code."""

from __future__ import annotations

import signal
import sys
import warnings
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from seeknal import __version__
from seeknal.cli import backup, dataset, delete, doctor, explore, feast, manage, online, server, version, view
from seeknal.cli.render import printable, stderr
from seeknal.errors import SeeknalError, SeeknalWarning
from seeknal.system.interrupts import insistent

_FORMER = {
    "consolidate": "Pass several lookups to HistoricalFeaturesDuckDB.",
    "entity": "Write: seeknal list entities, or seeknal show entity NAME.",
    "run": "Seeknal runs no pipelines: write the features in a program of your own.",
    "validate": "Write: seeknal doctor.",
    "validate-features": "Check the frame before you write it; seeknal debug GROUP shows what is stored.",
}
"""Commands of the first Seeknal that no longer exist, and what to do instead."""


class _Commands(TyperGroup):
    # The types are Click's, which some releases of Typer contain and others import.
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in _FORMER:
            ctx.fail(f"There is no command {args[0]!r} any more. {_FORMER[args[0]]}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="seeknal",
    cls=_Commands,
    help="A feature store: training sets that never see the future, and the same values served online.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(version.app, name="version")
app.add_typer(explore.list_app, name="list")
app.add_typer(explore.show_app, name="show")
app.add_typer(delete.app, name="delete")
app.add_typer(dataset.app, name="dataset")
app.add_typer(view.app, name="view")
app.add_typer(server.token_app, name="token")
for command in (
    manage.init,
    explore.info,
    doctor.doctor,
    manage.demo,
    explore.debug,
    explore.explain,
    online.materialize,
    online.refresh,
    online.lookup,
    online.verify,
    server.serve,
    server.status,
    manage.optimize,
    manage.adopt,
    manage.clean,
    manage.erase,
    backup.backup,
    backup.restore,
    backup.move,
):
    app.command()(command)
app.command("migrate-registry")(backup.migrate_registry)
app.command("import-feast")(feast.import_feast)
app.command("delete-table")(delete.delete_table)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"seeknal {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Declare the options that belong to no command."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 for success, 1 for an error, which is printed once on stderr, 2 for wrong usage, 130 for Ctrl-C.
    """
    if "serve" in sys.argv[1:2]:
        # The server replaces its workers on SIGHUP. Until it listens to it, the default action would end the process.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a character that the encoding lacks is escaped
    warnings.simplefilter("always", SeeknalWarning)  # by default, Python prints only the first one of each line of code
    warnings.showwarning = _show_notice  # type: ignore[assignment]  # it ignores the other arguments
    pressed: list[int] = []
    try:
        with insistent() as pressed:
            app()
    except SeeknalError as error:
        _fail(str(error))
    except Exception as error:  # noqa: BLE001 - the outermost handler
        if pressed:  # a library turned the Ctrl-C into an error of its own
            sys.exit(_INTERRUPTED)
        _fail(
            f"Unexpected {type(error).__name__}: {error}. This is a bug in Seeknal; please report it with the command."
        )


_INTERRUPTED = 128 + signal.SIGINT


def _fail(message: str) -> None:
    stderr.print(f"[bold red]Error:[/] {escape(printable(message))}", soft_wrap=True)
    sys.exit(1)


def _show_notice(message: Warning | str, category: type[Warning], *_where: object) -> None:
    if issubclass(category, SeeknalWarning):
        stderr.print(f"[bold yellow]Notice:[/] {escape(printable(str(message)))}", soft_wrap=True)
