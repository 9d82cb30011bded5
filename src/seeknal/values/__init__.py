"""Values: types, times, frames, and their exact conversion; the text of SQL."""
