"""pandas: `merge_asof`, read from Parquet, in the spine's order."""

from __future__ import annotations

import pandas as pd
from job import Job, Task, work


def join(task: Task) -> Job:
    """Join a pandas spine, and give a pandas frame."""
    spine = pd.read_parquet(task["spine"])

    def job() -> pd.DataFrame:
        answer = spine.sort_values("at", kind="stable")
        for group in task["groups"]:
            columns = [*group["keys"], "seen_at", *(["made_at"] if task["ties"] else []), *group["features"]]
            rows = pd.read_parquet(group["file"], columns=columns)
            rows = rows.sort_values(["seen_at", "made_at"] if task["ties"] else "seen_at", kind="stable")
            names = group["keys"] | {name: f"{group['prefix']}{name}" for name in group["features"]}
            rows, by, interval = rows.rename(columns=names), list(group["keys"].values()), None
            if task["ttl"]:
                interval = pd.Timedelta(task["ttl"], "us")
            answer = pd.merge_asof(answer, rows, left_on="at", right_on="seen_at", by=by, tolerance=interval)
            answer = answer.drop(columns=[name for name in ("seen_at", "made_at") if name in answer])
        return answer.sort_values("row", kind="stable")

    return job


if __name__ == "__main__":
    work({"join": join})
