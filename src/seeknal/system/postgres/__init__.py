"""Connections to PostgreSQL: the URLs of databases, the sessions of a process, and locks that machines share."""
