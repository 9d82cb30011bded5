"""Conversion between rows of the registry and records."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Row

from seeknal.define.event_group import EventGroup
from seeknal.define.feature_group import FeatureGroup, Materialization
from seeknal.define.windowed_group import WindowedGroup, features_of
from seeknal.entity import Entity
from seeknal.registry.records import (
    GroupRecord,
    OnlineTableRecord,
    PinnedLookup,
    Question,
    TokenRecord,
    TrainingSetRecord,
    ViewUse,
)

if TYPE_CHECKING:
    from seeknal.offline import Commit, DataFile


def entity_of(row: Row[tuple[object, ...]]) -> Entity:
    """Return the entity in a row."""
    return Entity.stored(
        row.name, msgspec.json.decode(row.join_keys), row.description, msgspec.json.decode(row.pii_keys)
    )


def group_of(row: Row[tuple[object, ...]]) -> GroupRecord:
    """Return the group in a row that is joined with its entity, its source and its definition."""
    return GroupRecord(row.id, _definition_of(row), row.created_at)


def _definition_of(row: Row[tuple[object, ...]]) -> FeatureGroup | WindowedGroup:
    keys = (msgspec.json.decode(column) for column in (row.join_keys, row.pii_keys))
    materialization = Materialization(
        event_time_col=row.event_time_col,
        created_time_col=row.created_time_col,
        ttl=None if row.ttl is None else timedelta(microseconds=row.ttl),
        online=bool(row.online),
    )
    named = {"name": row.name, "project": row.project, "description": row.description}
    if row.event_id is not None:
        return EventGroup(**named, materialization=materialization, event_id=tuple(msgspec.json.decode(row.event_id)))
    join_keys, pii_keys = keys
    entity = Entity.stored(row.entity_name, join_keys, row.entity_description, pii_keys)
    if row.definition is None:
        return FeatureGroup(**named, entity=entity, materialization=materialization)
    features, hop = features_of(row.text)
    source = f"{row.source_project}/{row.source_name}"
    return WindowedGroup(**named, entity=entity, source=source, features=features, hop=hop)


def online_table_of(row: Row[tuple[object, ...]]) -> OnlineTableRecord:
    """Return the online table in a row."""
    lookups = msgspec.json.decode(row.lookups, type=tuple[PinnedLookup, ...])
    return OnlineTableRecord(row.project, row.name, lookups, row.ttl, row.target, row.created_at, row.view, row.log)


def training_set_of(row: Row[tuple[object, ...]]) -> TrainingSetRecord:
    """Return the training set in a row."""
    return TrainingSetRecord(
        row.project,
        row.name,
        msgspec.json.decode(row.pins, type=tuple[PinnedLookup, ...]),
        msgspec.json.decode(row.question, type=Question),
        row.rows,
        row.content_hash,
        bool(row.has_rows),
        row.created_at,
        row.folder,
        None if row.view is None else msgspec.json.decode(row.view, type=ViewUse),
    )


def files_of(text: str | None) -> tuple[DataFile, ...] | None:
    """Return the files that replaced those of a snapshot; None if it has its own."""
    if text is None:
        return None
    from seeknal.offline import DataFile

    return msgspec.json.decode(text, type=tuple[DataFile, ...])


def values_of(commit: Commit) -> dict[str, object]:
    """Return the values of the row for a commit."""
    names = ("version", "schema_text", "mode", "written", "rows", "newest", "next_row_id", "at")
    values = {name: getattr(commit, name) for name in names}
    return values | {
        "files": None,
        "number": commit.snapshot,
        "start": commit.interval.start,
        "end": commit.interval.end,
    }


def token_of(row: Row[tuple[object, ...]]) -> TokenRecord:
    """Return the token in a row."""
    rights = msgspec.json.decode(row.rights, type=tuple[str, ...])
    return TokenRecord(row.id, row.name, row.project, rights, row.digest, row.created_at, row.revoked_at)
