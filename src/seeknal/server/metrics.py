"""Metrics of each table and of the server, for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from seeknal.serve.freshness import Freshness
from seeknal.serve.parts import Read
from seeknal.server.totals import Counts, Key, SharedTotals, Totals

_TABLE = ["project", "table"]
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_BOUNDS = [*map(str, map(float, _BUCKETS)), "+Inf"]
_SECONDS, _BUCKET, _ANSWERS = "seconds", "bucket", "answers"
_COUNTERS = {
    "keys": "Requested entities.",
    "not_found": "Rows that groups did not have, one per entity and group.",
    "expired": "Rows that had expired.",
}


class TableMetrics:
    """The counters of one table.

    Args:
        counts: The counts of this worker, to which those of the table are added.
        labels: Project and table.
    """

    def __init__(self, counts: defaultdict[Key, float], labels: tuple[str, str]) -> None:
        self._counts = counts
        self._keys, self._not_found, self._expired = ((name, *labels) for name in _COUNTERS)
        self._seconds = (_SECONDS, *labels)
        self._buckets = [(_BUCKET, *labels, bound) for bound in _BOUNDS]
        for key in (self._keys, self._not_found, self._expired):
            counts[key] += 0  # so that a counter is exported as 0 before it first counts

    def answered(self, keys: int, reads: Iterable[Read], seconds: float) -> None:
        """Count a response, the rows that were not found, and those that had expired."""
        counts = self._counts
        counts[self._seconds] += seconds
        counts[self._buckets[bisect_left(_BUCKETS, seconds)]] += 1
        counts[self._keys] += keys
        for read in reads:
            if None in read.alive:
                absent = read.rows.count(None)
                counts[self._not_found] += absent
                counts[self._expired] += read.alive.count(None) - absent


class Metrics:
    """The counters of this worker.

    They are counted in the event loop's thread, and added to the totals several times a second.

    Args:
        totals: The totals of all workers.
    """

    def __init__(self, totals: Totals | SharedTotals) -> None:
        self._totals = totals
        self._counts: defaultdict[Key, float] = defaultdict(float)
        self._tables: dict[tuple[str, str], TableMetrics] = {}

    def table(self, project: str, name: str) -> TableMetrics:
        """Return the counters of a table."""
        if (found := self._tables.get((project, name))) is None:
            found = self._tables[project, name] = TableMetrics(self._counts, (project, name))
        return found

    def answered(self, route: str, status: int) -> None:
        """Count a response."""
        self._counts[_ANSWERS, route, str(int(status))] += 1

    def flush(self) -> None:
        """Add the counts of this worker to the totals."""
        self._totals.add(self._counts)

    def text(self, project: str | None, ages: Iterable[Freshness], at: int) -> bytes:
        """Return all flushed counts, in the text format of Prometheus.

        Args:
            project: The project to report, without the server's own counts. None: everything.
            ages: The freshness of the tables.
            at: The time that counts as now, in microseconds since 1970.

        Raises:
            StoreError: The totals cannot be read.
        """
        totals = self._totals.read()
        if project is not None:
            totals = {key: number for key, number in totals.items() if key[0] != _ANSWERS and key[1] == project}
        return "\n".join([*_counted(totals), *_ages(list(ages), at), ""]).encode()


def _counted(totals: Counts) -> Iterator[str]:
    """Yield the counts in the text format of Prometheus. Names have no characters that would need escaping in a label."""
    yield from _head("seeknal_online_seconds", "histogram", "Response time of requests to an online table.")
    for _, project, table in _of(totals, _SECONDS):
        labels = _labels(project=project, table=table)
        numbers = accumulate(totals.get((_BUCKET, project, table, bound), 0) for bound in _BOUNDS)
        for bound, number in zip(_BOUNDS, numbers, strict=True):
            yield f'seeknal_online_seconds_bucket{{le="{bound}",{labels}}} {float(number)}'
        yield f"seeknal_online_seconds_count{{{labels}}} {float(number)}"
        yield f"seeknal_online_seconds_sum{{{labels}}} {totals[_SECONDS, project, table]}"
    for name, about in _COUNTERS.items():
        yield from _head(f"seeknal_online_{name}_total", "counter", about)
        for key in _of(totals, name):
            yield f"seeknal_online_{name}_total{{{_labels(project=key[1], table=key[2])}}} {float(totals[key])}"
    yield from _head("seeknal_answers_total", "counter", "Responses, by route and status.")
    for key in _of(totals, _ANSWERS):
        yield f"seeknal_answers_total{{{_labels(route=key[1], status=key[2])}}} {float(totals[key])}"


def _ages(ages: Sequence[Freshness], at: int) -> Iterator[str]:
    yield from _head("seeknal_online_data_age_seconds", "gauge", "Time since the newest event online.")
    for one in ages:
        if one.newest is not None:
            labels = _labels(project=one.project, table=one.table)
            yield f"seeknal_online_data_age_seconds{{{labels}}} {(at - one.newest) / 1e6}"
    yield from _head("seeknal_online_behind", "gauge", "1 if newer rows are stored than are online.")
    for one in ages:
        yield f"seeknal_online_behind{{{_labels(project=one.project, table=one.table)}}} {float(one.is_behind)}"


def _of(totals: Counts, kind: str) -> list[Key]:
    return sorted(key for key in totals if key[0] == kind)


def _head(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _labels(**labels: str) -> str:
    return ",".join(f'{name}="{value}"' for name, value in labels.items())
