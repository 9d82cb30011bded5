"""Types, times, frames, the exact conversion of values between them, and SQL text."""
