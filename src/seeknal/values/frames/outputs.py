"""The values of `output=`, by which the overloads of a call tell the types of its results apart."""

from __future__ import annotations

from typing import Literal

Pandas = Literal["pandas"]
Polars = Literal["polars"]
Arrow = Literal["arrow"]
DuckDB = Literal["duckdb"]
Dicts = Literal["dicts"]
