"""Windowed features in Polars: rolling aggregations over events and spine together, one for each length."""

from __future__ import annotations

import polars as pl
from job import Job, Task, work


def windows(task: Task) -> Job:
    """Join a Polars spine, and return a Polars frame."""
    spine = pl.read_parquet(task["spine"])

    def job() -> pl.DataFrame:
        events = pl.scan_parquet(task["files"]).select(
            "user_id", "at", "amount", is_event=pl.lit(1, pl.Int64), row=pl.lit(None, pl.Int64)
        )
        asked = spine.lazy().select(
            "user_id", "at", amount=pl.lit(None, pl.Float64), is_event=pl.lit(0, pl.Int64), row="row"
        )
        both = pl.concat([events, asked]).sort("user_id", "at", "row", nulls_last=False).collect()
        parts = []
        x = pl.col("amount")
        for name, length in task["lengths"].items():
            found = both.rolling("at", period=f"{length}us", group_by="user_id", closed="right").agg(
                pl.col("row").last(),
                pl.col("is_event").sum().alias(f"n_{name}"),
                pl.when(x.count() > 0).then(x.sum()).alias(f"sum_{name}"),
                x.mean().alias(f"mean_{name}"),
                x.min().alias(f"low_{name}"),
                x.max().alias(f"high_{name}"),
                x.std().alias(f"std_{name}"),
            )
            found = found.filter(pl.col("row").is_not_null()).sort("row").drop("user_id", "at")
            parts.append(found.drop("row"))
        return pl.concat(parts, how="horizontal")

    return job


if __name__ == "__main__":
    work({"windows": windows})
