"""From the definition of a view to its registered version: what it looks up, its label, and a trial of its functions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import count, cycle, islice
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from seeknal.define.feature_group import FeatureLookup
from seeknal.define.feature_view import ViewDefinition, check_known
from seeknal.define.label import Label
from seeknal.define.windowed_group import WindowedGroup
from seeknal.engine import Engine
from seeknal.entity import Entity
from seeknal.errors import DataError, DefinitionError
from seeknal.join import retrieval
from seeknal.join.retrieval import kinds_of
from seeknal.join.viewed import pii_of, plain_content
from seeknal.registry.catalog import Catalog
from seeknal.registry.source import Source
from seeknal.registry.view_content import FunctionContent, LabelContent, ViewContent, defaults_to_json
from seeknal.request.recipe import TRIED, Recipe
from seeknal.values import exact, types
from seeknal.values.times import Interval
from seeknal.values.types import UTC

_EXAMPLES: dict[str, Sequence[Any]] = {
    "number": (1, 2, 3, 5, 8),
    "bool": (True, False),
    "text": ("a", "b", "c"),
    "day": tuple(datetime(2024, month, 28, month) for month in (1, 2, 12)),  # noqa: DTZ001 - fits every zone
}


def read(catalog: Catalog, definition: ViewDefinition) -> tuple[str, list[Source], Recipe]:
    """Return the project of a view, the sources of its lookups, whose definitions are registered, and its recipe.

    Raises:
        DefinitionError: What it names does not exist, names clash, or a function or default does not fit.
    """
    sources = [catalog.source(lookup) for lookup in definition.lookups]
    project = definition.project or sources[0].record.project
    taken = retrieval.keys_of(sources)
    retrieval.check_names(sources, taken)
    retrieval.check_keys(sources)
    request = types.parse_each("request", definition.request) if definition.request else {}
    if clash := [name for name in request if name in taken]:
        raise DefinitionError(
            f"request names {clash[0]!r}, which is a join key of view {definition.name!r}. Leave it out: keys are always given.",
            name=clash[0],
        )
    kinds = kinds_of(sources)
    known = [*request, *kinds, *(out for one in definition.functions for out in one.outputs)]
    check_known("features", definition.features or (), known, definition.name)
    check_known("defaults", list(definition.defaults), known, definition.name)
    recipe = Recipe(
        kinds,
        request,
        definition.functions,
        features=definition.features,
        defaults=definition.defaults,
        pii=pii_of(sources),
    )
    return project, [catalog.definitions.settled(source) for source in sources], recipe


def content_of(definition: ViewDefinition, sources: Sequence[Source], recipe: Recipe) -> ViewContent:
    """Return what a version of a view is, without its label."""
    return replace(
        plain_content(sources),
        request={name: types.as_text(kind) for name, kind in recipe.request.items()},
        functions=tuple(msgspec.convert(one.to_json(), FunctionContent) for one in definition.functions),
        features=recipe.names,
        defaults=defaults_to_json({name: column[0] for name, column in recipe.defaults.items()}),
    )


def label_source(catalog: Catalog, label: Label, name: str, project: str, sources: Sequence[Source]) -> Source:
    """Return the source of the label of a view: a windowed group, which need not be registered yet.

    Args:
        catalog: The catalog.
        label: The label.
        name: The name of the view, after which the group is named.
        project: The project of the view.
        sources: The lookups of the view.

    Raises:
        DefinitionError: The source of the label does not exist, or lacks a column.
    """
    given = label.source if isinstance(label.source, str) else f"{label.source.project}/{label.source.name}"
    origin = catalog.group(given)
    schema = catalog.version(origin).schema
    kinds = {field.name: field.type for field in schema}
    of_bools = label.feature is not None and pa.types.is_boolean(kinds.get(label.feature, pa.null()))
    is_source = origin.event_id is not None
    entity = label.entity or (_shared(sources, list(kinds), name) if is_source else origin.group.entity)
    group = WindowedGroup(
        f"{name}_label",
        entity,
        source=origin.label,
        features={label.column: label.windowed(of_bools=of_bools)},
        project=project,
        description=f"The label of the feature view {name}: its window ends after the moment.",
    )
    source = catalog.source(FeatureLookup(_free(catalog, group), rename=label.rename))
    if label.column in source.keys.values():
        raise DefinitionError(
            f"The label of view {name!r} has the name of one of its keys, {label.column!r}. Pass Label(..., name=...).",
            name=label.column,
        )
    return source


def _free(catalog: Catalog, group: WindowedGroup) -> WindowedGroup:
    """Return the group of a label under the first name that is free, or that a label of the same view, entity and source has.

    A windowed group stays with its entity and source, and those of a view's label may change.
    """
    for number in count(1):
        own = group if number == 1 else replace(group, name=f"{group.name}_{number}")
        known = catalog.registry.group(own.project or "", own.name)
        if known is None:
            return own
        if known.windowed is None or known.group.description != own.description:
            continue
        if (known.windowed.origin, known.group.entity) == (own.origin, own.entity):
            return own
    raise AssertionError("unreachable: some name is free")


def label_content(catalog: Catalog, label: Label, source: Source) -> LabelContent:
    """Register the windowed group that computes the label of a view, and return the label with the version of that group.

    Args:
        catalog: The catalog.
        label: The label.
        source: What `label_source` returned for it.
    """
    pin = catalog.definitions.settled(source, tells=False).pin(pinned=True, ahead=label.length)
    (kind,) = kinds_of([source]).values()
    group = source.lookup.source
    assert isinstance(group, WindowedGroup)  # noqa: S101 - `label_source` has made it
    text = label.described(group.origin, list(source.keys.values()))
    return LabelContent(pin, label.column, str(kind), label.is_any, label.unfinished, text)


def _shared(sources: Sequence[Source], columns: Sequence[str], view: str) -> Entity:
    """Return the entity of the join keys of a view that are columns of an event source."""
    every = retrieval.keys_of(sources)
    keys = tuple(name for name in every if name in columns)
    if not keys:
        raise DefinitionError(
            f"The source of the label of view {view!r} has none of the join keys {', '.join(every)}. Pass "
            "Label(..., entity=Entity(...), rename={...})."
        )
    entities = [one.record.group.entity for one in sources]
    return next((one for one in entities if one.join_keys == keys), Entity.stored(f"{view}_label", keys))


def try_functions(engine: Engine, sources: Sequence[Source], recipe: Recipe) -> None:
    """Run the functions of a view on rows that are stored now, one by one and together, and check that the answers agree.

    Functions that need request values are run with examples of these. They may fail, because no caller may give such values: they are
    run on the rows of each training set too, see `seeknal.join.viewed`.

    Raises:
        DefinitionError: The answers differ.
        DataError: A function that needs no request values fails.
    """
    if not recipe.functions.outputs:
        return
    columns: dict[str, pa.ChunkedArray] = {}
    keys: dict[str, pa.ChunkedArray] = {}
    at: pa.ChunkedArray | None = None
    for source in sources:
        # Features of entities that were drawn for an earlier source are looked up for the same ones.
        if at is None or not keys.keys() >= set(source.keys.values()):
            rows = engine.sample(source.stored_rows(Interval()), TRIED)
            if not len(rows):
                return
            rows = rows.take(pa.array(np.arange(TRIED) % len(rows)))
            keys |= {out: rows[own] for own, out in source.keys.items() if out not in keys}
            at = rows[source.stored_schema.event_time.name].cast(UTC) if at is None else at
        table = pa.Table.from_pydict({name: keys[name] for name in source.keys.values()})
        found = retrieval.look_up(engine, [source], table, at, Interval())
        columns |= {name: found[name] for name in found.column_names}
    recipe.only(recipe.computed(given=False)).check(columns, keys)
    columns |= {name: _examples(kind) for name, kind in recipe.request.items()}
    for name in recipe.computed(given=True):
        with suppress(DataError):
            recipe.only((name,)).check(columns, keys)


def _examples(kind: pa.DataType) -> pa.ChunkedArray:
    """Return values of a type; nulls if none of the examples fits it."""
    is_ = pa.types
    if is_.is_boolean(kind):
        given = _EXAMPLES["bool"]
    elif is_.is_string(kind) or is_.is_large_string(kind):
        given = _EXAMPLES["text"]
    elif is_.is_temporal(kind):
        given = _EXAMPLES["day"]
    else:
        given = _EXAMPLES["number"]
    try:
        return exact.column("", list(islice(cycle(given), TRIED)), kind)
    except DataError:
        return pa.chunked_array([pa.nulls(TRIED, kind)])
