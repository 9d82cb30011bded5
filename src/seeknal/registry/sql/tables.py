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
from sqlalchemy.types import TypeEngine

metadata = MetaData()


def _text(size: int | None = None) -> TypeEngine[str]:
    """Return the type of a text, which has an order by bytes. Its size is for readers: SQLite checks none, and PostgreSQL gets none."""
    of_sqlite: TypeEngine[str] = Text() if size is None else String(size)
    return of_sqlite.with_variant(Text(collation="C"), "postgresql")


def _id() -> TypeEngine[int]:
    """Return the type of an id, which has 63 bits."""
    return BigInteger().with_variant(Integer(), "sqlite")


entity = Table(
    "entity",
    metadata,
    Column("id", _id(), primary_key=True, autoincrement=False),
    Column("project", _text(128), nullable=False),
    Column("name", _text(128), nullable=False),
    Column("join_keys", _text(), nullable=False),
    Column("pii_keys", _text(), nullable=False),
    Column("description", _text()),
    UniqueConstraint("project", "name"),
)

feature_group = Table(
    "feature_group",
    metadata,
    Column("id", _id(), primary_key=True, autoincrement=False),
    Column("project", _text(128), nullable=False),
    Column("name", _text(128), nullable=False),
    Column("entity_id", ForeignKey("entity.id"), nullable=False),
    Column("description", _text()),
    Column("event_time_col", _text()),
    Column("created_time_col", _text()),
    Column("ttl", BigInteger),
    Column("online", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("event_id", _text()),
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
    Column("text", _text(), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
"""The versions of a windowed group's definition."""

snapshot = Table(
    "snapshot",
    metadata,
    Column("group_id", ForeignKey("feature_group.id", ondelete="CASCADE"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("schema_text", _text(), nullable=False),
    Column("mode", _text(16), nullable=False),
    Column("start", BigInteger),
    Column("end", BigInteger),
    Column("written", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("newest", BigInteger),
    Column("next_row_id", BigInteger, nullable=False),
    Column("files", _text()),
    Column("at", BigInteger, nullable=False),
)
"""The schema of a version is stored with its first snapshot. Its later snapshots have an empty text, unless an earlier release
recorded them."""

snapshot_of_version = Index("snapshot_of_version", snapshot.c.group_id, snapshot.c.version, snapshot.c.number)
"""With it, a query finds the last snapshot of each version without reading the earlier ones."""

load = Table(
    "load",
    metadata,
    Column("id", _id(), primary_key=True, autoincrement=False),
    Column("group_id", ForeignKey("feature_group.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("target", _text(), nullable=False),
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
    Column("entity", _text(64), primary_key=True),
    Column("at", BigInteger, nullable=False),
)

online_table = Table(
    "online_table",
    metadata,
    Column("project", _text(128), primary_key=True),
    Column("name", _text(128), primary_key=True),
    Column("lookups", _text(), nullable=False),
    Column("ttl", BigInteger),
    Column("target", _text(), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("view", Integer),
    Column("log", Float),
)
"""A table that serves a version of a feature view has the number of that version as its `view`."""

training_set = Table(
    "training_set",
    metadata,
    Column("project", _text(128), primary_key=True),
    Column("name", _text(128), primary_key=True),
    Column("pins", _text(), nullable=False),
    Column("question", _text(), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("content_hash", _text(64), nullable=False),
    Column("has_rows", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("folder", _text(), nullable=False),
    Column("view", _text()),
)

feature_view = Table(
    "feature_view",
    metadata,
    Column("project", _text(128), primary_key=True),
    Column("name", _text(128), primary_key=True),
    Column("description", _text()),
    Column("owner", _text()),
    Column("tags", _text(), nullable=False),
)

view_version = Table(
    "view_version",
    metadata,
    Column("project", _text(128), primary_key=True),
    Column("name", _text(128), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("text", _text(), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
)
"""The versions of a feature view, which do not change; only whether they are retired does."""

model = Table(
    "model",
    metadata,
    Column("project", _text(128), primary_key=True),
    Column("view", _text(128), primary_key=True),
    Column("name", _text(256), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("training_set", _text(128), primary_key=True),
    Column("uri", _text()),
    Column("created_at", BigInteger, nullable=False),
)
"""The models that registered themselves with a training set of a view."""

token = Table(
    "token",
    metadata,
    Column("id", _text(16), primary_key=True),
    Column("name", _text(128), nullable=False, unique=True),
    Column("project", _text(128), nullable=False),
    Column("rights", _text(), nullable=False),
    Column("digest", _text(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)
