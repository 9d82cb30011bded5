"""From the definition of a view to its registered version: what it looks up, its label, and a trial of its functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, islice
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
from seeknal.errors import DefinitionError
from seeknal.join import retrieval
from seeknal.join.retrieval import kinds_of
from seeknal.join.viewed import pii_of
from seeknal.registry.catalog import Catalog
from seeknal.registry.source import Source
from seeknal.registry.view_content import FunctionContent, LabelContent, ViewContent, defaults_to_json
from seeknal.request.recipe import Recipe
from seeknal.values import types
from seeknal.values.times import Interval
from seeknal.values.types import UTC

_SAMPLE = 100
"""How many rows a function is tried on."""
_EXAMPLES: dict[str, Sequence[Any]] = {"number": (1, 2, 3, 5, 8), "bool": (True, False), "text": ("a", "b", "c")}


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


def content_of(
    definition: ViewDefinition, sources: Sequence[Source], recipe: Recipe, label: LabelContent | None
) -> ViewContent:
    """Return what a version of a view is."""
    return ViewContent(
        lookups=tuple(source.pin(pinned=source.is_pinned) for source in sources),
        types={name: str(kind) for name, kind in recipe.looked_up.items()},
        request={name: types.as_text(kind) for name, kind in recipe.request.items()},
        functions=tuple(msgspec.convert(one.to_json(), FunctionContent) for one in definition.functions),
        features=recipe.names,
        defaults=defaults_to_json(recipe.defaults),
        label=label,
    )


def label_content(catalog: Catalog, label: Label, name: str, project: str, sources: Sequence[Source]) -> LabelContent:
    """Register the windowed group that computes the label of a view, and return the label with the version of that group.

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
    _check_free(catalog, f"{name}_label", name, project)
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
    source = catalog.source(FeatureLookup(group, rename=label.rename))
    if label.column in source.keys.values():
        raise DefinitionError(
            f"The label of view {name!r} has the name of one of its keys, {label.column!r}. Pass Label(..., name=...).",
            name=label.column,
        )
    pin = catalog.definitions.settled(source).pin(pinned=True, ahead=label.length)
    (kind,) = kinds_of([source]).values()
    return LabelContent(pin, label.column, str(kind), label.is_any, label.unfinished)


def _check_free(catalog: Catalog, group: str, view: str, project: str) -> None:
    """Check that no group but an earlier label of the view has the name of the group that computes its label.

    Raises:
        DefinitionError: There is one.
    """
    labels = (one.content.label for one in catalog.registry.views(project, view))
    if catalog.registry.group(project, group) and not any(one and one.lookup.group == group for one in labels):
        raise DefinitionError(
            f"The label of view {view!r} would be computed by a group named {group!r}, and {project!r} has a group of that name. Name "
            "the view otherwise, or delete that group."
        )


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

    Request values are examples of their types.

    Raises:
        DefinitionError: The answers differ.
        DataError: A function fails.
    """
    if not recipe.functions.outputs:
        return
    columns: dict[str, pa.ChunkedArray] = {}
    keys: dict[str, pa.ChunkedArray] = {}
    at: pa.ChunkedArray | None = None
    for source in sources:
        # Features of entities that were drawn for an earlier source are looked up for the same ones.
        if at is None or not keys.keys() >= set(source.keys.values()):
            rows = engine.sample(source.stored_rows(Interval()), _SAMPLE)
            if not len(rows):
                return
            rows = rows.take(pa.array(np.arange(_SAMPLE) % len(rows)))
            keys |= {out: rows[own] for own, out in source.keys.items() if out not in keys}
            at = rows[source.stored_schema.event_time.name].cast(UTC) if at is None else at
        table = pa.Table.from_pydict({name: keys[name] for name in source.keys.values()})
        found = retrieval.look_up(engine, [source], table, at, Interval())
        columns |= {name: found[name] for name in found.column_names}
    columns |= {name: _examples(kind) for name, kind in recipe.request.items()}
    recipe.check(columns, keys)


def _examples(kind: pa.DataType) -> pa.ChunkedArray:
    is_ = pa.types
    if is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind):
        given = _EXAMPLES["number"]
    elif is_.is_boolean(kind):
        given = _EXAMPLES["bool"]
    elif is_.is_string(kind):
        given = _EXAMPLES["text"]
    else:
        return pa.chunked_array([pa.nulls(_SAMPLE, kind)])
    return pa.chunked_array([pa.array(list(islice(cycle(given), _SAMPLE))).cast(kind)])
