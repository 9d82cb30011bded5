"""Windowed features in SQL: one range join of the longest window, with a filter for each shorter one."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from job import Job, Task, work


def windows(task: Task) -> Job:
    """Join an Arrow spine, and return an Arrow table."""
    spine = pq.read_table(task["spine"])

    def job() -> pa.Table:
        connection = duckdb.connect(config={"memory_limit": "50%"})
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("spine", spine)
        longest = max(task["lengths"].values())
        columns = []
        for name, length in task["lengths"].items():
            inside = f"FILTER (e.at > s.at - to_microseconds({length}))"
            columns += [
                f"count(e.user_id) {inside} AS n_{name}",
                *(
                    f"{function}(e.amount) {inside} AS {short}_{name}"
                    for short, function in (
                        ("sum", "sum"),
                        ("mean", "avg"),
                        ("low", "min"),
                        ("high", "max"),
                        ("std", "stddev"),
                    )
                ),
            ]
        files = ", ".join(f"'{file}'" for file in task["files"])
        return connection.sql(
            f"""SELECT s.row, {", ".join(columns)} FROM spine AS s LEFT JOIN read_parquet([{files}]) AS e
                ON e.user_id = s.user_id AND e.at <= s.at AND e.at > s.at - to_microseconds({longest})
                GROUP BY s.row ORDER BY s.row"""
        ).to_arrow_table()

    return job


if __name__ == "__main__":
    work({"windows": windows})
