"""The query engine on DuckDB."""

from seeknal.engine.duckdb.engine import DuckDBEngine

__all__ = ["DuckDBEngine"]
