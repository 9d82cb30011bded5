"""The operations that `FeatureStore` had itself in earlier releases. They go on working, with a warning that names the new place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from seeknal.join.inquiry import HISTORY, SPINE, Inquiry

if TYPE_CHECKING:
    from seeknal.define.feature_group import FeatureLookup
    from seeknal.home.store import FeatureStore
    from seeknal.join.features import Features
    from seeknal.join.training_sets import TrainingSets
    from seeknal.registry import Question
    from seeknal.registry.catalog import AsOf
    from seeknal.values.times import Moment

CALLS = {
    "get_or_create": ("groups.register", 1),
    "counts": ("groups.counts", 2),
    "sample": ("groups.sample", 1),
    "versions": ("groups.versions", 1),
    "version": ("groups.version", 1),
    "diff": ("groups.diff", 3),
    "watermarks": ("groups.watermarks", 1),
    "delete_group": ("groups.delete", 1),
    "write": ("groups.write", 2),
    "push": ("groups.push", 2),
    "clean": ("groups.clean", 2),
    "rollback": ("groups.rollback", 2),
    "optimize": ("groups.optimize", 1),
    "adopt": ("groups.adopt", 1),
    "erase": ("groups.erase", 2),
    "load": ("groups.load", 1),
    "loads": ("groups.loads", 1),
    "ledger": ("groups.load_statuses", 1),
    "erase_entity": ("entities.erase", 2),
    "training_set": ("features.training_set", 3),
    "stream": ("features.stream", 3),
    "history": ("features.history", 1),
    "latest": ("features.latest", 1),
    "delete_training_set": ("training_sets.delete", 1),
    "refresh": ("tables.refresh", 1),
    "serve": ("tables.serve", 2),
    "online_table": ("tables.open", 1),
    "verify": ("tables.verify", 1),
    "delete_table": ("tables.delete", 1),
}
"""By its former name, where an operation is now, and how many arguments came before a project given by position."""

_PARTS = {"online_tables": "tables", "registry": "core.registry", "catalog": "core.catalog"}


def find(store: FeatureStore, name: str) -> Any:
    """Return what an attribute of earlier releases stands for.

    Raises:
        AttributeError: There was no such attribute.
    """
    if name in _PARTS:
        return _follow(store, _warned(name, _PARTS[name]))
    if name in CALLS:
        place, count = CALLS[name]
        return _with_project(_follow(store, _warned(f"{name}(...)", place)), count)
    if name == "engine":
        return _follow(store, _warned(name, "core.engine"))()
    if name in _REQUESTS:
        part = _warned(f"{name}(...)", _PLACES[name]).partition(".")[0]
        return partial(_REQUESTS[name], getattr(store, part))
    raise AttributeError(f"'FeatureStore' object has no attribute {name!r}")


def _warned(name: str, place: str) -> str:
    text = f"FeatureStore.{name} has moved: use store.{place}."
    warnings.warn(text, DeprecationWarning, stacklevel=4)
    return place


def _follow(store: FeatureStore, place: str) -> Any:
    found: Any = store
    for name in place.split("."):
        found = getattr(found, name)
    return found


def _with_project(call: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Return a call that takes a project by position, as it did before, after `count` other arguments."""

    @wraps(call)
    def called(*arguments: Any, **named: Any) -> Any:
        for project in arguments[count : count + 1]:
            named["project"] = project
        return call(*arguments[:count], *arguments[count + 1 :], **named)

    return called


def _sources(features: Features, lookups: Sequence[FeatureLookup], as_of: AsOf | None = None) -> Any:
    return features.sources(Inquiry(lookups, as_of=as_of))


def _explain(
    features: Features,
    lookups: Sequence[FeatureLookup],
    keys: Mapping[str, Any],
    moment: Moment,
    *,
    limit: int | None = None,
    **named: Any,
) -> Any:
    return features.explain(Inquiry(lookups, **named), keys, moment, limit)


def _check(
    features: Features, lookups: Sequence[FeatureLookup], spine: object = None, date_col: str = "", **named: Any
) -> Any:
    return features.check(Inquiry(lookups, HISTORY if spine is None else SPINE, spine, date_col, **named))


def _save(
    training_sets: TrainingSets,
    name: str,
    lookups: Sequence[FeatureLookup],
    question: Question,
    spine: object = None,
    *,
    as_of: AsOf | None = None,
    keep_rows: bool = False,
) -> Any:
    asked = Inquiry(
        lookups, question.kind, spine, question.date_col, question.keep, question.moment, question.span, as_of
    )
    return training_sets.save(name, asked, keep_rows=keep_rows)


_REQUESTS: dict[str, Callable[..., Any]] = {
    "sources": _sources,
    "explain": _explain,
    "check": _check,
    "save_training_set": _save,
}
_PLACES = {name: f"features.{name}" for name in _REQUESTS} | {"save_training_set": "training_sets.save"}
