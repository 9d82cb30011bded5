"""What both stores can be asked for: each imported service, and each imported view of Feast that no service reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from seeknal.define.feature_group import FeatureLookup
from seeknal.feast.importing import Imported
from seeknal.feast.plan import Plan, PlannedGroup
from seeknal.home.store import FeatureStore
from seeknal.registry import ViewRecord
from seeknal.views.feature_views import ViewSpine


@dataclass(frozen=True)
class Stored:
    """A stored feature of a unit: the group that has it, its name there, and the spine's columns by the keys of the group."""

    group: PlannedGroup
    feature: str
    keys: dict[str, str]


@dataclass(frozen=True)
class Unit:
    """What is asked for at once.

    Args:
        name: The name of the feature service or the feature view of Feast.
        view: The feature view of Seeknal; None if the features are those of a group.
        lookups: The lookups, each with its group.
        names: The features that Feast returns, in order.
        request: The types of request values.
        full_names: Whether Feast has to name features "view__feature".
    """

    name: str
    view: ViewRecord | None
    lookups: tuple[tuple[FeatureLookup, PlannedGroup], ...]
    names: tuple[str, ...]
    request: dict[str, pa.DataType]
    full_names: bool

    @property
    def stored(self) -> dict[str, Stored]:
        """The stored features by their names in the result, inputs of functions included."""
        return {
            lookup.output_name(feature): Stored(group, feature, keys_of(lookup, group))
            for lookup, group in self.lookups
            for feature in lookup.features or ()
        }

    @property
    def keys(self) -> dict[str, pa.DataType]:
        """The types of the keys, by the names of the spine's columns."""
        return {
            column: group.rows.kinds[key]
            for lookup, group in self.lookups
            for key, column in keys_of(lookup, group).items()
        }

    def past(self, store: FeatureStore, spine: pa.Table, date_col: str) -> pa.Table:
        """Return what Seeknal returns for the rows of a spine."""
        if self.view is None:
            return store.features.training_set([one for one, _ in self.lookups], spine, date_col, output="arrow")
        found: pa.Table = store.views.frame(self.view, ViewSpine(spine, date_col), "arrow")
        return found

    def online(self, store: FeatureStore, rows: pa.Table, at: int) -> list[dict[str, Any]]:
        """Serve the features, and return what Seeknal serves for some keys and request values at a moment."""
        if self.view is None:
            table = store.tables.serve([one for one, _ in self.lookups], self.name)
        else:
            table = store.views.serve(self.view)
        return table.get_features(rows.select([*self.keys, *self.request]), "dicts", at=at)


def keys_of(lookup: FeatureLookup, group: PlannedGroup) -> dict[str, str]:
    """Return the columns of a spine by the keys of a group."""
    return {key: (lookup.rename or {}).get(key, key) for key in group.group.keys}


def units_of(plan: Plan, made: Imported) -> Iterator[Unit]:
    """Yield what both stores can be asked for."""
    read = set()
    for name, record in made.views.items():
        view = plan.views[name]
        lookups = tuple((one, plan.groups[one.name]) for one in view.lookups)
        read |= {one.name for one in view.lookups}
        yield Unit(name, record, lookups, view.features, view.request, view.full_names)
    for name in made.groups:
        if name not in read:
            group = plan.groups[name]
            features = tuple(group.view.types)
            lookup = FeatureLookup(group.label, features)
            yield Unit(name, None, ((lookup, group),), features, {}, full_names=False)
