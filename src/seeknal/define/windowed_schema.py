"""The schema of a windowed group, which follows from its definition and the schema of its source."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from seeknal.define.aggregations import WindowedFeature
from seeknal.define.aggregations.result_types import type_of
from seeknal.define.columns import check_columns
from seeknal.define.schema import Schema, check_key
from seeknal.define.windowed_group import WindowedGroup
from seeknal.errors import DefinitionError
from seeknal.names import did_you_mean


def schema_of(group: WindowedGroup, events: Schema) -> Schema:
    """Return the keys, event time and features of a windowed group, with their types.

    Args:
        group: The definition.
        events: The schema of the source.

    Raises:
        DefinitionError: The source lacks a column, or an aggregation makes no sense for the type of its column.
        DataError: A column cannot be a join key.
    """
    columns = {field.name: field.type for field in events}
    for name in group.entity.join_keys:
        if name not in columns:
            raise DefinitionError(
                f"Entity {group.entity.name!r} of group {group.name!r} is identified by {name!r}, which {group.origin} does not "
                f"have.{did_you_mean(name, columns)}",
                column=name,
            )
    features = tuple(pa.field(one.name, _type(group, one, columns)) for one in group.windows)
    check_columns([*group.entity.join_keys, events.event_time.name, *(field.name for field in features)])
    keys = tuple(check_key(pa.field(name, columns[name])) for name in group.entity.join_keys)
    return Schema(keys, events.event_time, None, features)


def _type(group: WindowedGroup, feature: WindowedFeature, columns: Mapping[str, pa.DataType]) -> pa.DataType:
    try:
        return type_of(feature.aggregation, columns)
    except DefinitionError as error:
        raise DefinitionError(
            f"Feature {feature.name!r} of group {group.name!r}: {error}", feature=feature.name
        ) from None
