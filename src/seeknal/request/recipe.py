"""What a view makes of looked-up features and request values: defaults, computed features, and the order the model reads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from copy import copy, deepcopy
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from seeknal.define.request_feature import RequestFeature
from seeknal.errors import DataError, DefinitionError
from seeknal.request.functions import Functions
from seeknal.values import casting, exact
from seeknal.values.frames import Frame

TRIED = 100
"""How many rows functions are tried on."""


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
        self._defaults = {name: _default(name, value, kinds[name]) for name, value in (defaults or {}).items()}
        self._take(tuple(kinds) if features is None else tuple(features), kinds)

    def _take(self, names: tuple[str, ...], kinds: Mapping[str, pa.DataType]) -> None:
        """Set what follows from the features to return, the functions, and what is given."""
        self.names = names
        self.kinds = {name: kinds[name] for name in names}
        self._before = {name: one for name, one in self._defaults.items() if name in {*self.request, *self.looked_up}}
        self._after = {name: one for name, one in self._defaults.items() if name in self.functions.outputs}
        self._before_row, self._after_row = (
            [(name, one[0].as_py()) for name, one in some.items()] for some in (self._before, self._after)
        )

    @property
    def defaults(self) -> Mapping[str, pa.ChunkedArray]:
        """The values in place of null, by name, as columns of one row."""
        return self._defaults

    def computed(self, *, given: bool) -> tuple[str, ...]:
        """Return the names of what the functions compute of request values, directly or not; or, if not `given`, without any."""
        return tuple(name for name in self.functions.outputs if bool(self.only((name,)).request) is given)

    def only(self, names: Sequence[str]) -> Recipe:
        """Return the recipe of some of the features, in another order, which needs only what these are made of."""
        made = copy(self)
        made.functions = self.functions.needed(names)
        used = {*names, *made.functions.inputs}
        made.request = {name: kind for name, kind in self.request.items() if name in used}
        made.looked_up = {name: kind for name, kind in self.looked_up.items() if name in used}
        made._take(tuple(names), {**made.request, **made.looked_up, **made.functions.outputs})  # noqa: SLF001 - of this class
        return made

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
        return self.answer(given, keys)[0]

    def answer(
        self, given: Mapping[str, pa.ChunkedArray], keys: Mapping[str, pa.ChunkedArray] | None = None
    ) -> tuple[dict[str, pa.ChunkedArray], dict[str, pa.ChunkedArray]]:
        """Return what `columns` returns and, for each feature with a default, in which rows that took the place of null."""
        filled = self._filled(given)
        computed = self.functions.columns(filled, keys)
        found = {**given, **computed}
        nulls = {name: found[name].is_null() for name in self.names if name in self._defaults}
        made = {
            **filled,
            **computed,
            **{name: pc.fill_null(computed[name], one[0]) for name, one in self._after.items()},
        }
        return {name: made[name] for name in self.names}, nulls

    def row(
        self, values: dict[str, Any], keys: Mapping[str, Any] | None = None, defaulted: list[str] | None = None
    ) -> dict[str, Any]:
        """Return what the model reads for one row, in order, in few steps.

        Args:
            values: The looked-up features and the request values, as Python values. Defaults are filled in, in place.
            keys: The join keys of the row, for errors.
            defaulted: A list to which the names of features are added whose default took the place of null.

        Raises:
            DataError: A function fails, or its result is not of the declared type.
        """
        for name, default in self._before_row:
            if values[name] is None:
                values[name] = _own(default)
                if defaulted is not None:
                    defaulted.append(name)
        if self.functions.outputs:
            made = self.functions.row(values, keys)
            for name, default in self._after_row:
                if made[name] is None:
                    made[name] = _own(default)
                    if defaulted is not None:
                        defaulted.append(name)
            values = values | made
        return {name: values[name] for name in self.names}

    def check(self, given: Mapping[str, pa.ChunkedArray], keys: Mapping[str, pa.ChunkedArray] | None = None) -> None:
        """Run the functions on rows one by one and together, and check that the answers agree.

        Args:
            given: The looked-up features and the request values, in their types.
            keys: The join keys of the rows, for errors.

        Raises:
            DefinitionError: They differ.
            DataError: A function fails.
        """
        self.functions.check(self._filled(given), keys)

    def _filled(self, given: Mapping[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
        return {**given, **{name: pc.fill_null(given[name], one[0]) for name, one in self._before.items()}}


def request_column(frame: Frame, name: str, kind: pa.DataType, whose: str) -> pa.ChunkedArray:
    """Return a request value as a column of a frame has it, in its declared type, converted as the values of single rows are.

    Raises:
        DataError: A value does not fit the type exactly.
    """
    column = frame.table([name])[name]
    if casting.fits(column, kind):
        return casting.cast(column, kind)
    if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(kind):
        with suppress(pa.ArrowInvalid):  # a moment that is not exact in the type is told below
            return column.cast(kind)
    return exact.column(f"{whose} {name}", exact.values(column), kind)


def _own(value: Any) -> Any:
    """Return a default for one answer, which its reader may change."""
    return deepcopy(value) if isinstance(value, list | dict) else value


def _default(name: str, value: object, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        column = exact.column(name, [value], kind)
    except DataError as error:
        raise DefinitionError(f"The default of {name!r} does not fit its type {kind}: {error}", name=name) from None
    if column.null_count:
        raise DefinitionError(f"The default of {name!r} is null. Leave it out.", name=name)
    return column
