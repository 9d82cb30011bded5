"""Rows as dictionaries, in as few steps as can be."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True)
class ValueEncoding:
    """How a value is put: an expression of it, {v}, and of a function, {f}."""

    expression: str
    function: Callable[[Any], Any] | None = None


AS_IS = ValueEncoding("{v}")
_NO_FORMS: Mapping[str, ValueEncoding] = {}
_PLAIN_NAMES = frozenset(string.ascii_letters + string.digits + string.punctuation) - {'"', "\\"}
"""What fields of `msgspec` may be named with."""


def compile_row_builder(
    keys: Sequence[str],
    rows: Sequence[Sequence[str]],
    features: Sequence[str],
    forms: Mapping[str, ValueEncoding] = _NO_FORMS,
    *,
    for_msgspec: bool = False,
) -> Callable[..., list[Any]]:
    """Give what makes dictionaries from columns of keys and lists of rows, one for each group that is looked up.

    A dictionary written out, `{n0: k0, n1: v0, ...}`, takes less than half the time of `dict(zip(names, values))`, which
    would be most of the time of an answer. Its source is made of numbers and forms only; the names are what they are the
    names of.

    Args:
        keys: The names of the columns of keys.
        rows: The names of the values of each list's rows, in order; each row has one value more, its event time.
        features: The names wanted, in order.
        forms: How values are put, by name; as they are if it does not say.
        for_msgspec: Make what `msgspec` encodes as it does those dictionaries, in half of the time.
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
        variables["Row"] = msgspec.defstruct("Row", [(label, Any) for label in names], rename=names, gc=False)
        made = f"Row({', '.join(put)})"
    columns = "".join(f"c{i}, " for i in range(len(keys))) + "".join(f"r{i}, " for i in range(len(rows)))
    entity = "".join(f"k{i}, " for i in range(len(keys)))
    taken = "".join(f"({''.join(f'v{i}_{j}, ' for j in range(len(row)))}_)," for i, row in enumerate(rows))
    source = f"lambda {columns}: [{made} for {entity}{taken} in zip({columns})]"
    return eval(source, variables)  # type: ignore[no-any-return]  # noqa: S307 - nobody's text is in it
