"""Splits of a training set into train, validation and test. No data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from seeknal.define.aggregations.lengths import Length, read_length, show_length
from seeknal.errors import DefinitionError
from seeknal.names import check_names, check_text
from seeknal.values.times import Moment, instant, microseconds, moment_of

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)


@dataclass(frozen=True)
class TimeSplit:
    """A split by the moments of the rows: train is before the first bound, test from the last bound on.

    Args:
        bounds: One bound (train and test) or two (validation between them): each the first moment of the next part.
        gap: Leave out the rows in this length before each bound. With the length of the label's window, no label of one part is
            computed from events in the next.

    Raises:
        DefinitionError: There are other than one or two bounds, or they do not ascend.
    """

    bounds: Sequence[Moment] | Moment
    gap: Length | None = None

    def __post_init__(self) -> None:
        given: list[Moment] = [self.bounds] if isinstance(self.bounds, str | date) else list(self.bounds)
        if len(given) not in (1, 2):
            raise DefinitionError(
                'A split by time has one or two bounds, such as ("2024-04-01", "2024-05-01"), the first moments of validation and test.'
            )
        bounds = tuple(instant(one) for one in given)
        if list(bounds) != sorted(set(bounds)):
            raise DefinitionError(f"The bounds of a split do not ascend: {given[0]} is not before {given[-1]}.")
        object.__setattr__(self, "_instants", bounds)
        object.__setattr__(self, "bounds", tuple(given))
        object.__setattr__(self, "gap", None if self.gap is None else read_length("gap", self.gap))

    @property
    def instants(self) -> tuple[int, ...]:
        """The bounds in microseconds since 1970."""
        found: tuple[int, ...] = self.__dict__["_instants"]
        return found

    @property
    def gap_length(self) -> int:
        """The gap in microseconds."""
        return microseconds(self.gap) if isinstance(self.gap, timedelta) else 0

    def to_json(self) -> dict[str, Any]:
        """Return the split as plain data."""
        gap = {"gap": show_length(self.gap_length)} if self.gap_length else {}
        return {"by": "time", "bounds": list(self.instants), **gap}


@dataclass(frozen=True)
class EntitySplit:
    """A split by a hash of the entity, so that no entity is in two parts, and an entity is in the same part in every training set.

    Args:
        train: The share of the entities in train.
        validation: The share in validation. The rest is in test.
        by: The columns of the spine that identify the entity. None: the join keys of the view's first lookup.
        seed: Another number assigns the entities differently.

    Raises:
        DefinitionError: The shares are not between 0 and 1, or exceed 1 together.
    """

    train: float = 0.8
    validation: float = 0.1
    by: str | Sequence[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for argument in ("train", "validation"):
            share = getattr(self, argument)
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
                raise DefinitionError(f"{argument}={share!r} of a split is not a share, such as 0.8.")
        if self.train + self.validation > 1 + 1e-9:  # 0.7 + 0.2 + 0.1 are floats
            raise DefinitionError(f"train={self.train} and validation={self.validation} of a split exceed 1 together.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise DefinitionError(f"seed={self.seed!r} of a split is not a whole number.")
        if self.by is not None:
            names = [self.by] if isinstance(self.by, str) else self.by
            object.__setattr__(self, "by", check_names("by", names))

    def to_json(self) -> dict[str, Any]:
        """Return the split as plain data."""
        by = {} if self.by is None else {"keys": list(self.by)}
        return {"by": "entity", "train": self.train, "validation": self.validation, "seed": self.seed, **by}


@dataclass(frozen=True)
class ColumnSplit:
    """A split by a column of the spine that names the part of each row.

    Args:
        column: The column. Rows with null are in no part.
        parts: For each value of the column, the part: "train", "validation" or "test". None: the values are these words.

    Raises:
        DefinitionError: A part is none of the three.
    """

    column: str
    parts: Mapping[Any, str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "column", check_text("column", self.column))
        if self.parts is not None and not isinstance(self.parts, Mapping):
            raise DefinitionError(
                f"parts={self.parts!r} of a split is not a mapping from values of the column to parts, such as {{0: 'train', 1: 'test'}}."
            )
        given = {part: part for part in PARTS} if self.parts is None else dict(self.parts)
        if wrong := [part for part in given.values() if part not in PARTS]:
            raise DefinitionError(f"{wrong[0]!r} is not a part of a split. The parts are {', '.join(PARTS)}.")
        if odd := [value for value in given if not isinstance(value, str | int | bool)]:
            raise DefinitionError(f"A split by a column takes text, whole numbers or bools, not {odd[0]!r}.")
        object.__setattr__(self, "parts", given)

    def to_json(self) -> dict[str, Any]:
        """Return the split as plain data."""
        return {"by": "column", "column": self.column, "parts": [list(pair) for pair in (self.parts or {}).items()]}


Split = TimeSplit | EntitySplit | ColumnSplit


def read_split(given: object) -> Split | None:
    """Return a split as a caller gives it: a split, bounds of time, or None.

    Raises:
        DefinitionError: It is none of these.
    """
    if given is None or isinstance(given, Split):
        return given
    if isinstance(given, list | tuple):
        return TimeSplit(given)
    raise DefinitionError(
        f'split={given!r} is not a split. Write split=("2024-04-01", "2024-05-01"), TimeSplit(..., gap="7d"), EntitySplit(0.8, 0.1) '
        'or ColumnSplit("fold").'
    )


def split_of(text: Mapping[str, Any]) -> Split:
    """Return the split of which `to_json` returned this.

    Raises:
        DefinitionError: A later release of Seeknal has made it.
    """
    kind = text.get("by")
    if kind == "time":
        return TimeSplit([moment_of(one) for one in text["bounds"]], text.get("gap"))
    if kind == "entity":
        return EntitySplit(text["train"], text["validation"], text.get("keys"), text["seed"])
    if kind == "column":
        return ColumnSplit(text["column"], dict(text["parts"]))
    raise DefinitionError(f"A split by {kind!r} is unknown. A later release of seeknal has it, perhaps.")
