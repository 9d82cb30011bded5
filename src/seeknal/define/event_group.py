"""Definitions of event sources: what is stored of them is a group of events, which describe no single entity. No data, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from seeknal.define.feature_group import FeatureGroup, Materialization
from seeknal.entity import Entity
from seeknal.errors import DefinitionError
from seeknal.names import check_names

NO_ENTITY = Entity.stored("", ())
"""What the events of a source describe: each of its columns may name a different entity."""


@dataclass(frozen=True, kw_only=True)
class EventGroup(FeatureGroup):
    """The stored events of a source.

    Args:
        event_id: Columns that together identify an event. Rows that agree in them are one event, and the one with the greatest created
            time counts, then the one written last. Empty: every row is an event.

    Raises:
        DefinitionError: A name breaks the rule for names, a column is named twice, or there is no event time.
    """

    entity: Entity = field(default=NO_ENTITY, init=False)
    event_id: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "event_id", _check_event_id(self.event_id))
        if self.event_time_col in self.event_id:
            raise DefinitionError(
                f"event_id of {self.name!r} contains the event time, {self.event_time_col!r}, which a correction may change. Leave it "
                "out. If only key and time together identify an event, write the events to a feature group, and take that as the source."
            )

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that identify an event."""
        return self.event_id

    def completed(self, known: FeatureGroup) -> EventGroup:
        """Return this group with the description of the registered one, if it has none."""
        return replace(self, description=known.description if self.description is None else self.description)


def event_group(
    name: str,
    event_time_col: str,
    event_id: Sequence[str] | None = None,
    *,
    created_time_col: str | None = None,
    project: str = "default",
    description: str | None = None,
) -> EventGroup:
    """Return the definition of an event source; see `seeknal.EventSource`.

    Raises:
        DefinitionError: A name breaks the rule for names, or is missing.
    """
    if not event_time_col:
        raise DefinitionError(
            f'Event source {name!r} has no event time, so no window could be told from another. Write EventSource({name!r}, "at"), with '
            "the name of the column that has the time of each event."
        )
    if created_time_col == "":
        raise DefinitionError("created_time_col is empty. Leave it out, or name the column with the time of recording.")
    dated = Materialization(event_time_col=event_time_col, created_time_col=created_time_col)
    ids = () if event_id is None else event_id
    return EventGroup(name=name, materialization=dated, project=project, description=description, event_id=ids)  # type: ignore[arg-type]  # any list becomes a tuple


def _check_event_id(given: object) -> tuple[str, ...]:
    columns = check_names("event_id", given, "['order_id']")
    if repeated := [name for i, name in enumerate(columns) if name in columns[:i]]:
        raise DefinitionError(f"event_id names {repeated[0]!r} twice. Name it once.")
    return columns
