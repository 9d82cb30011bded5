"""Joining: training sets, history and the latest rows, from stored rows as they were known at each moment."""
