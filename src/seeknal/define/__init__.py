"""Definitions of feature groups, lookups and schemas. Nothing here does I/O or keeps data."""
