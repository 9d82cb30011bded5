"""The demo: the main tasks of a feature store on real data, explained on the terminal."""

from seeknal.demo.story import run

__all__ = ["run"]
