"""Commands for saved training sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format, InProject, OfProject, Yes
from seeknal.errors import StoreError
from seeknal.system.folders import named
from seeknal.system.progress import working

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.registry import TrainingSetRecord

app = typer.Typer(help="Manage saved training sets, which can be reproduced.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the training set.")]


@app.command("list")
def list_datasets(project: OfProject = None, form: AsFormat = Format.table) -> None:
    """List the saved training sets."""
    from seeknal.cli.explore import listed

    records = listed(project, lambda store: [line(one) for one in store.training_sets.all(project=project)])
    render.rows(records, form, empty="No training sets yet: HistoricalFeaturesDuckDB(...).save(NAME) keeps one.")


def line(one: TrainingSetRecord) -> dict[str, Any]:
    """Return a training set as one record of a list."""
    return {
        "project": one.project,
        "training_set": one.name,
        "rows": one.rows,
        "features": sum(len(pin.features) for pin in one.pins),
        "created": render.when(one.created_at),
        "rows_kept": one.has_rows,
    }


@app.command("show")
def show_dataset(name: Name, project: InProject = None, form: AsFormat = Format.table) -> None:
    """Show a training set: the request, the snapshots that it read, and the hash of its rows."""
    from seeknal.home import session

    one = session.existing().training_sets.get(name, project=project)
    question = one.question
    render.record(
        {
            **line(one),
            **_of_view(one),
            "request": {"spine": f"a spine with timestamps in column {question.date_col!r}"}.get(
                question.kind, question.kind
            ),
            "event_times": str(question.span),
            "content_hash": one.content_hash,
            "reads": [
                {"group": f"{pin.project}/{pin.group}", "version": pin.version, "snapshot": pin.snapshot}
                | {"features": [out for _, out in pin.features]}
                for pin in one.pins
            ],
        },
        form,
    )


def _of_view(one: TrainingSetRecord) -> dict[str, Any]:
    """Return what a training set has of a feature view; nothing if it belongs to none."""
    if one.view is None:
        return {}
    use, split = one.view, one.view.split or {}
    label = {} if use.until is None else {"label_until": render.when(use.until), "unfinished": use.unfinished}
    by = ", ".join(f"{name}={value}" for name, value in split.items() if name != "by")
    return {"view": f"{use.name}@{use.version}", "split": f"by {split['by']}: {by}" if split else None, **label}


@app.command("reproduce")
def reproduce(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", parser=Path, help="Write the rows to this Parquet file.")
    ] = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Rebuild a training set, and prove by its hash that it is the same."""
    from seeknal.home import session

    store = session.existing()
    one = store.training_sets.get(name, project=project)
    with working(f"Reproducing {one.label}"):
        rows = store.training_sets.reproduce(one)
        if output is not None:
            _write(rows, output)
    render.record(
        {"training_set": one.label, "rows": one.rows, "content_hash": one.content_hash, "same": True}
        | ({} if output is None else {"written_to": str(output)}),
        form,
    )


def _write(rows: pa.Table, output: Path) -> None:
    """Write rows to a Parquet file.

    Raises:
        StoreError: The file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.write_table(rows, named(output))
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{str(output)!r} cannot be written: {error}") from None


@app.command("delete")
def delete_dataset(name: Name, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Delete a training set with its spine and rows. The groups that it read stay."""
    from seeknal.home import session

    store = session.existing()
    one = store.training_sets.get(name, project=project)
    render.confirm(f"Delete training set {one.label}?", yes)
    store.training_sets.delete(one)
    render.record({"deleted": one.label}, form)
