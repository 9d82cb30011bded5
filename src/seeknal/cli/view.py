"""Commands for feature views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format, InProject, OfProject, Yes
from seeknal.names import split_version

if TYPE_CHECKING:
    from seeknal.home.store import FeatureStore
    from seeknal.registry import ViewRecord

app = typer.Typer(help="Feature views: what one model reads. Each version stays as it is.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="VIEW[@VERSION]", help="Name of the view; by default its newest version.")]


@app.command("list")
def list_views(project: OfProject = None, form: AsFormat = Format.table) -> None:
    """List the versions of all feature views."""
    from seeknal.cli.explore import listed

    records = listed(project, lambda store: lines(store, project))
    render.rows(records, form, empty="No feature views yet: FeatureView(NAME, lookups=[...]) is one.")


def lines(store: FeatureStore, project: str | None) -> list[dict[str, Any]]:
    """Return the versions of the views of a project, or of all, as records of a list."""
    served = {(one.project, split_version(one.name)[0], one.view) for one in store.tables.all(project=project)}
    views = store.views.all(project=project)
    return [_line(one) | {"served": (one.project, one.name, one.number) in served} for one in views]


def _line(one: ViewRecord) -> dict[str, Any]:
    content = one.content
    return {
        "project": one.project,
        "view": one.name,
        "version": one.number,
        "features": len(content.features),
        "label": content.label.column if content.label else None,
        "created": render.when(one.created_at),
        "retired": None if one.retired_at is None else render.when(one.retired_at),
    }


@app.command("show")
def show_view(name: Name, project: InProject = None, form: AsFormat = Format.table) -> None:
    """Show a version of a feature view: what the model reads, where it comes from, and what was made with it."""
    from seeknal.home import session

    store = session.existing()
    one = store.views.get(name, project=project)
    content = one.content
    origins = {
        out: f"{lookup.project}/{lookup.group} version {lookup.version}, {own}"
        for lookup in content.lookups
        for own, out in lookup.features
    }
    origins |= dict.fromkeys(content.request, "the request")
    origins |= {out: function.function for function in content.functions for out in function.outputs}
    render.record(
        {
            **_line(one),
            "label": f"{content.label.column}: {content.label.text}" if content.label else None,
            "description": one.description,
            "owner": one.owner,
            "tags": list(one.tags),
            "keys": list(dict.fromkeys(out for lookup in content.lookups for _, out in lookup.keys)),
            "request": [{"value": out, "type": kind} for out, kind in content.request.items()],
            "reads": [
                {
                    "feature": out,
                    "type": content.kinds[out],
                    "from": origins[out],
                    "default": content.default_values.get(out),
                }
                for out in content.features
            ],
            "functions": [
                {"function": f.function, "mode": f.mode, "inputs": list(f.inputs), "code": f.code[:12]}
                for f in content.functions
            ],
            "training_sets": [made.label for made in store.views.made_with(one)],
            "models": [
                {"model": m.name, "training_set": m.training_set, "uri": m.uri}
                for m in store.views.models(one)
                if m.version == one.number
            ],
        },
        form,
    )


@app.command("diff")
def diff_views(
    name: Annotated[str, typer.Argument(metavar="VIEW", help="Name of the view.")],
    old: Annotated[
        int | None, typer.Option("--from", "-f", help="The earlier version; by default the one before.")
    ] = None,
    new: Annotated[int | None, typer.Option("--to", "-t", help="The later version; by default the newest.")] = None,
    project: InProject = None,
    form: AsFormat = Format.table,
) -> None:
    """Show what changed from one version of a feature view to another."""
    from seeknal.home import session

    store = session.existing()
    last = new or store.views.get(name, project=project).number
    first = old or max(last - 1, 1)
    changes = store.views.difference(split_version(name)[0], first, last, project=project)
    if form is Format.table:
        render.rows(
            [{"change": one} for one in changes],
            form,
            empty=f"Versions {first} and {last} of {name} are the same.",
        )
        return
    render.record({"view": name, "from": first, "to": last, "changes": changes}, form)


@app.command("retire")
def retire_view(name: Name, project: InProject = None, yes: Yes = False, form: AsFormat = Format.table) -> None:
    """Retire a version of a feature view: end its serving. Its training sets can still be read and reproduced."""
    from seeknal.home import session

    store = session.existing()
    one = store.views.get(name, project=project)
    made, models = store.views.made_with(one), [m for m in store.views.models(one) if m.version == one.number]
    known = [*(f"training set {m.label}" for m in made), *(f"model {m.name}" for m in models)]
    hint = f" It is known to {', '.join(known)}." if known else ""
    render.confirm(f"Retire {one.label}?{hint}", yes)
    done = store.views.retire(one)
    render.record(
        {
            "retired": done.view,
            "was_served": done.was_served,
            "training_sets": list(done.training_sets),
            "models": list(done.models),
        },
        form,
    )
