"""The query engine that is built on DuckDB."""

from seeknal.engine.duckdb.engine import DuckDBEngine

__all__ = ["DuckDBEngine"]
