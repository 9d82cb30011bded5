"""The classes of the user's guide, by engine."""
