"""Asks both stores for the same rows, and lists each value that differs with the reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.errors import SeeknalError
from seeknal.feast.equality import as_served, same
from seeknal.feast.history import History
from seeknal.feast.process import Feast, Question
from seeknal.feast.reasons import ONLINE, PAST, UNEXPLAINED, Place, Reasons
from seeknal.feast.spines import MOMENT, NUMBER, entities_of, spine_of
from seeknal.feast.units import Unit, keys_of
from seeknal.home.store import FeatureStore
from seeknal.system.progress import OnProgress, no_progress
from seeknal.values.times import now, show


@dataclass(frozen=True)
class Difference:
    """A value that the two stores return differently.

    Args:
        unit: The feature service, or the feature view if no service reads it.
        kind: "past", at a moment of the spine, or "online".
        keys: The keys, as "driver_id=1001".
        moment: The moment.
        feature: The feature; None if Feast returned no row at all.
        feast: Feast's value.
        seeknal: Seeknal's value.
        why: The reason.
    """

    unit: str
    kind: str
    keys: str
    moment: str
    feature: str | None
    feast: Any
    seeknal: Any
    why: str


@dataclass(frozen=True)
class Compared:
    """The outcome of one question to both stores.

    Args:
        unit: The feature service, or the feature view if no service reads it.
        kind: "past" or "online".
        rows: The rows that were asked for.
        values: The values that were compared.
        differences: Those that differ. A row that Feast left out is one difference.
        note: Why nothing was compared; empty if both stores answered.
        has_failed: Whether that is a failure, of either store.
    """

    unit: str
    kind: str
    rows: int
    values: int = 0
    differences: list[Difference] = field(default_factory=list)
    note: str = ""
    has_failed: bool = False

    @property
    def reasons(self) -> Counter[str]:
        """How many differences have each reason."""
        return Counter(one.why for one in self.differences)

    @property
    def is_explained(self) -> bool:
        """Whether no store failed, and each difference has a reason."""
        return not self.has_failed and UNEXPLAINED not in self.reasons


def compare(
    feast: Feast,
    store: FeatureStore,
    units: Sequence[Unit],
    *,
    given: pa.Table | None = None,
    online: bool = True,
    on_progress: OnProgress = no_progress,
) -> list[Compared]:
    """Ask both stores for the same rows, and return what differs.

    Args:
        feast: The Feast repository.
        store: The store.
        units: What to ask for.
        given: A spine with the moments in the column event_timestamp. None: one is made for each unit from the rows of its groups.
        online: Whether to compare what is served, too. Seeknal then serves each unit.
        on_progress: Called with each step.
    """
    at = now()
    asked: list[tuple[Unit, Question, pa.Table]] = []
    compared: list[Compared] = []
    for unit in units:
        spine = spine_of(unit, at) if given is None else _fitting(unit, given)
        if isinstance(spine, str):
            compared.append(Compared(unit.name, PAST, 0, note=spine, has_failed=True))
            continue
        asked.append((unit, _question(unit, PAST, spine), spine))
        if away := [group.view.name for _, group in unit.lookups if not group.view.is_online]:
            compared.append(
                Compared(unit.name, ONLINE, 0, note=f"Feast does not serve {away[0]}: it has online=False.")
            )
        elif online:
            rows = entities_of(unit, spine)
            asked.append((unit, _question(unit, ONLINE, rows), rows))
    if not asked:
        return compared
    on_progress("Asking Feast")
    answers = feast.compute([question for _, question, _ in asked], _first_event(asked), at / 1_000_000)
    for (unit, question, rows), answer in zip(asked, answers, strict=True):
        on_progress(f"Comparing {unit.name}")
        compared.append(_compared(store, unit, question.kind, rows, answer, at))
    return compared


def _question(unit: Unit, kind: str, rows: pa.Table) -> Question:
    service = unit.name if unit.view else None
    features = () if service else tuple(f"{unit.name}:{name}" for name in unit.names)
    views = tuple(dict.fromkeys(group.view.name for _, group in unit.lookups))
    return Question(kind, service, features, views, unit.full_names, rows)


def _fitting(unit: Unit, given: pa.Table) -> pa.Table | str:
    """Return the columns of a spine that a unit needs, or the sentence that says which are missing."""
    needed = [*unit.keys, MOMENT, *unit.request]
    if missing := [name for name in needed if name not in given.column_names]:
        return f"The spine has no column {', '.join(missing)}."
    return given.select(needed).add_column(0, NUMBER, pa.array(range(given.num_rows), pa.int64()))


def _first_event(asked: Sequence[tuple[Unit, Question, pa.Table]]) -> float:
    """Return the first event time of all groups, in seconds since 1970."""
    first = []
    for group in {group.label: group for unit, _, _ in asked for _, group in unit.lookups}.values():
        time = group.group.event_time_col
        least = pc.min(group.rows.read([time]).read_all()[time])
        if least.is_valid:
            first.append(least.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).as_py() / 1_000_000)
    return min(first, default=0.0)


def _compared(store: FeatureStore, unit: Unit, kind: str, rows: pa.Table, answer: pa.Table | str, at: int) -> Compared:
    if isinstance(answer, str):
        return Compared(unit.name, kind, rows.num_rows, note=f"Feast failed: {answer}", has_failed=True)
    try:
        found = unit.past(store, rows, MOMENT).to_pylist() if kind == PAST else unit.online(store, rows, at)
    except SeeknalError as error:
        return Compared(unit.name, kind, rows.num_rows, note=f"Seeknal failed: {error}", has_failed=True)
    if kind == ONLINE:
        found = [{name: as_served(value) for name, value in row.items()} for row in found]
    theirs = _by_row(answer, kind)
    asked = rows.to_pylist()
    pairs = [
        (Place(kind, row, _microseconds(rows, place) if kind == PAST else at), ours, theirs.get(place))
        for place, (row, ours) in enumerate(zip(asked, found, strict=True))
    ]
    wrong = [pair for pair in pairs if pair[2] is None or _differing(unit, pair[1], pair[2])]
    functions = store.views.recipe(unit.view).functions if unit.view else None
    reasons = Reasons(unit, asked, _histories(unit, [place for place, _, _ in wrong]), functions)
    differences = [one for pair in wrong for one in _differences(unit, pair, reasons)]
    values = sum(len(unit.names) for pair in pairs if pair[2] is not None)
    return Compared(unit.name, kind, rows.num_rows, values, differences)


def _by_row(answer: pa.Table, kind: str) -> dict[int, dict[str, Any]]:
    """Return Feast's rows by the number of the row that was asked for."""
    if kind == PAST:
        return {row[NUMBER]: row for row in answer.to_pylist()}
    return {place: {name: json.loads(one) for name, one in row.items()} for place, row in enumerate(answer.to_pylist())}


def _microseconds(rows: pa.Table, place: int) -> int:
    moment: int = rows[MOMENT][place].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).as_py()
    return moment


def _differing(unit: Unit, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [name for name in unit.names if not same(ours[name], theirs[name])]


def _histories(unit: Unit, places: Sequence[Place]) -> dict[str, History]:
    """Return the rows of each group for the keys of some places, by the name of the group."""
    groups, keys = {}, dict[str, set[tuple[Any, ...]]]()
    for lookup, group in unit.lookups:
        groups[group.group.name] = group
        keys.setdefault(group.group.name, set()).update(place.key(keys_of(lookup, group)) for place in places)
    return {name: History(group, keys[name]) for name, group in groups.items()}


def _differences(
    unit: Unit,
    pair: tuple[Place, Mapping[str, Any], Mapping[str, Any] | None],
    reasons: Reasons,
) -> Iterator[Difference]:
    place, ours, theirs = pair
    keys = ", ".join(f"{name}={place.row[name]}" for name in unit.keys)

    def difference(feature: str | None, feast: Any, seeknal: Any, why: str) -> Difference:
        return Difference(unit.name, place.kind, keys, show(place.moment), feature, feast, seeknal, why)

    if theirs is None:
        yield difference(None, "no row", "a row", reasons.of_missing_row(place))
        return
    for name in _differing(unit, ours, theirs):
        yield difference(name, theirs[name], ours[name], reasons.of_value(name, place, ours, theirs))
