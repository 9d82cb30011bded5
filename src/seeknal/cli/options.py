"""Options that many commands share."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import pyarrow as pa


class Format(StrEnum):
    """How to print an answer."""

    table = "table"
    json = "json"
    yaml = "yaml"


AsFormat = Annotated[Format, typer.Option("--format", "-f", help="How to print the answer.")]
InProject = Annotated[str | None, typer.Option("--project", "-p", help="Its project. PROJECT/NAME says it too.")]
OfProject = Annotated[str | None, typer.Option("--project", "-p", help="Only of this project.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Group = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the feature group.")]
Table = Annotated[str, typer.Argument(metavar="TABLE", help="Name of the online table.")]


def check_pairs(texts: list[str]) -> list[str]:
    """Refuse texts that are not all KEY=VALUE."""
    for text in texts:
        if "=" not in text:
            raise typer.BadParameter(f"{text!r} is no KEY=VALUE. Write user_id=user_001, say.")
    return texts


Keys = Annotated[
    list[str],
    typer.Argument(metavar="KEY=VALUE...", help="Each join key, as user_id=user_001.", callback=check_pairs),
]


def read_keys(fields: Iterable[pa.Field], texts: Iterable[str]) -> dict[str, Any]:
    """Read the join keys of one entity, as somebody types them, in their types.

    Raises:
        DataError: A text does not fit its key's type.
    """
    from seeknal.exact import read

    kinds = {field.name: field.type for field in fields}
    pairs = dict(text.split("=", 1) for text in texts)
    return {name: read(name, text, kinds[name]) if name in kinds else text for name, text in pairs.items()}
