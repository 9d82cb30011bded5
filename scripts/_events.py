"""Operations on event sources and on tables of their windows, and the content that they must leave; used by kill_sources.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa

from seeknal import Count, CountDistinct, Entity, FeatureLookup, FeatureStore, Max, Sum, WindowedGroup
from seeknal.define.event_group import event_group
from seeknal.values.times import Interval, instant

MINUTE, OLDEST, TABLE = 60_000_000, 300, "answers"
NOW = instant(datetime.now(UTC)) // MINUTE * MINUTE
"""Events are dated up to OLDEST minutes before."""
ASKED = (NOW, NOW + 45 * MINUTE)
SOURCES = {
    "orders": event_group("orders", "at", ["id"], project="shop"),
    "visits": event_group("visits", "at", project="shop"),
}
LOOKUPS = [FeatureLookup("shop/spending"), FeatureLookup("shop/visiting")]
CUSTOMER = Entity("customer", ["customer"])

Row = tuple[int, int, int, int]
"""An event: its id, its customer, its minutes before NOW, and its amount."""
Rows = frozenset[Row]


def spending(length: int) -> WindowedGroup:
    """Return a definition of the windows of orders, one of them of a length in minutes."""
    over = f"{length}m"
    features = {
        "spend": Sum("amount", over=over),
        "orders": Count(over="4h"),
        "amounts": CountDistinct("amount", over=over),
    }
    return WindowedGroup("spending", CUSTOMER, "shop/orders", features, "shop")


def visiting() -> WindowedGroup:
    """Return the definition of the windows of visits."""
    features = {"visits": Count(over="2h"), "most": Max("amount", over="4h")}
    return WindowedGroup("visiting", CUSTOMER, "shop/visits", features, "shop")


def windows_of_orders(rows: Rows, customer: int, moment: int, length: int) -> tuple[int | None, ...]:
    """Return the features of `spending`."""
    found = inside(rows, customer, moment, length)
    return (sum(found) if found else None, len(inside(rows, customer, moment, 240)), len(set(found)))


def windows_of_visits(rows: Rows, customer: int, moment: int) -> tuple[int | None, ...]:
    """Return the features of `visiting`."""
    return (len(inside(rows, customer, moment, 120)), max(inside(rows, customer, moment, 240), default=None))


def inside(rows: Rows, customer: int, moment: int, minutes: int) -> list[int]:
    """Return the amounts in a window."""
    begin = moment - minutes * MINUTE
    return [amount for _, one, ago, amount in rows if one == customer and begin < NOW - ago * MINUTE <= moment]


@dataclass(frozen=True)
class Model:
    """The expected content of a home.

    Args:
        rows: The events that count, by source.
        lengths: The length in each version of `spending`.
        current: The number of its current version.
        served: The length in the version that the table has.
    """

    rows: Mapping[str, Rows]
    lengths: tuple[int, ...] = (60,)
    current: int = 1
    served: int = 60


@dataclass(frozen=True)
class Deed:
    """An operation.

    Args:
        kind: What it does.
        number: Its number.
        source: The source that it concerns.
        rows: The events that it writes.
        value: The customer to erase, the version to return to, or the age in minutes up to which a source keeps its events.
    """

    kind: str
    number: int
    source: str = "orders"
    rows: Rows = frozenset()
    value: int = 0

    @property
    def is_repeatable(self) -> bool:
        """Whether the operation changes nothing when it is done again."""
        return (self.kind, self.source) != ("append", "visits")

    def loads(self, source: str) -> bool:
        """Return whether all events of a source are online once the operation has returned."""
        return self.kind in {"erase", "load", "serve"} or (
            self.kind in {"push", "correct", "clean"} and source == self.source
        )

    def after(self, old: Model) -> Model:
        """Return the expected content after the operation."""
        if self.kind == "erase":
            kept = {name: frozenset(one for one in rows if one[1] != self.value) for name, rows in old.rows.items()}
            return replace(old, rows=kept)
        if self.kind == "define":
            return replace(old, lengths=(*old.lengths, 60 + self.number), current=len(old.lengths) + 1)
        if self.kind == "roll back":
            return replace(old, current=self.value)
        if self.kind == "serve":
            return replace(old, served=old.lengths[old.current - 1])
        left = {one for one in old.rows[self.source] if not (self.source == "orders" and one[0] in self._ids)}
        if self.kind in {"overwrite", "clean"}:
            left = {one for one in left if one[2] <= self.value}
        return replace(old, rows={**old.rows, self.source: frozenset(left) | self.rows})

    @property
    def _ids(self) -> set[int]:
        return {one[0] for one in self.rows}

    def frame(self) -> pa.Table:
        """Return the events as a frame."""
        ids, customers, ago, amounts = zip(*sorted(self.rows), strict=True) if self.rows else ((), (), (), ())
        at = pa.array([NOW - one * MINUTE for one in ago], pa.timestamp("us", "UTC"))
        numbers = {"id": ids, "customer": customers, "amount": amounts}
        return pa.table({"at": at} | {name: pa.array(values, pa.int64()) for name, values in numbers.items()})

    def do(self, store: FeatureStore) -> None:
        """Execute the operation."""
        groups, edge = store.groups, NOW - self.value * MINUTE
        steps: Mapping[str, Callable[[], object]] = {
            "append": lambda: groups.write(SOURCES[self.source], self.frame(), mode="append"),
            "push": lambda: groups.push("orders", self.frame()),
            "correct": lambda: groups.push("orders", self.frame()),
            "overwrite": lambda: groups.write(SOURCES[self.source], self.frame(), interval=Interval(None, edge - 1)),
            "clean": lambda: groups.clean(self.source, edge),
            "erase": lambda: store.entities.erase("customer", {"customer": self.value}),
            "optimize": lambda: groups.optimize(self.source, keep_days=0),
            "load": lambda: store.tables.refresh([TABLE], full=self.number % 2 == 0),
            "define": lambda: groups.register(spending(60 + self.number)),
            "roll back": lambda: roll_back(store, self.value),
            "serve": lambda: serve(store),
        }
        steps[self.kind]()


def roll_back(store: FeatureStore, number: int) -> None:
    """Make a version of `spending` the current one, unless it is."""
    if store.groups.version("spending").number != number:
        store.groups.rollback("spending", number)


def serve(store: FeatureStore) -> None:
    """Serve the current versions of both windowed groups."""
    store.tables.serve(LOOKUPS, TABLE)


KINDS = (
    *("append", "push", "push", "correct", "correct", "overwrite", "clean", "erase", "optimize"),
    *("load", "serve", "define", "roll back"),
)
