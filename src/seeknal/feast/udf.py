"""Calls functions that were written for on-demand feature views of Feast from request features. Imported modules use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def of_frame(
    function: Callable[[Any], Any], inputs: Mapping[str, tuple[np.ndarray, str]], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return what a function in Feast's mode "pandas" computes, as arrays by name.

    The columns of its frame have the types that Feast gives them. pandas has no integers or bools beside nulls: with a null, such a
    column has another type. So that no row depends on the others, rows are computed together only if they have the same nulls.

    Args:
        function: The function, from a frame to a frame.
        inputs: Arrays as a request feature gets them, and the NumPy types of their columns, by name.
        outputs: The columns of the result.

    Raises:
        ValueError: The function returned more or fewer rows than it was given.
    """
    rows = len(next(iter(inputs.values()))[0])
    groups: dict[tuple[bool, ...], list[int]] = {}
    whole = [np.isnan(array) for array, kind in inputs.values() if np.dtype(kind).kind in "biu"]
    for row, nulls in enumerate(zip(*whole, strict=True) if whole else [()] * rows):
        groups.setdefault(tuple(map(bool, nulls)), []).append(row)
    parts = [_called(function, inputs, outputs, np.array(places)) for places in groups.values()] or [
        _called(function, inputs, outputs, np.arange(0))
    ]
    order = np.argsort([row for places in groups.values() for row in places])
    return {name: np.concatenate([part[name] for part in parts])[order] for name in outputs}


def _called(
    function: Callable[[Any], Any],
    inputs: Mapping[str, tuple[np.ndarray, str]],
    outputs: Sequence[str],
    places: np.ndarray,
) -> dict[str, np.ndarray]:
    import pandas as pd

    frame = pd.DataFrame({name: _column(array[places], kind) for name, (array, kind) in inputs.items()})
    made = function(frame)
    if len(made) != len(frame):
        raise ValueError(f"{function.__name__} returned {len(made)} rows for {len(frame)}")
    return {name: _array(made[name]) for name in outputs}


def _column(array: np.ndarray, kind: str) -> Any:
    """Return an array in the type that Feast's frames have for it."""
    import pandas as pd

    wanted = np.dtype(kind)
    if wanted.kind == "M":
        return pd.Series(array).astype("datetime64[ns]").dt.tz_localize("UTC")
    if wanted.kind in "biu" and np.isnan(array).any():  # then all are null
        return pd.Series(np.full(len(array), None, dtype=object) if wanted.kind == "b" else array)
    return pd.Series(array).astype(wanted)


def _array(column: pd.Series[Any]) -> np.ndarray:
    if column.dtype.kind == "M":
        column = column.dt.tz_convert("UTC").dt.tz_localize(None) if getattr(column.dtype, "tz", None) else column
        return column.to_numpy("datetime64[us]")
    return column.to_numpy()


def of_lists(function: Callable[[Any], Any], inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """Return what a function in Feast's mode "python" computes for one row. It takes and returns a list for each name."""
    made = function({name: [value] for name, value in inputs.items()})
    return {name: made[name][0] for name in outputs}


def of_values(function: Callable[[Any], Any], inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """Return what a function in Feast's mode "python" with `singleton=True` computes. It takes and returns a value for each name."""
    made = function(dict(inputs))
    return {name: made[name] for name in outputs}
