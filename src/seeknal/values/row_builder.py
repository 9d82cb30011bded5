"""Generated code that builds rows as dictionaries. A plain loop would take most of the time of a response."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True)
class ValueEncoding:
    """How a value is encoded: as a Python expression, in which {v} is the value and {f} the function."""

    expression: str
    function: Callable[[Any], Any] | None = None


AS_IS = ValueEncoding("{v}")
_NO_FORMS: Mapping[str, ValueEncoding] = {}
_PLAIN_NAMES = frozenset(string.ascii_letters + string.digits + string.punctuation) - {'"', "\\"}
"""Characters that the names of `msgspec` fields may have."""


def compile_row_builder(
    keys: Sequence[str],
    rows: Sequence[Sequence[str]],
    features: Sequence[str],
    forms: Mapping[str, ValueEncoding] = _NO_FORMS,
    *,
    for_msgspec: bool = False,
) -> Callable[..., list[Any]]:
    """Return a compiled function that builds dictionaries from key columns and from one list of rows for each group.

    A dictionary display, `{n0: k0, n1: v0_0, ...}`, takes less than half the time of `dict(zip(names, values))`.
    For the key "user", a group with the values "age" and "city", and the feature "city", the source is

        lambda c0, r0, : [{n0: k0, n1: v0_1} for k0, (v0_0, v0_1, _), in zip(c0, r0, )]

    It consists of numbered variables and the expressions in `forms` only. No name becomes part of the code, so none can
    inject any: names are the values of n0 and n1.

    Args:
        keys: The names of the key columns.
        rows: For each list of rows, the names of the values in a row, in order. A row has one more value at its end,
            its event time.
        features: The names of the features to return, in order.
        forms: The encodings of values, by name. Other values stay as they are.
        for_msgspec: Build `msgspec` structs instead of dictionaries, unless a name has characters that struct fields
            cannot have. `msgspec` encodes them to the same output in half the time.

    Returns:
        The function. It takes a column for each key and a list of rows for each group, and returns one object per
        entity.
    """
    places = {name: f"v{i}_{j}" for i, names in enumerate(rows) for j, name in enumerate(names)}
    names = {f"n{i}": name for i, name in enumerate([*keys, *features])}
    values = [*(f"k{i}" for i in range(len(keys))), *(places[name] for name in features)]
    variables: dict[str, Any] = dict(names)
    put = []
    for label, value in zip(names, values, strict=True):
        form = forms.get(names[label], AS_IS)
        variables[f"f_{label}"] = form.function
        put.append(form.expression.format(v=value, f=f"f_{label}"))
    made = f"{{{', '.join(f'{label}: {one}' for label, one in zip(names, put, strict=True))}}}"
    if for_msgspec and _PLAIN_NAMES.issuperset("".join(names.values())):
        # Without gc: such rows hold no reference cycles, and thousands of them would slow the garbage collector down.
        variables["Row"] = msgspec.defstruct("Row", [(label, Any) for label in names], rename=names, gc=False)
        made = f"Row({', '.join(put)})"
    columns = "".join(f"c{i}, " for i in range(len(keys))) + "".join(f"r{i}, " for i in range(len(rows)))
    entity = "".join(f"k{i}, " for i in range(len(keys)))
    # Each row is unpacked into variables; `_` takes its event time, and the trailing commas unpack even a single value.
    taken = "".join(f"({''.join(f'v{i}_{j}, ' for j in range(len(row)))}_)," for i, row in enumerate(rows))
    source = f"lambda {columns}: [{made} for {entity}{taken} in zip({columns})]"
    return eval(source, variables)  # type: ignore[no-any-return]  # noqa: S307 - no user text in it
