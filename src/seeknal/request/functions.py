"""Running the request features of a view: for one row, or for many at once, with the same answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from seeknal.define.request_feature import ARRAY, RequestFeature
from seeknal.errors import DataError, DefinitionError
from seeknal.names import did_you_mean, quoted
from seeknal.request.inputs import array_of, check_kind, is_changeable, one_of, one_value_of, values_of
from seeknal.request.outputs import column_of_array, column_of_rows, parts_of, value_of_array, value_of_row
from seeknal.values import exact

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
        self.functions = tuple(functions)
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
        known, made = dict(given), dict[tuple[str, str], Any]()
        rows = len(next(iter(given.values()))) if given else 0
        if not rows:
            return {name: pa.chunked_array([], kind) for name, kind in self.outputs.items()}
        for one in self._order:
            make, run = (array_of, self._over_arrays) if one.mode == ARRAY else (values_of, self._over_rows)
            for name in one.inputs:
                if (one.mode, name) not in made or is_changeable(self._kinds[name]):
                    made[one.mode, name] = make(one.path, name, known[name])
            try:
                known |= run(one, [made[one.mode, name] for name in one.inputs], rows)
            except _Failed as failed:
                nulls = [name for name in one.inputs if failed.row is not None and not known[name][failed.row].is_valid]
                raise self._error(one, failed, nulls, keys) from failed.__cause__
        return {name: known[name] for name in self.outputs}

    @staticmethod
    def _over_arrays(one: RequestFeature, inputs: Sequence[np.ndarray], rows: int) -> dict[str, pa.ChunkedArray]:
        try:
            with np.errstate(all="ignore"):
                result = one.function(*inputs)
        except Exception as error:
            raise _Failed(_first_failing(one, inputs)) from error
        try:
            parts = zip(one.outputs, parts_of(one, result), strict=True)
            return {name: column_of_array(one, name, part, rows) for name, part in parts}
        except DataError as error:
            raise _Failed(getattr(error, "row", None), str(error)) from None

    @staticmethod
    def _over_rows(one: RequestFeature, inputs: Sequence[list[Any]], _rows: int) -> dict[str, pa.ChunkedArray]:
        results: list[Any] = []
        try:
            with np.errstate(all="ignore"):
                for values in zip(*inputs, strict=True):  # `map` would take a StopIteration for its own end
                    results.append(one.function(*values))  # noqa: PERF401 - those before a failing row are counted
        except Exception as error:
            raise _Failed(len(results)) from error
        try:
            return {name: column_of_rows(one, name, column) for name, column in _by_output(one, results)}
        except DataError as error:
            raise _Failed(getattr(error, "row", None), str(error)) from None

    def _error(self, one: RequestFeature, failed: _Failed, nulls: Collection[str], keys: Keys | None) -> DataError:
        """Return the error of a function: for which row it failed, and the types of its inputs there, but not their values."""
        kinds = ", ".join(f"{name} is {'null' if name in nulls else self._kinds[name]}" for name in one.inputs)
        cause, row = failed.__cause__, failed.row
        if cause is None:
            where = "" if row is None else f" That was for {self._shown(keys, row)}, where {kinds}."
            message = f"{failed.said}{where}"
        else:
            where = "for no row alone, only for all together" if row is None else f"for {self._shown(keys, row)}"
            message = f"{one.path} failed {where}: {type(cause).__name__}: {cause}. There, {kinds}."
        return DataError(message, function=one.path, row=row)

    def _shown(self, keys: Keys | None, row: int) -> str:
        if not keys:
            return f"row {row}"
        shown = (f"{name}={'***' if name in self._pii else repr(_value(column[row]))}" for name, column in keys.items())
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
                except _Failed as failed:
                    nulls = [name for name in one.inputs if known[name] is None]
                    own = None if keys is None else {name: [value] for name, value in keys.items()}
                    raise self._error(one, failed, nulls, own) from failed.__cause__
        return {name: known[name] for name in self.outputs}

    def check(self, given: Mapping[str, pa.ChunkedArray], keys: Keys | None = None) -> None:
        """Run the functions on rows together, in reverse, and one by one, and check that the answers agree.

        Args:
            given: The looked-up features and request values of the rows, in their types.
            keys: The join keys of the rows, for errors.

        Raises:
            DefinitionError: They do not: a function depends on more than its inputs, or on the other rows.
            DataError: A function fails.
        """
        rows = len(next(iter(given.values()))) if given else 0
        keys = keys or {"row": range(rows)}

        def computed(places: Sequence[int]) -> dict[str, pa.ChunkedArray]:
            taken = {name: column.take(pa.array(places, pa.int64())) for name, column in given.items()}
            return self.columns(taken, {name: [column[place] for place in places] for name, column in keys.items()})

        together, reverse = computed(range(rows)), computed(range(rows - 1, -1, -1))
        alone = [computed([row]) for row in range(rows)]
        makes = [(name, one) for one in self._order for name in one.outputs]
        for name, one in makes:
            for row, value in enumerate(together[name]):
                for other in (alone[row][name][0], reverse[name][rows - 1 - row]):
                    if not value.equals(other):
                        raise DefinitionError(
                            f"{one.path} computes {name} as {exact.shown(value)} for {self._shown(keys, row)} among others, and as {exact.shown(other)} "
                            "for the same row alone or in another order. A request feature must depend on its own row only: not on other "
                            "rows, the time, or chance.",
                            function=one.path,
                            output=name,
                            row=row,
                        )


class _Failed(Exception):  # noqa: N818 - internal: it becomes an error that names the keys of the row
    """A function failed, by the exception that is the cause; or, if there is none, it returned what does not fit.

    Args:
        row: For which row; None: for no row alone.
        said: What does not fit.
    """

    def __init__(self, row: int | None, said: str = "") -> None:
        super().__init__(said)
        self.row, self.said = row, said


def _by_output(one: RequestFeature, results: list[Any]) -> list[tuple[str, list[Any]]]:
    """Return the values of each output for all rows, in few steps where the results are single values or tuples.

    Raises:
        _Failed: A result has more, fewer or other outputs.
    """
    names, kinds = list(one.outputs), set(map(type, results))
    if len(names) == 1 and not any(issubclass(kind, Mapping) for kind in kinds):
        return [(names[0], results)]
    if kinds == {tuple} and set(map(len, results)) == {len(names)}:
        return list(zip(names, map(list, zip(*results, strict=True)), strict=True))
    parts: list[Sequence[Any]] = []
    try:
        for result in results:
            parts.append(parts_of(one, result))  # noqa: PERF401 - the number of those before the wrong one tells its row
    except DataError as error:
        raise _Failed(len(parts), str(error)) from None
    return list(zip(names, map(list, zip(*parts, strict=True)), strict=True))


def _first_failing(one: RequestFeature, inputs: Sequence[np.ndarray]) -> int | None:
    """Return the first row for which a function over arrays fails when it gets that row alone; None if it fails for none."""
    for row in range(len(inputs[0])):
        try:
            with np.errstate(all="ignore"):
                one.function(*(column[row : row + 1] for column in inputs))
        except Exception:  # noqa: BLE001 - the row that fails is looked for
            return row
    return None


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
            raise _circle(left, makes)
        ordered.append(ready)
        left.remove(ready)
    return ordered


def _circle(left: Sequence[RequestFeature], makes: Mapping[str, RequestFeature]) -> DefinitionError:
    """Return the error for functions each of which needs what another one of them computes."""
    walked: list[RequestFeature] = []
    one = left[0]
    while one not in walked:
        walked.append(one)
        one = next(makes[name] for name in one.inputs if makes.get(name) in left)
    circle = " -> ".join(each.path for each in [*walked[walked.index(one) :], one])
    return DefinitionError(
        f"Functions need what the others compute, in a circle: {circle}. Take an input away from one."
    )


def _one_row(one: RequestFeature, kinds: Mapping[str, pa.DataType]) -> Callable[[dict[str, Any]], None]:
    """Return the function that runs a request feature on one row, and adds what it computes to the row."""
    function, of_array = one.function, one.mode == ARRAY
    given = [(name, (one_of if of_array else one_value_of)(one.path, name, kinds[name])) for name in one.inputs]
    taken = [(name, (value_of_array if of_array else value_of_row)(one, name)) for name in one.outputs]

    def run(row: dict[str, Any]) -> None:
        inputs = [make(row[name]) for name, make in given]
        try:
            result = function(*inputs)
        except Exception as error:
            raise _Failed(0) from error
        try:
            for (name, value_of), part in zip(taken, parts_of(one, result), strict=True):
                row[name] = value_of(part)
        except DataError as error:
            raise _Failed(0, str(error)) from None

    return run


def _value(value: Any) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value
