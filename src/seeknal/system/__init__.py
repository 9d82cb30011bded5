"""Wrappers around the operating system and DuckDB: locks, folders, processes, threads, progress."""
