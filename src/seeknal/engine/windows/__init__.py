"""Windowed features, computed exactly from sorted events. Nothing here reads or stores anything."""

from seeknal.engine.windows.inputs import Events, Moments
from seeknal.engine.windows.kernel import compute

__all__ = ["Events", "Moments", "compute"]
