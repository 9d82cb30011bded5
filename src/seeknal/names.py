"""Names of projects, entities, groups and tables: the rule they follow, and suggestions for misspelt ones."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from seeknal.errors import DataError, DefinitionError

_MANY = 10
"""The most names that a message lists."""
_RULE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,127}")
_GENERIC = re.compile(
    r"(entity|key|id|pk|index|idx|name|col|column|field|table|test|foo|bar|thing|object)[_-]?\d*", re.IGNORECASE
)


def check_name(kind: str, name: object) -> str:
    """Check that a name follows the rule for names, and return it. Every path, URL and label relies on the rule.

    Raises:
        DefinitionError: The name is not text, or breaks the rule.
    """
    if isinstance(name, str) and _RULE.fullmatch(name):
        return str.__str__(name)  # in messages and paths, a member of a text enum would appear by its own name
    raise DefinitionError(
        f"{kind.capitalize()} name {name!r} breaks the rule for names: a letter, then letters, digits, '_' or '-', "
        "at most 128 characters in all.",
        kind=kind,
        name=name,
    )


def is_text(value: object) -> bool:
    """Return whether a value is text that can be encoded, that is, without lone surrogates."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def check_text(argument: str, value: object) -> str:
    """Check that an argument that names a column, or a part of its name, is text, and return it.

    Raises:
        DefinitionError: It is not text.
    """
    if isinstance(value, str) and is_text(value):
        return str.__str__(value)  # not every encoder accepts NumPy's subclass of `str`
    raise DefinitionError(f"{argument}={reprlib.repr(value)} is not text. Write {argument}='x', for example.")


def check_names(argument: str, value: object, example: str = "['x']") -> tuple[str, ...]:
    """Check that an argument is a list of column names, and return them. It may be any iterable, and is read once.

    Args:
        argument: The name of the argument.
        value: Its value.
        example: A correct value, for the message.

    Raises:
        DefinitionError: It is a single name or not iterable, or one of the names is not text.
    """
    if isinstance(value, str):
        raise DefinitionError(f"{argument}={value!r} is not a list. Write {argument}=[{value!r}].")
    try:
        # Bytes and mappings are iterable too, but iterating over them hardly gives the names that the caller meant.
        iterator = None if isinstance(value, bytes | bytearray | Mapping) else iter(value)  # type: ignore[call-overload]
    except TypeError:
        iterator = None
    if iterator is None:
        raise DefinitionError(
            f"{argument}={reprlib.repr(value)} is not a list of names. Write {argument}={example}, for example."
        )
    names = tuple(iterator)
    if odd := [name for name in names if not is_text(name)]:
        raise DefinitionError(
            f"{argument} contains {reprlib.repr(odd[0])}, which is not a name. Write names as text: {argument}={example}, "
            "for example."
        )
    return tuple(map(str.__str__, names))


def check_features(features: object, argument: str = "features") -> tuple[str, ...] | None:
    """Check that an argument such as `features` is None, for all of them, or a list of at least one name, and return it.

    Raises:
        DefinitionError: It is neither.
    """
    names = None if features is None else check_names(argument, features)
    if names == ():
        raise DefinitionError(f"{argument} is an empty list. Name at least one, or leave it out for all of them.")
    return names


def check_entity(keys: object) -> None:
    """Check that the keys of one entity come with their names, as a mapping or as a pandas row.

    Raises:
        DataError: They do not.
    """
    if not hasattr(keys, "keys"):
        raise DataError(f"keys={reprlib.repr(keys)} is not a mapping. Write the name of each key with its value.")


class Named(Protocol):
    """An object that belongs to a project and has a name there."""

    @property
    def project(self) -> str:
        """The name of its project."""

    @property
    def name(self) -> str:
        """Its name within the project."""


T = TypeVar("T", bound=Named)


def split_label(kind: str, label: str, project: str | None) -> tuple[str | None, str]:
    """Return the project and name in a label such as "shop/spend" or "spend", completed by the argument `project`.

    Raises:
        DefinitionError: The label and the argument name different projects, or a name is not ASCII.

    >>> split_label("table", "shop/spend", None), split_label("table", "spend", None)
    (('shop', 'spend'), (None, 'spend'))
    """
    if not isinstance(label, str):
        check_name(kind, label)
    within, _, name = label.rpartition("/")
    for what, text in (("project", project or within), (kind, name)):
        # Stored names are ASCII, and the database cannot even look up some of the other characters.
        if not isinstance(text, str) or not text.isascii():
            check_name(what, text)
    if within and project and within != project:
        raise DefinitionError(
            f"{label!r} is in project {within!r}, not in {project!r}. Name only one of them.", name=name
        )
    return project or within or None, name


def split_version(label: str) -> tuple[str, int | None]:
    """Return the name and the version in a label of a feature view, such as "shop/next_basket@3"; None: no version.

    Raises:
        DefinitionError: What follows the "@" is not the number of a version.

    >>> split_version("shop/next_basket@3"), split_version("next_basket")
    (('shop/next_basket', 3), ('next_basket', None))
    """
    if not isinstance(label, str):
        check_name("feature view", label)
    name, at, number = label.partition("@")
    if not at:
        return name, None
    if not (number.isascii() and number.isdigit() and number[0] != "0" and len(number) < 10):  # noqa: PLR2004
        raise DefinitionError(f"{label!r} names no version. Write {name}@3, for example.", name=label)
    return name, int(number)


def the_only(kind: str, name: str, project: str | None, known: Sequence[T], where: str) -> T:
    """Return the only object with a name.

    Args:
        kind: The kind of object, such as "feature group".
        name: The name to look up.
        project: The project to search. None: all of them.
        known: All objects of this kind that the message may mention.
        where: What was searched if no project is named, for the message.

    Raises:
        DefinitionError: No object has the name, or several do; the attribute `found` has their labels. The message
            has suggestions.
    """
    matches = [one for one in known if one.name == name and project in {None, one.project}]
    if len(matches) == 1:
        return matches[0]
    same = [f"{one.project}/{one.name}" for one in known if one.name == name]
    if matches:
        choices = " or ".join(map(repr, same))
        article = "an" if kind[0] in "aeiou" else "a"
        raise DefinitionError(
            f"Several projects have {article} {kind} named {name!r}. Write {choices}.", name=name, found=same
        )
    near = [one.name for one in known if project in {None, one.project}]
    hint = f" There is {' and '.join(map(repr, same))}." if same else did_you_mean(name, near)
    place = where if project is None else f"project {project!r}"
    raise DefinitionError(f"No {kind} named {name!r} in {place}.{hint}", name=name, found=[])


def is_generic(name: str) -> bool:
    """Return whether a name is too generic to say what it names.

    >>> is_generic("entity1"), is_generic("id"), is_generic("customer_id")
    (True, True, False)
    """
    return _GENERIC.fullmatch(name) is not None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to another, ignoring case, or None if none is similar.

    >>> nearest("Spned", ["spend", "visits"])
    'spend'
    """
    by_folded = {one.lower(): one for one in known}
    near = difflib.get_close_matches(str(name).lower(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def misfit(given: Iterable[str], expected: Iterable[str]) -> str:
    """Return which join keys are unknown and which are missing, as the end of a sentence; "" if all names match.

    >>> misfit(["user"], ["user_id", "sku"])
    "'user' is not a join key, and 'user_id' and 'sku' are missing. Did you mean 'user_id'?"
    >>> misfit(["sku"], ["sku"])
    ''
    """
    names, keys = list(dict.fromkeys(given)), list(dict.fromkeys(expected))
    missing = [name for name in keys if name not in names]
    unknown = [name for name in names if name not in keys]
    are = "is not a join key" if len(unknown) == 1 else "are not join keys"
    wrong = f"{_listed(list(map(repr, unknown)))} {are}" if unknown else ""
    lacking = f"{quoted(missing)} {'is' if len(missing) == 1 else 'are'} missing" if missing else ""
    hint = did_you_mean(unknown[0], keys) if unknown else ""
    return f"{', and '.join(filter(None, [wrong, lacking]))}.{hint}" if wrong or lacking else ""


def join_keys_of(what: str, names: Iterable[str]) -> str:
    """Return which join keys something has, as the beginning of a sentence.

    >>> join_keys_of("shop/spend", ["user_id", "sku"])
    'The join keys of shop/spend are user_id and sku'
    """
    *others, last = names
    return (
        f"The join keys of {what} are {', '.join(others)} and {last}" if others else f"The join key of {what} is {last}"
    )


def _listed(names: Sequence[str]) -> str:
    """Return the first ten names, and how many more there are.

    >>> _listed(list("abcdefghijkl"))
    'a, b, c, d, e, f, g, h, i, j and 2 more'
    """
    more = len(names) - _MANY
    return ", ".join(names[:_MANY]) + (f" and {more:,} more" if more > 0 else "")


def quoted(names: Iterable[object]) -> str:
    """Return names in quotes, joined by commas and "and".

    >>> quoted(["a"]), quoted(["a", "b", "c"])
    ("'a'", "'a', 'b' and 'c'")
    """
    *others, last = map(repr, names)
    return f"{', '.join(others)} and {last}" if others else last


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that suggests the nearest known name, or else lists the known names, at most ten of them.

    It begins with a space, so that it can be appended to a message, and is empty if no name is known.

    >>> did_you_mean("spned", ["spend", "visits"])
    " Did you mean 'spend'?"
    >>> did_you_mean("zzz", ["spend", "visits"])
    ' There are: spend, visits.'
    """
    names = sorted(set(known))
    if near := nearest(name, names):
        return f" Did you mean {near!r}?"
    return f" There are: {_listed(names)}." if names else ""
