"""Commands that run the server, manage its tokens, and show how fresh the online tables are."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format, InProject, Modules, Yes

if TYPE_CHECKING:
    from seeknal.config import Settings
    from seeknal.registry import TokenRecord

token_app = typer.Typer(no_args_is_help=True, help="Create, list and revoke the access tokens of the server.")
_NAME = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.")]
_HOST = Annotated[
    str,
    typer.Option(envvar="SEEKNAL_HOST", help="Address to listen on; one that other machines can reach needs a token."),
]
_DRAIN = Annotated[
    int, typer.Option(min=0, max=86_400, help="Seconds to go on after SIGTERM, not ready, so that clients leave.")
]


def serve(  # noqa: PLR0913, PLR0917 - a command has one parameter per option
    host: _HOST = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="SEEKNAL_PORT", min=0, max=65535, help="Port; 0 picks a free one.")
    ] = 6789,
    workers: Annotated[int, typer.Option(envvar="SEEKNAL_WORKERS", min=1, max=1000, help="Worker processes.")] = 1,
    certificate: Annotated[
        Path | None, typer.Option(parser=Path, help="PEM file with the TLS certificate and its chain.")
    ] = None,
    key: Annotated[Path | None, typer.Option(parser=Path, help="PEM file with the certificate's private key.")] = None,
    max_keys: Annotated[int, typer.Option(min=1, help="Most entities per request.")] = 1000,
    max_body: Annotated[int, typer.Option(min=1, help="Most bytes per request.")] = 8 * 2**20,
    max_spine: Annotated[int, typer.Option(min=1, help="Most bytes per spine.")] = 10 * 2**30,
    max_spine_rows: Annotated[int, typer.Option(min=1, help="Most rows per spine.")] = 200_000_000,
    max_requests: Annotated[int, typer.Option(min=1, help="Most concurrent requests, in each worker.")] = 500,
    max_jobs: Annotated[int, typer.Option(min=1, help="Most concurrent pushes, and joins, in each worker.")] = 4,
    max_connections: Annotated[int, typer.Option(min=1, help="Most connections, in each worker.")] = 1000,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds that a request may wait for bytes or a store.")
    ] = 10,
    drain: _DRAIN = 0,
    grace: Annotated[
        int,
        typer.Option(min=1, max=86_400, help="Seconds that requests in flight have to finish when the server stops."),
    ] = 30,
    access_log: Annotated[bool, typer.Option(help="Write a line to stdout for each request.")] = True,
    module: Modules = None,
    otel: Annotated[bool, typer.Option("--otel", help="Send spans to OpenTelemetry; configured by OTEL_*.")] = False,
) -> None:
    """Serve online features, pushes and training data over HTTP. GET / describes the API."""
    from seeknal.errors import DefinitionError
    from seeknal.home import session
    from seeknal.system.extras import how_to_install

    try:
        from seeknal.server.options import Limits, Options
        from seeknal.server.run import serve as run
        from seeknal.server.waiting import once_there
    except ImportError as error:
        raise DefinitionError(f"The server needs {error.name}. {how_to_install('server')}") from None
    if isnan(timeout):  # NaN passes the check of the range
        raise typer.BadParameter("It is not a number.", param_hint="--timeout")
    limits = Limits(
        keys=max_keys,
        body=max_body,
        spine=max_spine,
        spine_rows=max_spine_rows,
        time=timedelta(seconds=timeout),
        requests=max_requests,
        jobs=max_jobs,
        connections=max_connections,
    )
    options = Options(host, port, workers, limits, access_log, certificate, key, drain, grace, telemetry=otel)
    store = once_there(session.existing)
    run(store, options, _settings(store.settings, workers, module or []))


def _settings(given: Settings, workers: int, modules: list[str]) -> Settings:
    """Return the settings of each worker: all of them together get half of the machine's memory, unless a setting says how much."""
    from seeknal.config import checked_modules

    every = (*given.modules, *checked_modules(modules, "--module"))
    return replace(given, memory_limit=given.memory_limit or f"{50 // workers or 1}%", modules=every)


def status(
    table: Annotated[str | None, typer.Argument(metavar="[TABLE]", help="The online table; by default all.")] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="How old the newest event may be, such as 90m, 6h or 2d; by default the setting `freshness`."
        ),
    ] = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Show how fresh each online table is.

    Exits with 1 if one is stale (its newest event is older than the target) or cut off (its group no longer has a feature of it).
    """
    from seeknal.errors import StoreError
    from seeknal.home import session
    from seeknal.serve.freshness import Freshness
    from seeknal.values.times import now, span_of

    wanted = None if target is None else span_of(target)
    if target is not None and wanted is None:
        raise typer.BadParameter(
            f"{target!r} is not a duration. Write 90m, 6h or 2d, for example.", param_hint="--target"
        )
    store, at = session.existing(project), now()
    allowed = store.settings.freshness if wanted is None else wanted
    tables = store.tables.all(project=project) if table is None else [store.tables.get(table, project=project)]
    online, found = store.overview().tables, []
    for one in tables:
        try:
            found.append(online.freshness(one, at))
        except StoreError as error:  # the other tables are still shown
            found.append(Freshness(one.project, one.name, None, None, is_behind=True, cut_off=(str(error),)))
    stale = [allowed is not None and one.is_stale(at, allowed) for one in found]
    render.rows(
        [
            {
                "online_table": one.label,
                "newest_event": render.when(one.newest),
                "age": _shown(one.age(at)),
                "target": _shown(allowed),
                "stale": None if allowed is None else is_stale,
                "loaded_at": render.when(one.loaded_at),
                "behind": one.is_behind,
                "pinned": list(one.pinned),
                "cut_off": list(one.cut_off),
            }
            for one, is_stale in zip(found, stale, strict=True)
        ],
        form,
        empty="No online tables yet.",
    )
    if any(stale) or any(one.cut_off for one in found):
        raise typer.Exit(1)


def _shown(interval: timedelta | None) -> str | None:
    return None if interval is None else str(timedelta(seconds=round(interval.total_seconds())))


@token_app.command("create")
def create(
    name: _NAME,
    project: Annotated[str, typer.Option("--project", "-p", help='The project it gives access to; "*" for all.')],
    right: Annotated[list[str], typer.Option("--right", "-r", help="read, push or admin; repeatable.")],
    new_project: Annotated[bool, typer.Option("--new-project", help="Accept a project that is still empty.")] = False,
) -> None:
    """Create a token, and print it. Only its hash is stored: it cannot be shown again."""
    from seeknal.errors import notice
    from seeknal.home import session

    tokens = (session.store() if new_project else session.existing()).tokens
    is_first = not tokens.all()
    typer.echo(tokens.create(name, project, right, new_project=new_project))
    if is_first:
        notice("This is the first token: from now on, every request to this home's server needs one.")


@token_app.command("list")
def list_tokens(form: AsFormat = Format.table) -> None:
    """List all tokens that were ever created."""
    from seeknal.cli.explore import listed

    rows = listed(None, lambda store: [_token_line(token) for token in store.tokens.all()])
    render.rows(
        rows, form, empty="No tokens yet. Create one: seeknal token create NAME --project PROJECT --right read."
    )


def _token_line(token: TokenRecord) -> dict[str, Any]:
    return {
        "name": token.name,
        "project": token.project,
        "rights": ", ".join(token.rights),
        "created_at": render.when(token.created_at),
        "revoked_at": None if token.revoked_at is None else render.when(token.revoked_at),
    }


@token_app.command("show")
def show_token(name: _NAME, form: AsFormat = Format.table) -> None:
    """Show a token: its project and its rights. The token itself cannot be shown again."""
    from seeknal.home import session

    render.record(_token_line(session.existing().tokens.get(name)), form)


@token_app.command("revoke")
def revoke(name: _NAME) -> None:
    """Revoke a token. A running server rejects it within a second."""
    from seeknal.home import session

    session.existing().tokens.revoke(name)
    typer.echo(f"Token {name!r} is revoked.")


def delete_token(name: _NAME, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Revoke a token. Its name cannot be used again."""
    from seeknal.home import session

    tokens = session.existing().tokens
    token = tokens.get(name)
    render.confirm(f"Revoke token {token.name!r} of project {token.project!r}?", yes)
    tokens.revoke(name)
    render.record({"revoked": token.name}, form)
