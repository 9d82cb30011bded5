"""Joins: training sets, histories and latest rows, made from the stored rows that were known at each moment."""
