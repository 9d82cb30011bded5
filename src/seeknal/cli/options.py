"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeknal.errors import DataError
from seeknal.names import join_keys_of, misfit

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.home.store import FeatureStore


class Format(StrEnum):
    """The output formats."""

    table = "table"
    json = "json"
    yaml = "yaml"


AsFormat = Annotated[Format, typer.Option("--format", "-f", help="Output format.")]
InProject = Annotated[str | None, typer.Option("--project", "-p", help="Its project; or write PROJECT/NAME.")]
OfProject = Annotated[str | None, typer.Option("--project", "-p", help="Only this project.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", "--force", help="Do not ask for confirmation.")]
Group = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the feature group.")]
Project = Annotated[str, typer.Argument(metavar="NAME", help="Name of the project.")]
Entity = Annotated[str, typer.Argument(metavar="NAME", help="Name of the entity.")]
Table = Annotated[str, typer.Argument(metavar="TABLE", help="Name of the online table.")]
TableOrView = Annotated[
    str,
    typer.Argument(
        metavar="TABLE|VIEW[@VERSION]",
        help="Name of the online table, or of the feature view; by default the newest version that is served.",
    ),
]
Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--module", help="Module with request features, to import; repeatable, and added to the setting `modules`."
    ),
]


def import_modules(store: FeatureStore, given: Iterable[str] | None) -> None:
    """Import the modules with request features: those of the setting `modules`, and those that a command names.

    Raises:
        DefinitionError: One cannot be imported, or is not named as Python names modules.
    """
    from seeknal.config import checked_modules
    from seeknal.system.modules import import_all

    import_all((*store.settings.modules, *checked_modules(list(given or ()), "--module")), store.settings.folder)


def check_pairs(texts: list[str]) -> list[str]:
    """Return the arguments, after checking that each is KEY=VALUE.

    Raises:
        typer.BadParameter: One is not.
    """
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE. Write user_id=user_001, for example.")
    return texts


Keys = Annotated[
    list[str],
    typer.Argument(metavar="KEY=VALUE...", help="Each join key, such as user_id=user_001.", callback=check_pairs),
]


def read_keys(what: str, fields: Iterable[pa.Field], texts: Iterable[str]) -> dict[str, Any]:
    """Parse the join keys of one entity, as users type them or commands print them, into the types of the keys.

    Raises:
        DataError: The names are not those of the keys, a name occurs twice, or a text does not fit its key's type.
    """
    fields, texts = list(fields), list(texts)
    kinds = {field.name: field.type for field in fields}
    if problem := misfit(names := [text.partition("=")[0] for text in texts], kinds):
        raise DataError(f"{join_keys_of(what, kinds)}; {problem}", keys=names)
    return read_row(fields, texts)


def read_row(fields: Iterable[pa.Field], texts: Iterable[str]) -> dict[str, Any]:
    """Parse the values of one row, as users type them or commands print them. One of no field stays text, for the caller to refuse.

    Raises:
        DataError: A name occurs twice, or a text does not fit the type of its field.
    """
    kinds = {field.name: field.type for field in fields}
    pairs = [(name, text) for name, _, text in (one.partition("=") for one in texts)]
    names = [name for name, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"The command has {twice[0]!r} twice. Ask for one entity at a time.", keys=names)
    return {name: _read(name, text, kinds[name]) if name in kinds else text for name, text in pairs}


def _read(name: str, text: str, kind: pa.DataType) -> Any:
    """Parse a value. Booleans and bytes are accepted in the form in which commands print them, too: yes, no, 0x6a6b."""
    from pyarrow import types as is_

    from seeknal.values.exact import read

    if is_.is_boolean(kind):
        text = {"yes": "true", "no": "false"}.get(text, text)
    if (is_.is_binary(kind) or is_.is_fixed_size_binary(kind)) and text.startswith("0x"):
        try:
            return bytes.fromhex(text.removeprefix("0x"))
        except ValueError:
            raise DataError(f"{name} is {kind}, which {text!r} is not: 0x starts bytes in hex.", key=name) from None
    value = read(name, text, kind)
    try:
        return value.as_py()
    except (ValueError, OverflowError):  # Python has no nanoseconds, and no year 12000
        return value
