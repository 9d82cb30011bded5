"""What Prometheus is told: of each table, and of the server."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from seeknal.freshness import Freshness
from seeknal.parts import Read

_TABLE = ["project", "table"]
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


class TableMetrics:
    """Counts what is asked of one table.

    Args:
        metrics: What it belongs to.
        labels: Project and table.
    """

    def __init__(self, metrics: Metrics, labels: tuple[str, str]) -> None:
        self._tally = metrics.tally
        self._seconds = metrics.seconds.labels(*labels)
        self._keys = metrics.keys.labels(*labels)
        self._not_found = metrics.not_found.labels(*labels)
        self._expired = metrics.expired.labels(*labels)

    def answered(self, keys: int, reads: Iterable[Read], seconds: float) -> None:
        """Count an answer, the rows that were not found, and those that had expired."""
        self._seconds.observe(seconds)
        self._tally[self._keys] += keys
        for read in reads:
            if None in read.alive:
                absent = read.rows.count(None)
                self._tally[self._not_found] += absent
                self._tally[self._expired] += read.alive.count(None) - absent


class Metrics:
    """Counts what this worker does; with several workers, all count in files of one folder, and any can tell of all.

    It counts in the event loop's thread only.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        self._shown = CollectorRegistry() if shared else self._registry
        if shared:
            MultiProcessCollector(self._shown)  # type: ignore[no-untyped-call]  # it has no types
        self.seconds = Histogram(
            "seeknal_online_seconds",
            "Time to answer a request to an online table.",
            _TABLE,
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.keys = Counter("seeknal_online_keys", "Entities asked for.", _TABLE, registry=self._registry)
        self.not_found = Counter(
            "seeknal_online_not_found", "Rows that groups did not have.", _TABLE, registry=self._registry
        )
        self.expired = Counter("seeknal_online_expired", "Rows that had expired.", _TABLE, registry=self._registry)
        self.answers = Counter(
            "seeknal_answers", "Answers, by route and status.", ["route", "status"], registry=self._registry
        )
        self.tally: defaultdict[Any, int] = defaultdict(int)
        self._tables: dict[tuple[str, str], TableMetrics] = {}
        self._answers: dict[tuple[str, int], Any] = {}

    def table(self, project: str, name: str) -> TableMetrics:
        """Give what counts for a table."""
        if (found := self._tables.get((project, name))) is None:
            found = self._tables[project, name] = TableMetrics(self, (project, name))
        return found

    def answered(self, route: str, status: int) -> None:
        """Count an answer."""
        if (found := self._answers.get((route, status))) is None:
            found = self._answers[route, status] = self.answers.labels(route, str(status))
        self.tally[found] += 1

    def flush(self) -> None:
        """Let others see what was counted."""
        while self.tally:
            counter, number = self.tally.popitem()
            counter.inc(number)

    def text(self, project: str | None, ages: Iterable[Freshness], at: int) -> bytes:
        """Write all that is counted and flushed, as Prometheus reads it.

        Args:
            project: The project to tell of, and nothing of the server; all, if None.
            ages: How fresh the tables are.
            at: What counts as now, in microseconds since 1970.
        """
        return generate_latest(_Selected([*self._shown.collect(), *_ages(ages, at)], project))


def _ages(ages: Iterable[Freshness], at: int) -> Iterator[Metric]:
    age = GaugeMetricFamily("seeknal_online_data_age_seconds", "Time since the newest event online.", labels=_TABLE)
    behind = GaugeMetricFamily("seeknal_online_behind", "1 if newer rows are stored than are online.", labels=_TABLE)
    for one in ages:
        behind.add_metric([one.project, one.table], float(one.is_behind))
        if one.newest is not None:
            age.add_metric([one.project, one.table], (at - one.newest) / 1e6)
    yield from (age, behind)


class _Selected:
    """Metrics of one project, or all."""

    def __init__(self, metrics: Iterable[Metric], project: str | None) -> None:
        self._metrics = metrics
        self._project = project

    def collect(self) -> Iterator[Metric]:
        """Give them."""
        for metric in self._metrics:
            if self._project is not None:
                metric.samples = [one for one in metric.samples if one.labels.get("project") == self._project]
            yield metric
