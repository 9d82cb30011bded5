"""Commands that create a project, run the demo, maintain groups, and erase entities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seeknal.cli import render
from seeknal.cli.options import AsFormat, Format, Group, InProject, Yes, check_pairs, read_keys
from seeknal.errors import DefinitionError, StoreError, plural
from seeknal.names import check_name
from seeknal.system.extras import how_to_install
from seeknal.system.progress import working

if TYPE_CHECKING:
    from seeknal.write.maintenance import Erased

_LONGEST_TTL = 700_000
"""In days. A longer ttl could reach back before the year 1."""
_TOML = """
# Its data is in the folder .seeknal beside this file.

# home = ".seeknal"
# memory_limit = "4GB"     # most memory that a query may use; by default half of the machine's
# online_store = "redis://localhost:6379/0"   # where online rows are stored; by default a folder in the home
# registry = "postgresql://user@host/database"   # shared by several machines; by default a file in the home
# storage = "s3://bucket/prefix"   # where offline tables and training sets lie; by default in the home
# cache_size = "10GB"      # most disk space for copies of what lies in storage
# engine = "spark"         # where rows are joined; by default by DuckDB, in this process
# spark = "local[*]"       # the master of Spark; by default the Spark session of the process
# freshness = "6h"         # `seeknal status` calls a table stale if its newest event is older
# lookback_days = 365      # warn if a write's interval starts more than this many days before its rows
"""


def init(
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", help="Name for the first line of seeknal.toml; each group names its own."),
    ] = None,
    description: Annotated[
        str | None, typer.Option("--description", "-d", help="A sentence for the second line of seeknal.toml.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a seeknal.toml that exists, and keep it as seeknal.toml.bak.")
    ] = False,
    form: AsFormat = Format.table,
) -> None:
    """Make this folder a project: feature stores opened in it or below it keep their data here."""
    from seeknal.config import FILE
    from seeknal.system.folders import put

    text = _settings(name, description)
    try:
        file = Path.cwd() / FILE
    except FileNotFoundError:
        raise StoreError(
            "The current folder was deleted, so it cannot become a project. cd to another folder."
        ) from None
    replaced: Path | None = None
    try:
        before = file.read_bytes() if force and file.exists() else None
        if before is None:
            with file.open("xb") as opened:
                opened.write(text)
        elif before != text:
            replaced = file.with_name(f"{FILE}.bak")
            put(replaced, before)
            put(file, text)
    except FileExistsError:
        raise DefinitionError(
            f"{file} already exists: this folder is a project. To replace its settings, add --force."
        ) from None
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error}") from None
    _ignore_data(file.parent)
    kept = {} if replaced is None else {"former_settings": str(replaced)}
    render.record({"settings": str(file), **kept, "home": str(file.parent / ".seeknal")}, form)


def _settings(name: str | None, description: str | None) -> bytes:
    """Return the content of a new seeknal.toml.

    Raises:
        DefinitionError: The name breaks the rule for names.
        typer.BadParameter: The description could end its line, or is not text.
    """
    if description is not None and not description.isprintable():
        raise typer.BadParameter(f"{description!r} is not one line of text.", param_hint="--description")
    title = "this Seeknal project" if name is None else f"the Seeknal project {check_name('project', name)}"
    lines = [f"# Settings of {title}.", *([f"# {description}"] if description else [])]
    return ("\n".join(lines) + _TOML).encode()


def _ignore_data(folder: Path) -> None:
    """Add the data folder to .gitignore, unless a line names it already.

    Raises:
        StoreError: The file cannot be read or written.
    """
    file = folder / ".gitignore"
    try:
        text = file.read_bytes() if file.exists() else b""
        if not {line.strip().strip(b"/") for line in text.splitlines()} & {b".seeknal", b"**/.seeknal"}:
            line = b".seeknal/\n" if text.endswith(b"\n") or not text else b"\n.seeknal/\n"
            with file.open("ab") as opened:
                opened.write(line)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error}") from None


def demo(
    folder: Annotated[Path, typer.Argument(parser=Path, help="The folder of the demo's project.")] = Path(
        "seeknal-demo"
    ),
) -> None:
    """Run a complete walk-through on real data: a year of flights from New York, and the weather at its airports."""
    try:
        from seeknal.demo import run
    except ImportError as error:
        raise DefinitionError(f"The demo needs {error.name}. {how_to_install('demo')}") from None
    run(folder, render.stdout)


def optimize(
    group: Group,
    keep_days: Annotated[
        int, typer.Option("--keep-days", min=0, help="Days for which older snapshots stay readable.")
    ] = 30,
    project: InProject = None,
    yes: Yes = False,
    form: AsFormat = Format.table,
) -> None:
    """Compact small files, and delete files that are no longer needed.

    The last snapshot of each version and the snapshots of training sets always stay readable.
    Other snapshots that are older than --keep-days can no longer be read with as_of.
    """
    from seeknal.home import session

    store = session.existing()
    record = store.groups.get(group, project=project)
    render.confirm(f"Delete the files that only snapshots of {record.label} older than {keep_days} days need?", yes)
    with working(f"Optimizing {record.label}"):
        done = store.groups.optimize(group, project=project, keep_days=keep_days)
    render.record(
        {
            "feature_group": done.group,
            "snapshot": done.snapshot,
            "files_before": done.files_before,
            "files": done.files,
            "files_deleted": done.removed,
            "bytes_freed": done.freed,
        },
        form,
    )


def adopt(group: Group, project: InProject = None, form: AsFormat = Format.table) -> None:
    """Check and number the rows that another program wrote to a feature group's table, and accept them as one write."""
    from seeknal.home import session

    store = session.existing()
    with working(f"Adopting what other programs wrote to {group}"):
        done = store.groups.adopt(group, project=project)
    render.record(
        {
            "feature_group": done.group,
            "version": done.version,
            "snapshot": done.snapshot,
            "commits": list(done.commits),
            "rows_adopted": done.rows,
            "rows_kept": done.kept,
            "rows_removed": done.removed,
        },
        form,
    )


def erase(
    what: Annotated[
        list[str],
        typer.Argument(metavar="[GROUP] KEY=VALUE...", help="The group, and each join key, such as user_id=user_001."),
    ],
    entity: Annotated[
        str | None,
        typer.Option("--entity", metavar="NAME", help="Erase from all groups of this entity; name no group."),
    ] = None,
    project: InProject = None,
    yes: Yes = False,
    form: AsFormat = Format.table,
) -> None:
    """Erase an entity from all versions, older snapshots, training sets and online stores, and print a receipt."""
    from seeknal.home import session

    store = session.existing()
    group, texts = (what[0], what[1:]) if entity is None else (None, what)
    if not check_pairs(texts) or (group and "=" in group):
        raise typer.BadParameter("Write seeknal erase GROUP KEY=VALUE..., or seeknal erase --entity NAME KEY=VALUE...")
    records = (
        [store.groups.get(group, project=project)]
        if group
        else store.entities.written_groups(entity or "", project=project)
    )
    keys = read_keys(
        records[0].label, store.groups.version(records[0].name, project=records[0].project).schema.keys, texts
    )
    doomed = store.entities.training_sets_with(records, keys)
    also = f" That deletes {plural(len(doomed), 'training set')} with its rows: {', '.join(doomed)}." if doomed else ""
    erased_keys = render.keys(keys)
    labels = ", ".join(record.label for record in records)
    render.confirm(f"Erase {erased_keys} from {labels} for good?{also}", yes)
    with working(f"Erasing {erased_keys}"):
        if group:
            receipts = [store.groups.erase(group, keys, project=project, delete_training_sets=bool(doomed))]
        else:
            receipts = list(
                store.entities.erase(entity or "", keys, project=project, delete_training_sets=bool(doomed)).groups
            )
    lines = [_erased(one, erased_keys) for one in receipts]
    if group:
        render.record(lines[0], form)
        return
    sets = list(dict.fromkeys(name for one in receipts for name in one.training_sets))
    rows, beside = sum(one.rows for one in receipts), store.entities.groups_beside(records[0])
    receipt = {"entity": entity, "erased": erased_keys, "at": render.when(receipts[-1].at), "rows": rows}
    render.record(receipt | {"training_sets_deleted": sets, "not_erased_from": beside, "feature_groups": lines}, form)


def _erased(one: Erased, erased_keys: str) -> dict[str, object]:
    return {
        "feature_group": one.group,
        "erased": erased_keys,
        "at": render.when(one.at),
        "rows": one.rows,
        "snapshots_kept_without_it": list(one.snapshots),
        "snapshots_lost": one.lost_snapshots,
        "files_deleted": one.files_removed,
        "online_stores_reloaded": one.online,
        "training_sets_deleted": list(one.training_sets),
    }


def clean(
    group: Group,
    before: Annotated[
        str | None, typer.Option("--before", "-b", help="Remove rows older than this, such as 2024-01-31.")
    ] = None,
    ttl: Annotated[
        int | None,
        typer.Option("--ttl", min=1, max=_LONGEST_TTL, metavar="DAYS", help="Remove rows older than this many days."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the rows.")] = False,
    project: InProject = None,
    yes: Yes = False,
    form: AsFormat = Format.table,
) -> None:
    """Remove old rows from the current version of a feature group. Older snapshots keep theirs."""
    from seeknal.home import session
    from seeknal.values.times import DAY, instant, now, show

    if (before is None) == (ttl is None):
        raise typer.BadParameter("Give either --before DATE or --ttl DAYS.")
    limit = instant(before) if before is not None else now() - (ttl or 0) * DAY
    store = session.existing()
    record = store.groups.get(group, project=project)
    with working(f"Counting old rows of {record.label}"):
        count = store.groups.clean(group, limit, project=record.project, dry_run=True)
    if not dry_run:
        if count:
            render.confirm(f"Remove {count:,} rows of {record.label} that are older than {show(limit)}?", yes)
        with working(f"Cleaning {record.label}"):
            count = store.groups.clean(group, limit, project=record.project)
    done = "would_be_removed" if dry_run else "removed"
    render.record({"feature_group": record.label, "before": show(limit), done: count}, form)
