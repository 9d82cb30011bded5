"""Windowed features with as little code as possible: DuckDB sorts shares of the entities, NumPy aggregates them on two threads.

Its sums are those of NumPy, which depend on the order of the values; it knows no ties, no nulls in keys and no other types.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from job import Job, Task, work

SHARES = 16


def windows(task: Task) -> Job:
    """Join an Arrow spine, and return an Arrow table."""
    spine = pq.read_table(task["spine"])

    def job() -> pa.Table:
        connection = duckdb.connect(config={"memory_limit": "50%"})
        files = ", ".join(f"'{file}'" for file in task["files"])
        whose, at = spine["user_id"].to_numpy(), spine["at"].cast(pa.int64()).to_numpy()
        answer: dict[str, np.ndarray] = {}
        for name in task["lengths"]:
            answer |= {f"{short}_{name}": np.full(len(at), np.nan) for short in ("sum", "mean", "low", "high", "std")}
            answer[f"n_{name}"] = np.zeros(len(at), np.int64)
        share_of = whose % SHARES

        def share(number: int) -> None:
            events = (
                connection.cursor()
                .sql(
                    f"""SELECT user_id, epoch_us("at") AS "at", amount FROM read_parquet([{files}])
                    WHERE user_id % {SHARES} = {number} ORDER BY user_id, 2"""
                )
                .to_arrow_table()
            )
            mine = np.flatnonzero(share_of == number)
            mine = mine[
                np.lexsort((at[mine], whose[mine]))
            ]  # neighbouring windows overlap, which `reduceat` is fast for
            keys, times = events["user_id"].to_numpy(), events["at"].to_numpy()
            values = events["amount"].to_numpy()
            first, span = int(times.min()), int(times.max() - times.min()) + 2
            codes = keys * span + (times - first) + 1
            base = whose[mine] * span
            known = ~np.isnan(values)
            numbers = np.concatenate([[0], np.cumsum(known)])
            kept = values[known]
            padded = np.append(kept, 0.0)

            def until(moments: np.ndarray) -> np.ndarray:
                return np.searchsorted(codes, base + np.clip(moments - first + 1, 0, span - 1), side="right")

            stop = until(at[mine])
            for name, length in task["lengths"].items():
                start = until(at[mine] - length)
                low, high = numbers[start], numbers[stop]
                count = high - low
                some = np.flatnonzero(count)
                pairs = np.ravel(np.column_stack([low[some], high[some]]))
                answer[f"n_{name}"][mine] = stop - start
                if not len(some):
                    continue
                total = np.add.reduceat(padded, pairs)[::2]
                mean = total / count[some]
                where = mine[some]
                answer[f"sum_{name}"][where], answer[f"mean_{name}"][where] = total, mean
                answer[f"low_{name}"][where] = np.minimum.reduceat(padded, pairs)[::2]
                answer[f"high_{name}"][where] = np.maximum.reduceat(padded, pairs)[::2]
                squares = np.add.reduceat(padded * padded, pairs)[::2]
                several = count[some] > 1
                spread = np.maximum(squares - total * mean, 0)[several] / (count[some][several] - 1)
                answer[f"std_{name}"][where[several]] = np.sqrt(spread)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(share, range(SHARES)))
        return pa.table({name: pa.array(column, from_pandas=True) for name, column in answer.items()})

    return job


if __name__ == "__main__":
    work({"windows": windows})
