"""The classes of the user's guide on DuckDB."""
