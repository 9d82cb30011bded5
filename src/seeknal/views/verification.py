"""Comparing what functions and defaults make of looked-up features, online and offline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from seeknal.engine import Engine
from seeknal.registry import ViewRecord
from seeknal.registry.source import Source
from seeknal.serve.verification import OTHER, Verified, difference_of, places_of_difference
from seeknal.values.times import Interval, now
from seeknal.values.types import UTC
from seeknal.views.feature_views import ViewSpine

if TYPE_CHECKING:
    from seeknal.request.recipe import Recipe
    from seeknal.serve.online_table import OnlineTable
    from seeknal.views.feature_views import FeatureViews

_SAMPLE = 1000
_TRIES = 5
_AT = "seeknal moment"
"""The column of the spine with the moments."""


def with_computed(
    views: FeatureViews,
    engine: Engine,
    served: OnlineTable,
    view: ViewRecord,
    verified: Verified,
    moment: int | None = None,
) -> Verified:
    """Return the outcome of comparing what a view looks up, with that of comparing what it computes.

    Up to 1,000 entities of each group are combined to rows. What needs request values cannot be compared without them.

    Args:
        views: The views of the store.
        engine: The engine that joins.
        served: The online table of the version.
        view: The version.
        verified: The outcome of comparing what it looks up.
        moment: The moment as of which both sides are read. None: now.
    """
    content = view.content
    computed = [name for name in content.features if name not in content.types and name not in content.request]
    made = [name for name in content.features if name in computed or name in content.defaults]
    if not made:
        return verified
    recipe, sources = views.recipe(view), views.sources(view)
    left = {name: why for name in made if (why := _why_not(recipe.only((name,)), sources, verified)) is not None}
    verified = replace(verified, not_compared=tuple(f"{name}: {why}" for name, why in left.items()))
    made = [name for name in made if name not in left]
    if not made:
        return verified
    keys = _keys(engine, sources)
    for _ in range(_TRIES):
        at = now() if moment is None else moment
        online = served.get_features(keys, "arrow", made, at=at)
        spine = keys.append_column(_AT, pa.array(np.full(len(keys), at)).cast(UTC))
        offline = views.frame(view, ViewSpine(spine, _AT, label=False), "arrow", recipe=recipe.only(made))
        differing = [
            (row, name, online[name][row], offline[name][row])
            for name in made
            for row in places_of_difference(online[name], offline[name])
        ]
        if not differing:  # else another process may have written in between
            break
    return _added(verified, view, keys, len(made) * len(keys), differing)


def _why_not(recipe: Recipe, sources: list[Source], verified: Verified) -> str | None:
    """Return why a feature cannot be compared; None if it can."""
    if recipe.request:
        return "it needs request values, which no stored entity has; verify(log=True) compares logged answers"
    if verified.cut_off:
        return "a group no longer feeds the table"
    if verified.different:
        return "what it is made of may differ"
    rounded = frozenset[str]().union(*(one.rounded for one in sources))
    return "it is made of variances, which agree up to a tolerance only" if rounded & recipe.looked_up.keys() else None


def _keys(engine: Engine, sources: list[Source]) -> pa.Table:
    """Return rows with stored entities of each group: as many as the group with the most has, up to 1,000."""
    columns: dict[str, pa.ChunkedArray] = {}
    for source in sources:
        rows = engine.sample(source.stored_rows(Interval()), _SAMPLE)
        for own, out in source.keys.items():
            columns.setdefault(out, rows[own])
    most = max((len(column) for column in columns.values()), default=0)
    return pa.Table.from_pydict(
        {
            name: column.take(pa.array(np.arange(most) % len(column))) if len(column) else pa.nulls(most, column.type)
            for name, column in columns.items()
        }
    )


def _added(
    verified: Verified, view: ViewRecord, keys: pa.Table, values: int, differing: list[tuple[int, str, Any, Any]]
) -> Verified:
    shown = (
        difference_of(view, keys.slice(row, 1), name, (online, offline), OTHER)
        for row, name, online, offline in differing[:10]
    )
    return replace(
        verified,
        entities=verified.entities + len(keys),
        values=verified.values + values,
        different=verified.different + len(differing),
        differences=(*verified.differences, *shown)[:10],
    )
