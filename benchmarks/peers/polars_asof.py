"""Polars: `join_asof`, read from Parquet, in the spine's order."""

from __future__ import annotations

import polars as pl
from job import Job, Task, work


def join(task: Task) -> Job:
    """Join a Polars spine, and give a Polars frame."""
    spine = pl.read_parquet(task["spine"])

    def job() -> pl.DataFrame:
        answer = spine.lazy()
        moments = spine.lazy().sort("at")
        for group in task["groups"]:
            rows = pl.scan_parquet(group["file"])
            rows = rows.select([*group["keys"], "seen_at", *(["made_at"] if task["ties"] else []), *group["features"]])
            rows = rows.sort(["seen_at", "made_at"] if task["ties"] else "seen_at")
            rows = rows.rename({name: f"{group['prefix']}{name}" for name in group["features"]}).drop(
                "made_at", strict=False
            )
            interval = f"{task['ttl']}us" if task["ttl"] else None
            found = moments.join_asof(
                rows,
                left_on="at",
                right_on="seen_at",
                by_left=list(group["keys"].values()),
                by_right=list(group["keys"]),
                tolerance=interval,
                check_sortedness=False,
            )
            found = found.sort("row").select([f"{group['prefix']}{name}" for name in group["features"]])
            answer = pl.concat([answer, found], how="horizontal")
        return answer.collect()

    return job


if __name__ == "__main__":
    work({"join": join})
