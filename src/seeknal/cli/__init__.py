"""The command line: each command parses its arguments, calls the store, and renders the result.

Commands import what they need when they run, so that `--help` and short commands start fast.
"""

from seeknal.cli.app import main

__all__ = ["main"]
