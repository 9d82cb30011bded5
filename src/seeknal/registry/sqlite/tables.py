"""The tables of the registry's database."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

entity = Table(
    "entity",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("join_keys", Text, nullable=False),
    Column("pii_keys", Text, nullable=False),
    Column("description", Text),
    UniqueConstraint("project", "name"),
)

feature_group = Table(
    "feature_group",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project", String(128), nullable=False),
    Column("name", String(128), nullable=False),
    Column("entity_id", ForeignKey("entity.id"), nullable=False),
    Column("description", Text),
    Column("event_time_col", Text),
    Column("created_time_col", Text),
    Column("ttl", BigInteger),
    Column("online", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("event_id", Text),
    Column("source_id", ForeignKey("feature_group.id")),
    Column("definition", Integer),
    UniqueConstraint("project", "name"),
)
"""An event source has an `event_id`. A windowed group has a source, and the number of its current definition."""

definition = Table(
    "definition",
    metadata,
    Column("group_id", ForeignKey("feature_group.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
"""The versions of a windowed group's definition."""

snapshot = Table(
    "snapshot",
    metadata,
    Column("group_id", ForeignKey("feature_group.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("schema_text", Text, nullable=False),
    Column("mode", String(16), nullable=False),
    Column("start", BigInteger),
    Column("end", BigInteger),
    Column("written", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("newest", BigInteger),
    Column("next_row_id", BigInteger, nullable=False),
    Column("files", Text),
    Column("at", BigInteger, nullable=False),
)
"""The schema of a version is stored with its first snapshot. Its later snapshots have an empty text, unless an earlier release
recorded them."""

snapshot_of_version = Index("snapshot_of_version", snapshot.c.group_id, snapshot.c.version, snapshot.c.number)
"""With it, a query finds the last snapshot of each version without reading the earlier ones."""

load = Table(
    "load",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("group_id", ForeignKey("feature_group.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("target", Text, nullable=False),
    Column("start", BigInteger),
    Column("end", BigInteger),
    Column("snapshot", BigInteger),
    Column("rows", BigInteger),
    Column("seconds", Float),
    Column("at", BigInteger),
)
"""A row without `at` is a request whose load has not ended. The name of the online store is the `target`."""

erasure = Table(
    "erasure",
    metadata,
    Column("group_id", ForeignKey("feature_group.id", ondelete="CASCADE"), primary_key=True),
    Column("entity", String(64), primary_key=True),
    Column("at", BigInteger, nullable=False),
)

online_table = Table(
    "online_table",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("lookups", Text, nullable=False),
    Column("ttl", BigInteger),
    Column("target", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("view", Integer),
    Column("log", Float),
)
"""A table that serves a version of a feature view has the number of that version as its `view`."""

training_set = Table(
    "training_set",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("pins", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("has_rows", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("folder", Text, nullable=False),
    Column("view", Text),
)

feature_view = Table(
    "feature_view",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("description", Text),
    Column("owner", Text),
    Column("tags", Text, nullable=False),
)

view_version = Table(
    "view_version",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
)
"""The versions of a feature view, which do not change; only whether they are retired does."""

model = Table(
    "model",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("view", String(128), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("training_set", String(128), primary_key=True),
    Column("uri", Text),
    Column("created_at", BigInteger, nullable=False),
)
"""The models that registered themselves with a training set of a view."""

token = Table(
    "token",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("project", String(128), nullable=False),
    Column("rights", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)
