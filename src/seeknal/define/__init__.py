"""Definitions: feature groups, lookups and schemas. No data, no I/O."""
