"""The command line: each command parses its arguments, calls the store, and renders the result."""

from seeknal.cli.app import main

__all__ = ["main"]
