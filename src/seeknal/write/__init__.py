"""Writes (rows go offline), pushes (rows go offline and online, one by one), and maintenance of what is stored."""
