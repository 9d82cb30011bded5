"""What Prometheus is told: of each table, and of the server."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from seeknal.freshness import Freshness
from seeknal.server.totals import Counts, Key, SharedTotals, Totals
from seeknal.serving import Read

_TABLE = ["project", "table"]
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_BOUNDS = [*map(str, map(float, _BUCKETS)), "+Inf"]
_SECONDS, _BUCKET, _ANSWERS = "seconds", "bucket", "answers"
_COUNTERS = {
    "keys": "Entities asked for.",
    "not_found": "Rows that groups did not have.",
    "expired": "Rows that had expired.",
}


class TableMetrics:
    """Counts what is asked of one table.

    Args:
        tally: Where it is noted.
        labels: Project and table.
    """

    def __init__(self, tally: defaultdict[Key, float], labels: tuple[str, str]) -> None:
        self._tally = tally
        self._keys, self._not_found, self._expired = ((name, *labels) for name in _COUNTERS)
        self._seconds = (_SECONDS, *labels)
        self._buckets = [(_BUCKET, *labels, bound) for bound in _BOUNDS]
        for key in (self._keys, self._not_found, self._expired):
            tally[key] += 0  # so that they show as 0, before there is one

    def answered(self, keys: int, reads: Iterable[Read], seconds: float) -> None:
        """Count an answer, the rows that were not found, and those that had expired."""
        tally = self._tally
        tally[self._seconds] += seconds
        tally[self._buckets[bisect_left(_BUCKETS, seconds)]] += 1
        tally[self._keys] += keys
        for read in reads:
            if None in read.alive:
                absent = read.rows.count(None)
                tally[self._not_found] += absent
                tally[self._expired] += read.alive.count(None) - absent


class Metrics:
    """Counts what this worker does, in the event loop's thread, and adds it some times a second to the totals.

    Args:
        totals: What all workers counted.
    """

    def __init__(self, totals: Totals | SharedTotals) -> None:
        self._totals = totals
        self._tally: defaultdict[Key, float] = defaultdict(float)
        self._tables: dict[tuple[str, str], TableMetrics] = {}

    def table(self, project: str, name: str) -> TableMetrics:
        """Give what counts for a table."""
        if (found := self._tables.get((project, name))) is None:
            found = self._tables[project, name] = TableMetrics(self._tally, (project, name))
        return found

    def answered(self, route: str, status: int) -> None:
        """Count an answer."""
        self._tally[_ANSWERS, route, str(int(status))] += 1

    def flush(self) -> None:
        """Add what was counted to the totals."""
        self._totals.add(self._tally)

    def text(self, project: str | None, ages: Iterable[Freshness], at: int) -> bytes:
        """Write all that is counted and flushed, as Prometheus reads it.

        Args:
            project: The project to tell of, and nothing of the server; all, if None.
            ages: How fresh the tables are.
            at: What counts as now, in microseconds since 1970.

        Raises:
            StoreError: The totals cannot be read.
        """
        totals = self._totals.read()
        if project is not None:
            totals = {key: number for key, number in totals.items() if key[0] != _ANSWERS and key[1] == project}
        return generate_latest(_Families([*_counted(totals), *_ages(ages, at)]))


def _counted(totals: Counts) -> Iterator[Metric]:
    seconds = HistogramMetricFamily(
        "seeknal_online_seconds", "Time to answer a request to an online table.", labels=_TABLE
    )
    for _, *labels in sorted(key for key in totals if key[0] == _SECONDS):
        numbers = accumulate(totals.get((_BUCKET, *labels, bound), 0) for bound in _BOUNDS)
        seconds.add_metric(labels, list(zip(_BOUNDS, numbers, strict=True)), totals[_SECONDS, *labels])
    yield seconds
    for name, about in _COUNTERS.items():
        yield _counter(f"seeknal_online_{name}", about, _TABLE, totals, name)
    yield _counter("seeknal_answers", "Answers, by route and status.", ["route", "status"], totals, _ANSWERS)


def _counter(name: str, about: str, labels: Sequence[str], totals: Counts, kind: str) -> Metric:
    found = CounterMetricFamily(name, about, labels=labels)
    for key in sorted(key for key in totals if key[0] == kind):
        found.add_metric(key[1:], totals[key])
    return found


def _ages(ages: Iterable[Freshness], at: int) -> Iterator[Metric]:
    age = GaugeMetricFamily("seeknal_online_data_age_seconds", "Time since the newest event online.", labels=_TABLE)
    behind = GaugeMetricFamily("seeknal_online_behind", "1 if newer rows are stored than are online.", labels=_TABLE)
    for one in ages:
        behind.add_metric([one.project, one.table], float(one.is_behind))
        if one.newest is not None:
            age.add_metric([one.project, one.table], (at - one.newest) / 1e6)
    yield from (age, behind)


class _Families:
    """Metrics, as Prometheus collects them."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Give them."""
        return self._metrics
