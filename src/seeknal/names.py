"""Names of projects, entities, groups and tables: one rule, and help when one is misspelt."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from seeknal.errors import DefinitionError

_MANY = 10
_RULE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")
_GENERIC = re.compile(
    r"(entity|key|id|pk|index|idx|name|col|column|field|table|test|foo|bar|thing|object)[_-]?\d*", re.IGNORECASE
)


def check_name(kind: str, name: object) -> str:
    """Return the name if it follows the rule, which every path and listing relies on.

    Raises:
        DefinitionError: The name is no text, or breaks the rule.
    """
    if isinstance(name, str) and _RULE.fullmatch(name):
        return name
    raise DefinitionError(
        f"{kind.capitalize()} name {name!r} breaks the rule: a letter first, then letters, digits, '_' and '-', "
        "at most 128 in all.",
        kind=kind,
        name=name,
    )


def is_generic(name: str) -> bool:
    """Tell whether a name says nothing about what it names.

    >>> is_generic("entity1"), is_generic("id"), is_generic("customer_id")
    (True, True, False)
    """
    return _GENERIC.fullmatch(name) is not None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Give the known name that is most like another, case aside; None if none is.

    >>> nearest("Spned", ["spend", "visits"])
    'spend'
    """
    by_folded = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def quoted(names: Iterable[object]) -> str:
    """Write names as a sentence lists them.

    >>> quoted(["a"]), quoted(["a", "b", "c"])
    ("'a'", "'a', 'b' and 'c'")
    """
    *others, last = map(repr, names)
    return f"{', '.join(others)} and {last}" if others else last


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give a sentence that points from a wrong name to the nearest right ones, or to all of a few.

    >>> did_you_mean("spned", ["spend", "visits"])
    " Did you mean 'spend'?"
    >>> did_you_mean("zzz", ["spend", "visits"])
    ' There are: spend, visits.'
    """
    names = sorted(set(known))
    if near := nearest(name, names):
        return f" Did you mean {near!r}?"
    return f" There are: {', '.join(names[:_MANY])}{', ...' if len(names) > _MANY else ''}." if names else ""
