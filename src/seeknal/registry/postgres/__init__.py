"""The registry in a PostgreSQL database, which several machines share: one schema for each store."""
