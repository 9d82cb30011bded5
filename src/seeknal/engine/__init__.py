"""Engines answer three questions about stored rows. Each holds the contract or refuses."""

from seeknal.engine.protocol import Engine, FeatureRequest

__all__ = ["Engine", "FeatureRequest"]
