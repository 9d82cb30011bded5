"""Query engines over stored rows. An engine keeps the contract, or raises an error."""

from seeknal.engine.protocol import Engine, FeatureRequest, Spool

__all__ = ["Engine", "FeatureRequest", "Spool"]
