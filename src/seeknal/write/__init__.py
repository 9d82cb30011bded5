"""Writing: rows go offline, or both offline and online row by row; and the upkeep of what is stored."""
