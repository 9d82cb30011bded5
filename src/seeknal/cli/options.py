"""Options that many commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


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
