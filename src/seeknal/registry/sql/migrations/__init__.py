"""Numbered migrations of the registry's tables, which Alembic runs on registries of earlier releases.

A migration never changes once it is released, and names tables and columns by itself: those of `seeknal.registry.sql.tables` are
the tables of today. A new one is a file beside these with the next number, which runs on both databases (PostgreSQL registries begin at 0004), the same change in `seeknal.registry.sql.tables`, and
its number in `seeknal.registry.sql.upgrade`.
"""
