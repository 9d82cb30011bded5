"""Event sources in a notebook: the events that windowed groups are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from seeknal.define.event_group import EventGroup, event_group
from seeknal.featurestore.stored import StoredGroup

if TYPE_CHECKING:
    import pyarrow as pa

    from seeknal.system.progress import OnProgress
    from seeknal.values.times import Moment
    from seeknal.write.writing import Written


class EventSource(StoredGroup):
    """Events, such as orders or clicks, from which windowed groups are computed. Every event counts; none hides another.

    Args:
        name: Name of the source, unique in its project among feature groups and sources.
        event_time_col: Column with the time at which an event happened.
        event_id: Columns that together identify an event. Rows that agree in them are one event: a repeated row changes nothing, and a
            later one corrects it, whatever its event time. None: every row is an event, and events cannot be pushed.
        created_time_col: Column with the time at which an event was recorded. Of rows with the same `event_id`, the one with the latest
            created time counts, then the one written last.
        project: Name of the project.
        description: A sentence for readers.
        columns: The columns to store besides these: their names, their types by name (`{"amount": "double"}`), or a `pyarrow.Schema`.
            None: all columns of the frame.

    Raises:
        DefinitionError: A name breaks the rule for names, or a type is unknown.
    """

    def __init__(
        self,
        name: str,
        event_time_col: str,
        event_id: Sequence[str] | None = None,
        *,
        created_time_col: str | None = None,
        project: str = "default",
        description: str | None = None,
        columns: Sequence[str] | Mapping[str, str] | pa.Schema | None = None,
    ) -> None:
        super().__init__("event source", name, project, description)
        self._definition = event_group(
            name,
            event_time_col,
            event_id,
            created_time_col=created_time_col,
            project=project,
            description=description,
        )
        self._set_columns("columns", columns)

    def write(
        self,
        feature_start_time: Moment | None = None,
        feature_end_time: Moment | None = None,
        mode: str = "append",
        *,
        drop_nulls: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Written:
        """Write the frame as one snapshot, all rows or none; see `FeatureGroupDuckDB.write`. By default, the events are added.

        Raises:
            DefinitionError: No frame was set, or the mode is unknown.
            DataError: The frame does not fit, or it lacks a column that the stored events have; nothing was stored.
        """
        return super().write(feature_start_time, feature_end_time, mode, drop_nulls=drop_nulls, on_progress=on_progress)

    def __repr__(self) -> str:
        identity = ", ".join(self._definition.event_id) or "none"
        version = self._glance().get("version") or "none yet"
        return f"EventSource({self.project}/{self.name}, event_id: {identity}, version: {version})"

    def _repr_html_(self) -> str:
        from seeknal.values.display import sheet

        dated = self._definition.materialization
        facts = {
            "event id": self._definition.event_id,
            "event time": dated.event_time_col,
            "created time": dated.created_time_col,
            "description": self.description,
        }
        return sheet(f"Event source {self.project}/{self.name}", facts | self._glance())

    @property
    def definition(self) -> EventGroup:
        """The definition of the source, without its frame."""
        return self._definition
