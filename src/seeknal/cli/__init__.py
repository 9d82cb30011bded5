"""The command line: arguments in, one call on the store, a rendering out."""

from seeknal.cli.app import main

__all__ = ["main"]
