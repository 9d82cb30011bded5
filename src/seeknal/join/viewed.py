"""The rows of a spine as a feature view makes them: looked-up features, defaults, computed features, and the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.fill_null import FillNull
from seeknal.define.label import DROP
from seeknal.engine import Engine
from seeknal.errors import DefinitionError
from seeknal.join import retrieval
from seeknal.join.filling import values_of
from seeknal.join.retrieval import Spine, kinds_of
from seeknal.registry import Question
from seeknal.registry.source import Source
from seeknal.registry.view_content import LabelContent, ViewContent, defaults_to_json
from seeknal.request.recipe import TRIED, Recipe, request_column
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values import frames
from seeknal.values.frames import Frame
from seeknal.values.moments import utc
from seeknal.values.times import Interval


@dataclass(frozen=True)
class Viewed:
    """What a version of a view makes of looked-up features.

    Args:
        recipe: Makes the features that the model reads.
        looked_up: The lookups.
        label: The label. None: rows get none.
        source: What computes the label.
        until: The time up to which the events of the label are complete, in microseconds since 1970.
    """

    recipe: Recipe
    looked_up: Sequence[Source]
    label: LabelContent | None = None
    source: Source | None = None
    until: int = 0

    @staticmethod
    def of(content: ViewContent, sources: Sequence[Source], until: int | None) -> Viewed:
        """Return what a saved training set has of a version of a view, after importing the functions.

        Args:
            content: What the version is.
            sources: Its lookups and, if `until` is given, the source of its label.
            until: The time up to which the events of the label are complete. None: rows get no label.
        """
        looked_up = sources if until is None else sources[:-1]
        recipe = content.recipe(kinds_of(looked_up), pii=pii_of(looked_up))
        return (
            Viewed(recipe, looked_up) if until is None else Viewed(recipe, looked_up, content.label, sources[-1], until)
        )

    @property
    def sources(self) -> list[Source]:
        """All sources: those of the lookups, and then that of the label, if rows get one."""
        return [*self.looked_up, *([self.source] if self.source else [])]

    @property
    def used(self) -> list[str]:
        """The columns of the spine that it reads besides the moment and the keys of the lookups."""
        return [*self.recipe.request, *(self.source.keys.values() if self.source else ())]


@dataclass(frozen=True)
class Columns:
    """The columns that a view puts beside a spine.

    Args:
        kept: The names of the spine's columns to keep.
        table: The columns to put beside them.
        rows: Which rows stay; None: all.
        unfinished: How many rows have a label's window that is not over.
    """

    kept: list[str]
    table: pa.Table
    rows: pa.ChunkedArray | None
    unfinished: int

    def beside(self, frame: Frame, kind: str) -> Any:
        """Return the rows that stay, with the spine's columns to keep, as a frame of the given kind."""
        if self.rows is None:
            return frames.with_columns(frame, self.kept, self.table, kind)
        if kind == "pandas" == frame.kind:  # its index and its types stay
            own = frames.with_columns(frame, self.kept, self.table.select([]), kind)[self.rows.to_numpy()]
            return frames.with_columns(frames.opened(own), self.kept, self.table.filter(self.rows), kind)
        return frames.from_arrow(frames.with_columns(frame, self.kept, self.table, "arrow").filter(self.rows), kind)


def plain_content(sources: Sequence[Source], fills: Sequence[FillNull] = ()) -> ViewContent:
    """Return what a version of a view is that only looks up features, and has values in place of their nulls.

    Raises:
        DefinitionError: A fill fits no feature, or its value cannot be kept.
    """
    kinds = kinds_of(sources)
    return ViewContent(
        lookups=tuple(source.pin(pinned=source.is_pinned) for source in sources),
        types={name: str(kind) for name, kind in kinds.items()},
        features=tuple(kinds),
        defaults=defaults_to_json(values_of(fills, sources)),
    )


def pii_of(sources: Sequence[Source]) -> set[str]:
    """Return the names in the spine of the join keys that are personal data."""
    return {out for one in sources for own, out in one.keys.items() if own in one.record.group.entity.pii_keys}


def columns(
    engine: Engine,
    viewed: Viewed,
    spine: Spine,
    question: Question,
    on_progress: OnProgress = no_progress,
) -> Columns:
    """Return the columns that a view puts beside the rows of a spine.

    Args:
        engine: The engine that joins.
        viewed: The sources of the view, and what it makes of them.
        spine: The spine, already read; see `retrieval.read_spine`.
        question: The interval of event time that is visible.
        on_progress: Called with each step.

    Raises:
        DataError: The spine lacks a column, a value does not fit, or a function fails.
        DefinitionError: Two columns of the result would have the same name, or a function answers otherwise for a row alone.
    """
    recipe, sources = viewed.recipe, viewed.looked_up
    spine = replace(spine, also=[*spine.also, *viewed.used])
    kept, found = retrieval.training_set(engine, sources, spine, question.span, on_progress)
    # The spine's own values stay, unless a default takes the place of some of them, as it does online.
    made = [name for name in recipe.names if name not in recipe.request or name in recipe.defaults]
    kept = [name for name in kept if not (name in recipe.request and name in made)]
    _check_made(sources, [*made, *([viewed.label.column] if viewed.label else [])], kept)
    given = {name: request_column(spine.frame, name, kind, "The spine's") for name, kind in recipe.request.items()}
    given |= dict(zip(found.column_names, found.columns, strict=True))
    on_progress("Computing features")
    names = retrieval.keys_of(sources)
    keys = spine.frame.table(names)
    own = {name: keys[name] for name in names}
    computed = recipe.columns(given, own)
    _try(recipe, given, own)
    table = pa.Table.from_pydict({name: computed[name] for name in made})
    if viewed.label is None or viewed.source is None:
        return Columns(kept, table, None, 0)
    on_progress("Looking up the label")
    return _labelled(engine, viewed, viewed.label, viewed.source, spine, Columns(kept, table, None, 0))


def _try(recipe: Recipe, given: Mapping[str, pa.ChunkedArray], keys: Mapping[str, pa.ChunkedArray]) -> None:
    """Try the functions that need request values on a few rows. The others were tried when the view was registered.

    Raises:
        DefinitionError: The answers differ from those for a row alone.
    """
    own = recipe.only(recipe.computed(given=True))
    if own.names:
        few = {name: given[name].slice(0, TRIED) for name in (*own.request, *own.looked_up)}
        own.check(few, {name: column.slice(0, TRIED) for name, column in keys.items()})


def _labelled(
    engine: Engine, viewed: Viewed, label: LabelContent, source: Source, spine: Spine, found: Columns
) -> Columns:
    used, _ = retrieval.spine_columns([source], spine)
    frame = spine.frame.table(used)
    at = utc(spine.date_col, frame[spine.date_col], up=False)
    value = retrieval.look_up(engine, [source], frame, at, Interval()).column(0)
    if label.is_any:
        value = pc.fill_null(pc.greater(value.cast(pa.int64()), 0), fill_value=False)
    # A row without a moment has no window, so it never gets a label.
    ends = pc.add(at.cast(pa.int64()), pa.scalar(source.ahead, pa.int64()))
    over = pc.fill_null(pc.less_equal(ends, viewed.until), fill_value=False)
    value = pc.if_else(over, value, pa.scalar(None, value.type))
    unfinished = len(value) - (pc.sum(over).as_py() or 0)
    drops = unfinished and label.unfinished == DROP
    return Columns(found.kept, found.table.append_column(label.column, value), over if drops else None, unfinished)


def _check_made(sources: Sequence[Source], made: Sequence[str], kept: Sequence[str]) -> None:
    looked_up = {out for source in sources for out in source.features.values()}
    for i, name in enumerate(made):
        if name in kept or name in made[:i]:
            of = "the spine" if name in kept else "the view"
            what = "a feature" if name in looked_up else "what the view computes"
            raise DefinitionError(
                f"Two columns would be named {name!r}: one of {of} and {what}. Drop or rename that column of the spine, or leave it "
                "out: keep_cols=[...].",
                name=name,
            )
