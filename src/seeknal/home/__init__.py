"""A home: the feature store in a folder, opened, backed up and examined."""
