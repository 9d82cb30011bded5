"""The feature server: a request in, one call on the feature store, its answer out."""
