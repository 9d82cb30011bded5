"""The registry in a SQLite database."""
