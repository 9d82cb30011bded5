"""Writes the rows of the repository, with what stores treat differently: ties, late rows, rows past their ttl, missing values."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HOUR, MICROSECOND = timedelta(hours=1), timedelta(microseconds=1)
UTC_US = pa.timestamp("us", "UTC")


def write(folder: Path, now: datetime) -> None:
    """Write all files, with event times before a moment."""
    folder.mkdir(exist_ok=True)
    pq.write_table(spend(now), folder / "spend.parquet")
    (folder / "stock").mkdir(exist_ok=True)
    for part in (0, 1):
        pq.write_table(stock(now, part), folder / "stock" / f"part{part}.parquet")
    deltalake.write_deltalake(folder / "basket", basket(now))
    pq.write_table(kinds(now), folder / "kinds.parquet")
    weather = {
        "airport": ["AMS", "CGK", "AMS"],
        "at": [now - 30 * HOUR, now - 3 * HOUR, now - HOUR],
        "wind": [1.5, 2.5, None],
    }
    pq.write_table(
        pa.table(weather, pa.schema([("airport", pa.string()), ("at", UTC_US), ("wind", pa.float64())])),
        folder / "weather.parquet",
    )
    pq.write_table(pa.table({"at": pa.array([now - HOUR], UTC_US), "inflation": [2.0]}), folder / "country.parquet")
    pq.write_table(
        pa.table({"customer_id": [1], "at": pa.array([now - HOUR], UTC_US), "lost": [1.0]}), folder / "gone.parquet"
    )


def spend(now: datetime) -> pa.Table:
    """Return hourly rows of five customers; each third has a correction with the same event time."""
    rows = []
    for customer in range(1, 6):
        for hour in range(48, 3 * customer - 3, -1):  # customer 1 is fresh, the others stopped hours ago
            at = now - hour * HOUR
            value = customer * 100 + hour
            rows.append((customer, at, at + MICROSECOND, value / 3, value, "USD" if hour % 2 else "EUR", hour % 5 > 0))
            if hour % 3 == 0:
                rows.append((customer, at, at + 90 * MICROSECOND, value / 7, -value, None, None))
    rows.append((6, now - HOUR, now - HOUR, None, None, None, None))
    schema = [
        ("customer_id", pa.int64()),
        ("at", UTC_US),
        ("recorded_at", pa.timestamp("us")),
        ("amount", pa.float64()),
    ]
    schema += [("visits", pa.int64()), ("currency", pa.string()), ("is_member", pa.bool_())]
    columns = [list(column) for column in zip(*rows, strict=True)]
    columns[2] = [one.replace(tzinfo=None) for one in columns[2]]
    order = np.random.default_rng(7).permutation(len(rows))
    return pa.table(
        [pa.array(c, kind) for c, (_, kind) in zip(columns, schema, strict=True)], [n for n, _ in schema]
    ).take(order)


def stock(now: datetime, part: int) -> pa.Table:
    """Return counts of three products; one moment was counted twice, with different results."""
    base = np.datetime64(now.replace(tzinfo=None), "ns")
    at = base - np.array([400, 300, 200, 100, 100, 7][part::2]) * np.timedelta64(1, "D") + np.timedelta64(1, "ns")
    sku = ["A", "B", "A", "A", "A", "C"][part::2]
    kinds = {"sku": pa.string(), "counted": pa.timestamp("ns"), "qty": pa.int32(), "prc": pa.float64()}
    values = [sku, at, [10, 20, 30, 40, 50, None][part::2], [1.1, 2.2, 3.3, 4.4, 5.5, 6.6][part::2]]
    return pa.table([pa.array(v, k) for v, k in zip(values, kinds.values(), strict=True)], list(kinds))


def basket(now: datetime) -> pa.Table:
    """Return rows of pairs of a customer and a product."""
    pairs = [(1, "A", 3), (1, "A", 1), (1, "B", 2), (2, "A", 40 * 24), (3, "C", 5)]
    return pa.table(
        {
            "customer_id": [one for one, _, _ in pairs],
            "sku": [sku for _, sku, _ in pairs],
            "at": pa.array([now - hours * HOUR for *_, hours in pairs], UTC_US),
            "amount": [0.1, 0.2, 0.3, 0.4, 0.5],
            "note": ["ä", None, "", "x,\n'y'", "ok"],
        }
    )


def kinds(now: datetime) -> pa.Table:
    """Return values of many types, with missing ones."""
    return pa.table(
        {
            "customer_id": [1, 2, 3],
            "at": pa.array([now - HOUR] * 3, UTC_US),
            "seen": pa.array([now - 5 * HOUR, None, now], UTC_US),
            "scores": pa.array([[0.1, 0.2], None, []], pa.list_(pa.float32())),
            "names": pa.array([["x", "y"], [], None], pa.list_(pa.string())),
            "raw": pa.array([b"\x00\xff", None, b""], pa.binary()),
            "big": pa.array([2**53 + 1, None, -(2**63)], pa.int64()),
        }
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2]).astimezone(UTC))
