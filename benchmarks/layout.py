"""Compare layouts of a group's rows in Parquet files: the cost of writing, of reading, and of rewriting one day.

    python benchmarks/layout.py [--rows 10000000] [--rounds 3] [--only 2^18 ...]

Uses bare DuckDB, without Seeknal, so that a layout can be tried before it is implemented. Every layout is written in the
same way, rounds alternate, and figures are medians of CPU seconds over all cores, because others may use the machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import data
import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from environments import HERE

_BLOCK, _SMALL = 2**17, 10_000
_ORDER = "ORDER BY person_id, seen_at"


@dataclass(frozen=True)
class Layout:
    """Files of whole days with at least this many rows (0: one file), their compression, and the `order` within a file."""

    name: str
    least: int = 0
    compression: str = "zstd"
    order: str = ""
    more: str = ""


LAYOUTS = [
    Layout("one file, zstd"),
    Layout("one file, lz4_raw", compression="lz4_raw"),
    Layout("one file, snappy", compression="snappy"),
    Layout("one file, snappy, sorted", compression="snappy", order=_ORDER),
    Layout("2^20 rows, snappy", 2**20, "snappy"),
    Layout("2^19 rows, snappy", 2**19, "snappy"),
    Layout("2^18 rows, snappy", 2**18, "snappy"),
    Layout("2^18 rows, zstd", 2**18),
    Layout("2^18 rows, lz4_raw", 2**18, "lz4_raw"),
    Layout("2^18 rows, snappy, row groups of 32k", 2**18, "snappy", more=", ROW_GROUP_SIZE 32768"),
    Layout("2^18 rows, snappy, sorted", 2**18, "snappy", _ORDER),
    Layout("2^17 rows, snappy", 2**17, "snappy"),
    Layout("2^16 rows, snappy", 2**16, "snappy"),
]


def pieces(rows: pa.Table, least: int) -> Iterator[pa.Table]:
    """Cut rows into groups of whole days, each with at least this many rows."""
    days = (rows["seen_at"].cast(pa.int64()).to_numpy() - data.START) // data.DAY
    ends, taken = [], 0
    for day, count in enumerate(np.bincount(days)):
        taken += int(count)
        if taken >= least:
            ends.append(day)
            taken = 0
    which = np.searchsorted(ends, days)
    parts: list[list[pa.Table]] = [[] for _ in range(which.max() + 1)]
    for start in range(0, len(rows), _BLOCK):
        order = np.argsort(which[start : start + _BLOCK], kind="stable")
        block = rows.slice(start, _BLOCK).take(pa.array(order))
        edges = np.searchsorted(which[start : start + _BLOCK][order], np.arange(len(parts) + 1)).tolist()
        for part, (first, end) in zip(parts, pairwise(edges), strict=True):
            part.append(block.slice(first, end - first))
    yield from map(pa.concat_tables, parts)


def write(layout: Layout, rows: pa.Table, folder: Path) -> None:
    """Write rows in a layout."""
    connection = duckdb.connect()

    def copy(piece: tuple[int, pa.Table]) -> None:
        cursor = connection.cursor()
        cursor.register("piece", piece[1])
        cursor.execute(
            f"COPY (SELECT * FROM piece {layout.order}) TO '{folder}/{piece[0]}.parquet' "
            f"(FORMAT parquet, COMPRESSION {layout.compression}{layout.more})"
        )

    if not layout.least:
        copy((0, rows))
        return
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(copy, enumerate(pieces(rows, layout.least))))


def join(files: list[Path], spine: pa.Table, since: int | None = None, until: int | None = None) -> None:
    """Join a spine with the rows of the files, filtered by its keys if it is small."""
    connection = duckdb.connect()
    connection.register("spine", spine)
    narrow = "SEMI JOIN spine USING (person_id)" if len(spine) <= _SMALL else ""
    where = f"WHERE epoch_us(seen_at) BETWEEN {since} AND {until}" if since else ""
    connection.sql(f"""
        SELECT r.* EXCLUDE (person_id, seen_at) FROM spine AS s ASOF LEFT JOIN
        (SELECT * FROM read_parquet({[str(file) for file in files]}) {narrow} {where}) AS r
        ON s.person_id = r.person_id AND s.at >= r.seen_at ORDER BY s.row
    """).to_arrow_table()


def of_span(files: list[Path], since: int, until: int) -> list[Path]:
    """Return the files with rows in an interval, as the log of a table would list them."""

    def has(file: Path) -> bool:
        found = duckdb.sql(f"SELECT epoch_us(min(seen_at)), epoch_us(max(seen_at)) FROM '{file}'").fetchall()[0]
        return bool(found[0] <= until and found[1] >= since)

    return [file for file in files if has(file)]


def measure(layout: Layout, rows: pa.Table, spines: dict[str, pa.Table]) -> Iterator[tuple[str, float]]:
    """Write rows in a layout, read them, and rewrite one day."""
    with tempfile.TemporaryDirectory(dir=HERE / ".data") as folder:
        place = Path(folder)
        started = time.process_time()
        write(layout, rows, place)
        yield "write", time.process_time() - started
        files = sorted(place.iterdir())
        yield "MB", sum(file.stat().st_size for file in files) / 1e6
        yield "files", len(files)
        for name, spine in spines.items():
            bounds = [int(edge(spine["at"].cast(pa.int64()).to_numpy())) for edge in (np.min, np.max)]
            interval = (bounds[0] - 7 * data.DAY, bounds[1]) if "week" in name else (None, None)
            seen = of_span(files, interval[0], interval[1]) if interval[0] and interval[1] else files
            started = time.process_time()
            join(seen, spine, *interval)
            yield name, time.process_time() - started
        day = data.START + 45 * data.DAY
        touched = of_span(files, day, day + data.DAY - 1)
        started = time.process_time()
        kept = pa.concat_tables(pq.read_table(file) for file in touched)
        write(Layout("", compression=layout.compression, order=layout.order), kept, place)
        yield "a day", time.process_time() - started


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[""], help="layouts whose name has one of these in it")
    options = parser.parse_args()
    root, keys = HERE / ".data", options.rows // 10
    rows = pq.read_table(data.rows(root, options.rows, keys).file)
    spines = {
        "spine 1M": pq.read_table(data.spine(root, 1_000_000, keys).file),
        "spine 10k": pq.read_table(data.spine(root, 10_000, keys).file),
        "spine 10k of a month, ttl of a week": pq.read_table(data.spine(root, 10_000, keys, days=30).file),
    }
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    layouts = [one for one in LAYOUTS if any(part in one.name for part in options.only)]
    for number in range(options.rounds):
        for layout in layouts[:: 1 if number % 2 == 0 else -1]:
            for what, value in measure(layout, rows, spines):
                found[layout.name][what].append(value)
    print("| layout |", " | ".join(found[layouts[0].name]), "|")
    print("|---|" + "--:|" * len(found[layouts[0].name]))
    for name, values in found.items():
        print(f"| {name} |", " | ".join(f"{statistics.median(one):.3g}" for one in values.values()), "|")


if __name__ == "__main__":
    main()
