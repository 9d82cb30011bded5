"""Query engines over stored rows. An engine keeps the contract, or raises an error."""

from seeknal.engine.protocol import Engine, FeatureRequest, Request, Spool, WindowRequest

__all__ = ["Engine", "FeatureRequest", "Request", "Spool", "WindowRequest"]
