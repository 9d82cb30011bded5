"""Running the request features of a view: for one row, or for many at once, with the same answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from seeknal.define.request_feature import ARRAY, RequestFeature
from seeknal.errors import DataError, DefinitionError
from seeknal.names import did_you_mean, quoted
from seeknal.request.inputs import array_of, check_kind, one_of
from seeknal.request.outputs import column_of_array, column_of_rows, parts_of

Keys = Mapping[str, Sequence[Any] | pa.ChunkedArray]
"""The join keys of some rows, as one column per key."""


class Functions:
    """The request features of a view, in an order in which each runs after those that it needs.

    Args:
        functions: The functions.
        given: The types of looked-up features and request values, by name.
        pii: The names of join keys whose values errors must not show.

    Raises:
        DefinitionError: An input is unknown, functions need each other in a circle, an output has a name that is taken, or a function
            takes arrays and a type has none.
    """

    def __init__(
        self, functions: Sequence[RequestFeature], given: Mapping[str, pa.DataType], pii: Collection[str] = ()
    ) -> None:
        self.outputs = _outputs(functions, given)
        self._pii = frozenset(pii)
        kinds = {**given, **self.outputs}
        self._order = _ordered(functions, given)
        self.inputs = [name for name in given if any(name in one.inputs for one in functions)]
        for one in self._order:
            for name in one.inputs if one.mode == ARRAY else ():
                check_kind(one.path, name, kinds[name])
        self._kinds = kinds
        self._one = [_one_row(one, kinds) for one in self._order]

    def needed(self, names: Collection[str]) -> Functions:
        """Return the functions that are needed to compute some outputs, in the same order."""
        wanted, kept = set(names), list[RequestFeature]()
        for one in reversed(self._order):
            if wanted & one.outputs.keys():
                kept.insert(0, one)
                wanted |= set(one.inputs)
        if len(kept) == len(self._order):
            return self
        given = {name: kind for name, kind in self._kinds.items() if name not in self.outputs}
        return Functions(kept, given, self._pii)

    def columns(self, given: Mapping[str, pa.ChunkedArray], keys: Keys | None = None) -> dict[str, pa.ChunkedArray]:
        """Return what the functions compute for some rows.

        A function over arrays is called once. A function over rows is called once for each.

        Args:
            given: The looked-up features and request values, in their types.
            keys: The join keys of the rows, for errors.

        Returns:
            A column for each output, in the order of the functions as they were given.

        Raises:
            DataError: A function fails, or returns what does not fit its outputs.
        """
        known, arrays = dict(given), dict[str, np.ndarray]()
        lists = dict[str, list[Any]]()
        rows = len(next(iter(given.values()))) if given else 0
        for one in self._order:
            if one.mode == ARRAY:
                for name in one.inputs:
                    if name not in arrays:
                        arrays[name] = array_of(one.path, name, known[name])
                known |= self._over_arrays(one, [arrays[name] for name in one.inputs], known, rows, keys)
            else:
                for name in one.inputs:
                    if name not in lists:
                        lists[name] = _python(one, name, known[name])
                known |= self._over_rows(one, [lists[name] for name in one.inputs], known, rows, keys)
        return {name: known[name] for name in self.outputs}

    def _over_arrays(
        self,
        one: RequestFeature,
        inputs: Sequence[np.ndarray],
        known: Mapping[str, pa.ChunkedArray],
        rows: int,
        keys: Keys | None,
    ) -> dict[str, pa.ChunkedArray]:
        try:
            with np.errstate(all="ignore"):
                result = one.function(*inputs)
        except Exception as error:
            row = self._first_failing(one, inputs)
            raise self._failed(one, error, _nulls(one, known, row), row, keys) from error
        parts = zip(one.outputs, parts_of(one, result), strict=True)
        return {name: column_of_array(one, name, part, rows) for name, part in parts}

    def _over_rows(
        self,
        one: RequestFeature,
        inputs: Sequence[list[Any]],
        known: Mapping[str, pa.ChunkedArray],
        rows: int,
        keys: Keys | None,
    ) -> dict[str, pa.ChunkedArray]:
        results, row = [], 0
        try:
            for row in range(rows):
                results.append(one.function(*(column[row] for column in inputs)))
        except Exception as error:
            raise self._failed(one, error, _nulls(one, known, row), row, keys) from error
        if len(one.outputs) == 1 and not any(isinstance(result, Mapping) for result in results):
            (name,) = one.outputs
            return {name: column_of_rows(one, name, results)}
        parts = [parts_of(one, result) for result in results]
        return {
            name: column_of_rows(one, name, [part[place] for part in parts]) for place, name in enumerate(one.outputs)
        }

    @staticmethod
    def _first_failing(one: RequestFeature, inputs: Sequence[np.ndarray]) -> int | None:
        """Return the first row for which a function over arrays fails when it gets that row alone; None if it fails for none."""
        for row in range(len(inputs[0])):
            try:
                with np.errstate(all="ignore"):
                    one.function(*(column[row : row + 1] for column in inputs))
            except Exception:  # noqa: BLE001 - the row that fails is looked for
                return row
        return None

    def _failed(
        self,
        one: RequestFeature,
        error: BaseException,
        nulls: Collection[str],
        row: int | None,
        keys: Keys | None,
    ) -> DataError:
        kinds = ", ".join(f"{name} is {'null' if name in nulls else self._kinds[name]}" for name in one.inputs)
        where = "for no row alone, only for all together" if row is None else f"for {self._shown(keys, row)}"
        return DataError(
            f"{one.path} failed {where}: {type(error).__name__}: {error}. There, {kinds}.", function=one.path, row=row
        )

    def _shown(self, keys: Keys | None, row: int) -> str:
        if not keys:
            return f"row {row}"
        shown = (f"{name}={'***' if name in self._pii else _value(column[row])!r}" for name, column in keys.items())
        return ", ".join(shown)

    def row(self, values: Mapping[str, Any], keys: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what the functions compute for one row, in few steps.

        Args:
            values: The looked-up features and request values, as Python values.
            keys: The join keys of the row, for errors.

        Raises:
            DataError: A function fails, or returns what does not fit its outputs.
        """
        known = dict(values)
        with np.errstate(all="ignore"):
            for one, run in zip(self._order, self._one, strict=True):
                try:
                    run(known)
                except DataError:
                    raise
                except Exception as error:
                    nulls = {name for name in one.inputs if known[name] is None}
                    own = None if keys is None else {name: [value] for name, value in keys.items()}
                    raise self._failed(one, error, nulls, 0, own) from error
        return {name: known[name] for name in self.outputs}

    def check(self, given: Mapping[str, pa.ChunkedArray]) -> None:
        """Run the functions on rows together, in reverse, and one by one, and check that the answers agree.

        Args:
            given: The looked-up features and request values of the rows, in their types.

        Raises:
            DefinitionError: They do not: a function depends on more than its inputs, or on the other rows.
            DataError: A function fails.
        """
        rows = len(next(iter(given.values()))) if given else 0
        together = self.columns(given)
        back = pa.array(range(rows - 1, -1, -1), pa.int64())
        reverse = {
            name: column.take(back)
            for name, column in self.columns({name: column.take(back) for name, column in given.items()}).items()
        }
        alone = [self.columns({name: column.slice(row, 1) for name, column in given.items()}) for row in range(rows)]
        for one in self._order:
            for name in one.outputs:
                every = together[name].to_pylist()
                for row, value in enumerate(every):
                    for other in (alone[row][name][0].as_py(), reverse[name][row].as_py()):
                        if value != other:
                            raise DefinitionError(
                                f"{one.path} computes {name} as {value!r} for a row among others, and as {other!r} for the same row alone or "
                                "in another order. A request feature must depend on its own row only: not on other rows, the time, or chance.",
                                function=one.path,
                                output=name,
                                row=row,
                            )


def _outputs(functions: Sequence[RequestFeature], given: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    owners = dict.fromkeys(given, "a looked-up feature or request value")
    for one in functions:
        for name in one.outputs:
            if name in owners:
                raise DefinitionError(
                    f"{one.path} computes {name!r}, which is the name of {owners[name]}, too. Rename one.", name=name
                )
            owners[name] = f"what {one.path} computes"
    return {name: kind for one in functions for name, kind in one.outputs.items()}


def _ordered(functions: Sequence[RequestFeature], given: Mapping[str, pa.DataType]) -> list[RequestFeature]:
    """Return the functions so that each comes after those that it needs, and otherwise in their order."""
    makes = {name: one for one in functions for name in one.outputs}
    for one in functions:
        if unknown := [name for name in one.inputs if name not in makes and name not in given]:
            known = [*given, *makes]
            raise DefinitionError(
                f"{one.path} needs {quoted(unknown)}, which the view does not have.{did_you_mean(unknown[0], known)} Parameters name "
                "looked-up features, request values, or outputs of functions.",
                name=unknown[0],
            )
    ordered, left = list[RequestFeature](), list(functions)
    while left:
        ready = next((one for one in left if not any(makes.get(name) in left for name in one.inputs)), None)
        if ready is None:
            raise DefinitionError(f"{', '.join(one.path for one in left)} need what the others compute, in a circle.")
        ordered.append(ready)
        left.remove(ready)
    return ordered


def _python(one: RequestFeature, name: str, column: pa.ChunkedArray) -> list[Any]:
    try:
        found: list[Any] = column.to_pylist()
    except (ValueError, OverflowError) as error:
        raise DataError(
            f"{one.path} takes Python values, and its {name} has one that Python cannot hold: {error}"
        ) from None
    return found


def _one_row(one: RequestFeature, kinds: Mapping[str, pa.DataType]) -> Callable[[dict[str, Any]], None]:
    """Return the function that runs a request feature on one row, and adds what it computes to the row."""
    function, inputs = one.function, one.inputs
    floats = len(one.outputs) == 1 and next(iter(one.outputs.values())) == pa.float64()
    name = next(iter(one.outputs))
    if one.mode == ARRAY:
        made = [(key, one_of(one.path, key, kinds[key])) for key in inputs]

        def over_arrays(row: dict[str, Any]) -> None:
            result = function(*[make(row[key]) for key, make in made])
            if floats and type(result) is np.ndarray and result.dtype == np.float64 and result.shape == (1,):
                value = result.item()
                row[name] = value if value == value else None  # noqa: PLR0124 - NaN is null
                return
            for output, part in zip(one.outputs, parts_of(one, result), strict=True):
                row[output] = column_of_array(one, output, part, 1).to_pylist()[0]

        return over_arrays

    def over_values(row: dict[str, Any]) -> None:
        result = function(*[row[key] for key in inputs])
        if floats and (result is None or type(result) is float):
            row[name] = result if result == result else None  # noqa: PLR0124 - NaN is null
            return
        for output, part in zip(one.outputs, parts_of(one, result), strict=True):
            row[output] = column_of_rows(one, output, [part]).to_pylist()[0]

    return over_values


def _nulls(one: RequestFeature, known: Mapping[str, pa.ChunkedArray], row: int | None) -> set[str]:
    """Return the inputs of a function that are null in a row; none if no row is given."""
    return set() if row is None else {name for name in one.inputs if not known[name][row].is_valid}


def _value(value: Any) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value
