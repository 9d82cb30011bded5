"""The feature server: each request becomes one call on the feature store, and its result the response."""
