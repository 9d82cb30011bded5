"""The import path of the user's guide for its classes on DuckDB."""
