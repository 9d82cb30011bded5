"""The best SQL that a hand would write: DuckDB over the Parquet files of Seeknal's own offline tables.

One query per group, its features put beside the spine in its order, as that takes less than one query for all. Pruned:
the rows are narrowed down to the spine's keys before they are joined.
"""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow.parquet as pq
from job import Job, Task, work


def query(task: Task, group: dict[str, Any]) -> str:
    """Write the query for one group."""
    keys, files = group["keys"], group["files"]
    ties = ", r.made_at" if task["ties"] else ""
    far = ", TIMESTAMPTZ '9999-01-01'" if task["ties"] else ""
    place = f"row(r.seen_at{ties})" if ties else "r.seen_at"
    moment = f"row(s.at{far})" if ties else "s.at"
    fresh = f"s.at - r.seen_at <= INTERVAL {task['ttl']} MICROSECONDS" if task["ttl"] else ""
    features = ", ".join(
        f"CASE WHEN {fresh} THEN r.{name} END AS {group['prefix']}{name}"
        if fresh
        else f"r.{name} AS {group['prefix']}{name}"
        for name in group["features"]
    )
    same = " AND ".join(f"s.{there} = r.{own}" for own, there in keys.items())
    narrow = f"AS r SEMI JOIN spine ON {same.replace('s.', 'spine.')}" if task["how"] == "pruned" else ""
    columns = ", ".join([*keys, "seen_at", *(["made_at"] if ties else []), *group["features"]])
    return f"""
        SELECT {features}
        FROM spine AS s ASOF LEFT JOIN (SELECT {columns} FROM read_parquet({files}) {narrow}) AS r
          ON {same} AND {moment} >= {place}
        ORDER BY s.row
    """


def join(task: Task) -> Job:
    """Join an Arrow spine, and give an Arrow table."""
    spine = pq.read_table(task["spine"])

    def job() -> Any:
        connection = duckdb.connect(config={"memory_limit": task.get("limit", "80%")})
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("spine", spine)
        answer = spine
        for group in task["groups"]:
            found = connection.sql(query(task, group)).to_arrow_table()
            for name in found.column_names:
                answer = answer.append_column(name, found[name])
        return answer.to_pandas() if task.get("to") == "pandas" else answer

    return job


def copy(task: Task) -> Job:
    """Write an Arrow table to one Parquet file, as Seeknal's are: the least that a write can cost."""
    rows = pq.read_table(task["rows"])

    def job() -> None:
        connection = duckdb.connect()
        connection.register("rows", rows)
        connection.execute(
            f"COPY (SELECT * FROM rows) TO '{task['home']}/copy.parquet' (FORMAT parquet, COMPRESSION snappy)"
        )

    return job


if __name__ == "__main__":
    work({"join": join, "copy": copy})
