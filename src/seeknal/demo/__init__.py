"""The demo: the main job of a feature store on real data, told on the terminal."""

from seeknal.demo.story import run

__all__ = ["run"]
