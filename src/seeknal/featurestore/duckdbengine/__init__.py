"""The import path that the user's guide has for its classes on DuckDB."""
