"""Loads into a Valkey cluster of three nodes, and lookups from it.

    python benchmarks/online_cluster.py --entities 50000000

Each group has its entities on one node, so several groups share the nodes out. The table has the load rate, the memory that Valkey needs for an
entity beyond an empty server, and how long lookups take while nothing else goes on: of one entity, and of 100.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from seeknal import Entity, FeatureLookup, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Valkey, cluster

MOMENT = 1_704_067_200_000_000
BATCH = 2_000_000
GROUPS = 9


def main() -> None:
    """Load, look up, and print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entities", type=int, default=9_000_000)
    parser.add_argument("--lookups", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        nodes = cluster(Path(folder) / "nodes")
        try:
            _measure(FeatureStore(Path(folder) / "home", online_store=nodes[0].url), nodes, asked)
        finally:
            for node in nodes:
                node.stop()


def _measure(store: FeatureStore, nodes: list[Valkey], asked: argparse.Namespace) -> None:
    entities = asked.entities // GROUPS
    before, seconds, tables = _memory(nodes), 0.0, []
    for number in range(GROUPS):
        group = FeatureGroup(f"group{number}", Entity("person", ["person_id"]), Materialization("at"), "bench")
        store.groups.write(group, _frames(number, entities), mode="append")
        began = time.perf_counter()
        tables.append(store.tables.serve([FeatureLookup(group)], f"table{number}"))
        seconds += time.perf_counter() - began
        used = sum(_memory(nodes)) - sum(before)
        done = (number + 1) * entities
        print(f"{done:>12,} entities: {done / seconds:,.0f}/s, {used / done:.1f} bytes an entity", flush=True)
    print("MB of each node:", *(f"{(now - then) / 1e6:,.0f}" for now, then in zip(_memory(nodes), before, strict=True)))
    random = np.random.default_rng(7)
    for size in (1, 100):
        took = []
        for i in range(asked.lookups // size):
            table = tables[i % GROUPS]
            keys = [{"person_id": key} for key in random.integers(0, entities, size).tolist()]
            began = time.perf_counter()
            found = table.get_features(keys, "dicts")
            took.append(1e6 * (time.perf_counter() - began))
            assert all(row["total"] == row["person_id"] / 7 for row in found)  # noqa: S101 - wrong answers are worth nothing
        print(f"lookups of {size}: p50 {statistics.median(took):,.0f} us, p99 {np.quantile(took, 0.99):,.0f} us")


def _frames(number: int, entities: int) -> pa.RecordBatchReader:
    """Return one row of each entity: two doubles, an integer and a text."""
    schema = pa.schema(
        {
            "person_id": pa.int64(),
            "at": pa.timestamp("us", "UTC"),
            "total": pa.float64(),
            "share": pa.float64(),
            "visits": pa.int64(),
            "segment": pa.string(),
        }
    )

    def batches():  # noqa: ANN202
        random = np.random.default_rng(number)
        for start in range(0, entities, BATCH):
            keys = np.arange(start, min(start + BATCH, entities))
            columns = [
                pa.array(keys),
                pa.array(MOMENT + keys % 86_400_000_000, schema.field("at").type),
                pa.array(keys / 7),
                pa.array(random.random(len(keys))),
                pa.array(random.integers(0, 1000, len(keys))),
                pa.array(np.array(["new", "loyal", "leaving", "back"])[keys % 4]),
            ]
            yield pa.record_batch(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _memory(nodes: list[Valkey]) -> list[int]:
    """Return the bytes that each node uses."""
    used = []
    for node in nodes:
        with node.client() as client:
            used.append(client.info("memory")["used_memory"])
    return used


if __name__ == "__main__":
    main()
