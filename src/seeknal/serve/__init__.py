"""Serving: online tables return features by key, and verification proves that they return what training reads."""
