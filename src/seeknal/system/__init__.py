"""What the operating system and DuckDB are used through: locks, folders, processes, threads, progress."""
