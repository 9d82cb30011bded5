"""Whether a worker can answer lookups, and what it cannot read meanwhile.

A server of several that share a registry answers lookups while that is away, so it stays ready, and says what is away. Each service is
asked in a thread of its own, and by one request at a time, so that one that hangs neither delays the answer nor takes up threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from seeknal.errors import SeeknalError, StoreError
from seeknal.home.store import FeatureStore
from seeknal.server.definitions import Definitions

_SOON = 2.0
"""Seconds after which a service counts as away that has not answered."""
_MOST = 100
_STORE = "online store"

Faults = Mapping[str, SeeknalError]
"""Why tables cannot be looked up, by label; or why a service cannot be read, by its name."""


class Report(NamedTuple):
    """The state of a worker.

    Args:
        answers: Whether it can look up at least one of the online tables, or there are none.
        away: The kinds of services that cannot be read: "registry", "storage", "online store".
        errors: Why.
    """

    answers: bool
    away: list[str]
    errors: list[str]


class Readiness:
    """Asks the services of a worker whether they can be read.

    Args:
        store: The feature store.
        definitions: The tables, as the worker knows them.
    """

    def __init__(self, store: FeatureStore, definitions: Definitions) -> None:
        self._store = store
        self._definitions = definitions
        self._threads = ThreadPoolExecutor(_MOST, "ready")
        self._running: dict[tuple[str, str], asyncio.Future[Faults]] = {}

    async def look(self) -> Report:
        """Return the state of the worker, within two seconds."""
        tables = sorted(self._definitions.tables, key=attrgetter("target"))
        checks: dict[tuple[str, str], Callable[[], Faults]] = {
            ("registry", ""): partial(_faults_of, "registry", self._store.check_registry),
            ("storage", ""): partial(_faults_of, "storage", self._store.check_storage),
        }
        labels = {}
        for target, group in groupby(tables, attrgetter("target")):
            some = list(group)
            labels[_STORE, target] = [one.label for one in some]
            checks[_STORE, target] = partial(self._definitions.faults, some)
        asked = {what: self._ask(what, step) for what, step in checks.items()}
        await asyncio.wait(asked.values(), timeout=_SOON)
        faults = {
            what: one.result() if one.done() else dict.fromkeys(labels.get(what, what[:1]), _silent(what))
            for what, one in asked.items()
        }
        lacking = sum(len(faults[what]) for what in labels)
        errors = [str(error) for some in faults.values() for error in some.values()]
        away = dict.fromkeys(kind for (kind, _), some in faults.items() if some)
        return Report(not tables or lacking < len(tables), list(away), list(dict.fromkeys(errors)))

    def _ask(self, what: tuple[str, str], step: Callable[[], Faults]) -> asyncio.Future[Faults]:
        """Begin to ask a service, unless it has still not answered the request before."""
        if what not in self._running or self._running[what].done():
            self._running[what] = asyncio.get_running_loop().run_in_executor(self._threads, step)
        return self._running[what]

    def close(self) -> None:
        """Shut down the threads without waiting for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _faults_of(name: str, step: Callable[[], object]) -> Faults:
    try:
        step()
    except SeeknalError as error:
        return {name: error}
    return {}


def _silent(what: tuple[str, str]) -> StoreError:
    return StoreError(f"The {' '.join(filter(None, what))} has not answered within {_SOON:g} seconds.")
