"""The registry in SQL, the same statements for SQLite and PostgreSQL: its tables, their migrations, and all calls of the protocol."""
