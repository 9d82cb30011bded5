"""The reading verbs. They turn an inquiry into a frame, a stream, a saved training set, an explanation or a check for leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seeknal.errors import DataError, DefinitionError
from seeknal.home.home import Home
from seeknal.join.inquiry import SPINE, Inquiry
from seeknal.names import check_entity, quoted
from seeknal.registry import TrainingSetRecord
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.times import Moment, instant

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.join.explanation import Candidate
    from seeknal.join.leaks import Findings
    from seeknal.registry.source import Source


def sources(home: Home, asked: Inquiry) -> list[Source]:
    """Return the source of each lookup: its group, version and snapshot.

    Raises:
        DefinitionError: A group, feature, version or snapshot does not exist.
    """
    return [home.catalog.source(lookup, asked.as_of) for lookup in asked.lookups]


def frame(home: Home, asked: Inquiry, output: str | None = None, on_progress: OnProgress = no_progress) -> Any:
    """Return the features as a frame of the spine's kind, or of the kind given by `output`."""
    from seeknal.join import retrieval
    from seeknal.values import frames

    kind = frames.output_kind(asked.spine, output)
    if asked.kind != SPINE:
        return frames.from_arrow(
            retrieval.answer(home.engine, sources(home, asked), asked.question, None, on_progress), kind
        )
    found = sources(home, asked)
    given = retrieval.Spine(frames.opened(asked.spine), asked.date_col, asked.keep, case_counts=kind != "duckdb")
    spine = retrieval.read_spine(found, given)
    names, features = retrieval.training_set(home.engine, found, spine, asked.interval, on_progress)
    with retrieval.leaving_out([asked.date_col]):
        return frames.with_columns(spine.frame, names, features, kind)


def batches(home: Home, asked: Inquiry, on_progress: OnProgress = no_progress) -> pa.RecordBatchReader:
    """Return the features as a stream of batches, so that neither the spine nor the groups need to fit in memory.

    Raises:
        DefinitionError: There is no spine.
    """
    from seeknal.join import streaming
    from seeknal.values import frames

    if asked.kind != SPINE:
        raise DefinitionError("A stream needs using_spine(spine, date_col=...); otherwise call to_dataframe().")
    stream = streaming.Stream(
        sources(home, asked), frames.opened(asked.spine), asked.date_col, asked.keep, asked.interval
    )
    return streaming.stream(home.engine, stream, home.scratch, on_progress)


def save(
    home: Home, name: str, asked: Inquiry, *, keep_rows: bool = False, on_progress: OnProgress = no_progress
) -> TrainingSetRecord:
    """Save the training set, with all that is needed to rebuild it; see `seeknal.join.training_sets`."""
    found, question = sources(home, asked), asked.question
    spine = _spine_table(found, asked)
    return home.training_sets.save(name, found, question, spine, keep_rows=keep_rows, on_progress=on_progress)


def explain(
    home: Home, asked: Inquiry, keys: Mapping[str, Any], moment: Moment, limit: int | None = None
) -> list[Candidate]:
    """Return the rows of an entity with their verdicts, group by group: the winner first, then by distance from the moment.

    Args:
        home: The home.
        asked: The inquiry.
        keys: The join keys, by their names in the spine.
        moment: The moment to look from.
        limit: Maximum number of rows of each group. None: all.

    Raises:
        DataError: A join key is missing.
    """
    from seeknal.join import explanation

    check_entity(keys)
    found = []
    for source in sources(home, asked):
        if missing := [name for name in source.keys.values() if name not in keys]:
            raise DataError(f"The row has no {quoted(missing)}, which {source.record.label} is looked up by.")
        entity = home.catalog.entity(source.record, {own: keys[name] for own, name in source.keys.items()})
        found += explanation.explain(home.catalog, home.engine, source, entity, instant(moment), asked.interval, limit)
    return found


def check(home: Home, asked: Inquiry, on_progress: OnProgress = no_progress) -> Findings:
    """Look for leaks that a correct join cannot prevent; see `seeknal.join.leaks`."""
    from seeknal.join import leaks

    found = sources(home, asked)
    return leaks.check(home.engine, found, _spine_table(found, asked), asked.question, on_progress)


def _spine_table(found: Sequence[Source], asked: Inquiry) -> pa.Table | None:
    """Read the spine's columns that are used or kept; None without a spine."""
    from seeknal.join import retrieval

    return retrieval.spine_table(found, asked.spine, asked.question) if asked.kind == SPINE else None
