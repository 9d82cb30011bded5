"""What a view makes of looked-up features and request values: defaults, computed features, and the order the model reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.request_feature import RequestFeature
from seeknal.errors import DataError, DefinitionError
from seeknal.request.functions import Functions
from seeknal.values import exact


class Recipe:
    """Makes the features that a model reads. The same recipe serves training sets and requests.

    A default takes the place of each null of its feature: of looked-up features and request values before the functions run, and of
    computed features afterwards.

    Args:
        looked_up: The types of the looked-up features, by name.
        request: The types of the request values, by name.
        functions: The request features.
        features: The names of what the model reads, in order. None: request values, looked-up features, computed features.
        defaults: Values in place of null, by name.
        pii: The names of keys whose values errors must not show.

    Raises:
        DefinitionError: A function or a default does not fit, or a name is unknown or taken.
    """

    def __init__(
        self,
        looked_up: Mapping[str, pa.DataType],
        request: Mapping[str, pa.DataType],
        functions: Sequence[RequestFeature] = (),
        *,
        features: Sequence[str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        pii: Collection[str] = (),
    ) -> None:
        if clash := [name for name in request if name in looked_up]:
            raise DefinitionError(
                f"{clash[0]!r} is a request value and a looked-up feature. Rename the feature: FeatureLookup(..., rename={{...}}).",
                name=clash[0],
            )
        self.request, self.looked_up = dict(request), dict(looked_up)
        self.functions = Functions(functions, {**request, **looked_up}, pii=pii)
        kinds = {**request, **looked_up, **self.functions.outputs}
        self.names = tuple(kinds) if features is None else tuple(features)
        self.kinds = {name: kinds[name] for name in self.names}
        self._defaults = {name: _default(name, value, kinds[name]) for name, value in (defaults or {}).items()}
        self.defaults = {name: exact.values(one)[0] for name, one in self._defaults.items()}
        self._before = {name: one for name, one in self._defaults.items() if name not in self.functions.outputs}
        self._after = {name: one for name, one in self._defaults.items() if name in self.functions.outputs}

    def columns(
        self, given: Mapping[str, pa.ChunkedArray], keys: Mapping[str, pa.ChunkedArray] | None = None
    ) -> dict[str, pa.ChunkedArray]:
        """Return what the model reads, in order.

        Args:
            given: The looked-up features and the request values, in their types.
            keys: The join keys of the rows, for errors.

        Raises:
            DataError: A function fails, or its result is not of the declared type.
        """
        filled = self._filled(given)
        made = self.functions.columns(filled, keys)
        made |= {name: pc.fill_null(made[name], one[0]) for name, one in self._after.items()}
        return {name: made[name] if name in made else filled[name] for name in self.names}

    def check(self, given: Mapping[str, pa.ChunkedArray]) -> None:
        """Run the functions on rows one by one and together, and check that the answers agree.

        Raises:
            DefinitionError: They differ.
            DataError: A function fails.
        """
        self.functions.check(self._filled(given))

    def _filled(self, given: Mapping[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
        return {**given, **{name: pc.fill_null(given[name], one[0]) for name, one in self._before.items()}}

    def defaulted(
        self, given: Mapping[str, pa.ChunkedArray], keys: Mapping[str, pa.ChunkedArray] | None = None
    ) -> list[list[str]]:
        """Return for each row the names of the features whose default took the place of null, in order."""
        filled = self._filled(given)
        made = self.functions.columns(filled, keys) if self._after else {}
        nulls = {
            name: (made[name] if name in made else given[name]).is_null().to_pylist()
            for name in self._defaults
            if name in self.names
        }
        count = len(next(iter(given.values()))) if given else 0
        return [[name for name in self.names if name in nulls and nulls[name][row]] for row in range(count)]


def _default(name: str, value: object, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        column = exact.column(name, [value], kind)
    except DataError as error:
        raise DefinitionError(f"The default of {name!r} does not fit its type {kind}: {error}", name=name) from None
    if column.null_count:
        raise DefinitionError(f"The default of {name!r} is null. Leave it out.", name=name)
    return column
