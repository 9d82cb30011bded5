"""The rows and spines of the joins, generated from a seed: the same on every machine, and kept for the next run.

Beside each file of rows or moments is `codes.npy`, the number of each row's entity. The oracle uses these numbers, so it
does not depend on keys.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAY = 86_400_000_000
START = 1_700_000_000_000_000 // DAY * DAY
FEATURES = [*(f"share_{i}" for i in range(5)), *(f"count_{i}" for i in range(3)), *(f"word_{i}" for i in range(2))]
WIDE = [f"value_{i}" for i in range(200)]
KEYS = {"composite": ["shop_id", "person_id"], "text": ["person"]}
_PART, _ROW_GROUP = 10_000_000, 2**17
_SHOPS = 1000
_WORDS = np.array([f"{word:08x}" for word in np.random.default_rng(0).integers(0, 2**32, 1000)])


@dataclass(frozen=True)
class Made:
    """A folder with generated rows or a spine.

    Args:
        folder: The folder.
        keys: The columns of the join keys.
        features: The columns of the features; none for a spine.
    """

    folder: Path
    keys: list[str]
    features: list[str]

    @property
    def file(self) -> Path:
        """The rows."""
        return self.folder / "rows.parquet"

    @property
    def codes(self) -> np.ndarray:
        """The number of the entity of each row."""
        return np.load(self.folder / "codes.npy")


def rows(root: Path, count: int, keys: int, *, kind: str = "plain", seed: int = 1, days: int = 90) -> Made:
    """Create the rows of a group: five floats, three whole numbers and two texts, or 200 small whole numbers."""
    features = WIDE if kind == "wide" else FEATURES
    name = f"rows-{kind}-{count}-{keys}-{days}-{seed}"

    def part(rng: np.random.Generator, size: int) -> tuple[np.ndarray, dict[str, Any]]:
        codes = (keys * rng.random(size) ** 4).astype("int64") if kind == "skewed" else rng.integers(0, keys, size)
        times = START + rng.integers(0, days * DAY, size)
        if kind == "ties":
            times = times // DAY * DAY
        columns = {**_keys(kind, codes, keys), "seen_at": pa.array(times, pa.timestamp("us", "UTC"))}
        if kind == "ties":
            columns["made_at"] = pa.array(times + rng.integers(0, 30 * DAY, size), pa.timestamp("us", "UTC"))
        return codes, columns | _features(rng, size, kind)

    return _kept(root / name, Made(root / name, KEYS.get(kind, ["person_id"]), features), count, seed, part)


def spine(root: Path, count: int, keys: int, *, kind: str = "plain", days: int = 90) -> Made:
    """Create a spine: row numbers, keys of which one in fifty is unknown, and moments; shuffled, or sorted by key and moment."""
    name = f"spine-{kind}-{count}-{keys}-{days}"

    def part(rng: np.random.Generator, size: int) -> tuple[np.ndarray, dict[str, Any]]:
        codes = rng.integers(0, keys + keys // 50, size)
        if kind == "skewed":
            codes = (keys * rng.random(size) ** 4).astype("int64")
        times = START + rng.integers(0, days * DAY, size)
        if kind == "ties":
            times = times // DAY * DAY
        if kind == "sorted":
            order = np.lexsort((times, codes))
            codes, times = codes[order], times[order]
        moments = {"row": np.arange(size), "at": pa.array(times, pa.timestamp("us", "UTC"))}
        return codes, _keys(kind, codes, keys) | moments

    return _kept(root / name, Made(root / name, KEYS.get(kind, ["person_id"]), []), count, 1000, part, whole=True)


def day(number: int, count: int, keys: int, *, seed: int = 1) -> tuple[np.ndarray, pa.Table]:
    """Return the rows of one day, in order of time, and the number of the entity of each."""
    rng = np.random.default_rng([seed, number])
    codes = rng.integers(0, keys, count)
    times = START + number * DAY + np.sort(rng.integers(0, DAY, count))
    moments = {"person_id": codes, "seen_at": pa.array(times, pa.timestamp("us", "UTC"))}
    return codes, pa.table(moments | _features(rng, count, "plain"))


def keep(folder: Path, table: pa.Table, codes: np.ndarray, keys: list[str], features: list[str]) -> Made:
    """Store a table that was created elsewhere beside the others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = Made(folder, keys, features)
    pq.write_table(table, made.file, row_group_size=_ROW_GROUP)
    np.save(folder / "codes.npy", codes)
    return made


Part = Callable[[np.random.Generator, int], tuple[np.ndarray, dict[str, Any]]]


def _kept(folder: Path, made: Made, count: int, seed: int, part: Part, *, whole: bool = False) -> Made:
    """Create the folder if it does not exist yet, part by part, and rename it into place when it is complete."""
    if folder.exists():
        return made
    under_way = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(under_way, ignore_errors=True)
    under_way.mkdir(parents=True)
    every, writer, size = [], None, count if whole else _PART
    for start in range(0, count, size):
        codes, columns = part(np.random.default_rng([seed, start]), min(size, count - start))
        every.append(codes)
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(under_way / "rows.parquet", table.schema)
        writer.write_table(table, row_group_size=_ROW_GROUP)
    if writer:
        writer.close()
    np.save(under_way / "codes.npy", np.concatenate(every))
    under_way.rename(folder)
    return made


def _keys(kind: str, codes: np.ndarray, keys: int) -> dict[str, Any]:
    if kind == "composite":
        return {"shop_id": codes % _SHOPS, "person_id": codes // _SHOPS}
    if kind == "text":
        names = pa.array([f"person-{code:09d}" for code in range(keys + keys // 50)])
        return {"person": names.take(pa.array(codes))}
    return {"person_id": codes}


def _features(rng: np.random.Generator, size: int, kind: str) -> dict[str, Any]:
    if kind == "wide":
        return {name: rng.integers(0, 1000, size, dtype="int32") for name in WIDE}
    columns: dict[str, Any] = {name: rng.random(size) for name in FEATURES[:5]}
    columns |= {name: rng.integers(0, 1_000_000, size) for name in FEATURES[5:8]}
    return columns | {name: pa.array(_WORDS).take(pa.array(rng.integers(0, 1000, size))) for name in FEATURES[8:]}
