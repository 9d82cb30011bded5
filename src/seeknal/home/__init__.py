"""A home, which is a feature store in a folder: opening it, backing it up and checking its health."""
