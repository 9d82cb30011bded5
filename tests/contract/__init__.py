"""Proof of the offline contract, rule by rule, through the public classes."""
