"""The hash of a function's code: of its own source, and of all that it uses from its own package."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import logging
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any
from uuid import UUID

from seeknal.errors import DefinitionError

_PLAIN = (
    int,
    float,
    complex,
    str,
    bytes,
    bool,
    type(None),
    date,
    time,
    timedelta,
    Decimal,
    Fraction,
    UUID,
    re.Pattern,
    Enum,
)
"""The types of values whose `repr` says all about them. A datetime is a date."""
_LEFT_OUT = {"kind", "type_comment", "ctx"}
"""Fields of syntax trees that do not change what the code does."""


def code_hash(function: FunctionType) -> str:
    """Return the SHA-256 of what a function does, as far as its own package decides it.

    It covers the syntax tree of the function without comments, docstrings and layout, and, by name, whatever it uses of its own
    package: functions, classes, and constants with their values. Of other packages it covers the names.

    Raises:
        DefinitionError: The source is not to be found, or the function uses an object whose value cannot be compared.
    """
    found: dict[str, str] = {}
    _add(_name_of(function), function, _root(function.__module__), found)
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()


def _root(module: str) -> str:
    return module.partition(".")[0]


def _name_of(what: object) -> str:
    return f"{getattr(what, '__module__', None)}.{getattr(what, '__qualname__', type(what).__name__)}"


def _add(name: str, value: object, root: str, found: dict[str, str]) -> None:
    """Add what a name stands for, and all that this uses in turn.

    Args:
        name: The name, with its module.
        value: What it stands for.
        root: The name of the package whose code counts.
        found: What was added so far, by name.
    """
    if name in found:
        return
    if type(value).__name__ == "RequestFeature" or callable(value):
        value = inspect.unwrap(value)  # type: ignore[arg-type]
    is_own = _root(str(getattr(value, "__module__", "") or "")) == root
    if isinstance(value, FunctionType) and is_own:
        tree = _tree_of(value)
        found[name] = json.dumps(_canonical(tree))
        _add_used(name, value, root, found)
    elif isinstance(value, type) and is_own:
        found[name] = json.dumps(_canonical(_parsed(value)))
        for method in vars(value).values():
            own = getattr(method, "__func__", getattr(method, "fget", method))
            if isinstance(own, FunctionType):
                _add_used(name, own, root, found)
    elif isinstance(value, ModuleType | type | FunctionType | BuiltinFunctionType | logging.Logger) or callable(value):
        found[name] = f"{type(value).__name__} {getattr(value, '__name__', None) or _name_of(value)}"
    else:
        found[name] = _constant(name, value)


def _add_used(name: str, function: FunctionType, root: str, found: dict[str, str]) -> None:
    closed = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    for own, cell in closed.items():
        _add(f"{name}.{own}", cell.cell_contents, root, found)
    for place, default in enumerate([*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]):
        _add(f"{name} default {place}", default, root, found)
    used = set(_names(function.__code__))
    for own in sorted(used & function.__globals__.keys()):
        value = function.__globals__[own]
        if isinstance(value, ModuleType) and _root(value.__name__) == root:
            for attribute in sorted(used & vars(value).keys()):
                _add(f"{value.__name__}.{attribute}", vars(value)[attribute], root, found)
        _add(f"{function.__module__}.{own}", value, root, found)


def _names(code: CodeType) -> Iterator[str]:
    for one in _codes(code):
        yield from one.co_names


def _constant(name: str, value: Any) -> str:
    if isinstance(value, _PLAIN):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} [{', '.join(_constant(name, one) for one in value)}]"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__} [{', '.join(sorted(_constant(name, one) for one in value))}]"
    if isinstance(value, Mapping):
        return f"{type(value).__name__} {[(_constant(name, key), _constant(name, one)) for key, one in value.items()]}"
    if type(value).__module__ == "numpy" and hasattr(value, "tobytes") and value.dtype.kind != "O":
        return f"numpy {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    raise DefinitionError(
        f"{name} is a {type(value).__name__}, whose value cannot be compared with that of another process. A request feature can use "
        "constants, functions and classes: pass the value as an input, or build it from constants inside the function.",
        name=name,
    )


def _tree_of(function: FunctionType) -> ast.AST:
    """Return the syntax tree of a function, without its decorators, after checking that it is what was imported."""
    tree = _parsed(function)
    if isinstance(tree, ast.FunctionDef):
        tree.decorator_list = []
        _check_fresh(function)
    return tree


def _check_fresh(function: FunctionType) -> None:
    """Check that the source has not changed since it was imported, by compiling all of it again.

    Raises:
        DefinitionError: It has, so that what runs is not what would be hashed.
    """
    loader = getattr(sys.modules.get(function.__module__), "__loader__", None)
    if type(loader).__name__ == "AssertionRewritingHook":  # pytest imports other code than the source has
        return
    own = function.__code__
    try:
        whole = compile("".join(inspect.findsource(function)[0]), own.co_filename, "exec", dont_inherit=True)
    except (OSError, SyntaxError):  # a cell of a notebook can have commands that are not Python
        return
    if not any(one.co_code == own.co_code and one.co_firstlineno == own.co_firstlineno for one in _codes(whole)):
        raise DefinitionError(
            f"The source of {_name_of(function)} has changed since it was imported. Import it again: start Python anew, or run "
            f"importlib.reload({function.__module__}).",
            name=function.__name__,
        )


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


def _parsed(what: FunctionType | type) -> ast.AST:
    """Return the syntax tree of a function or class.

    Raises:
        DefinitionError: Its source is not to be found.
    """
    try:
        source = textwrap.dedent(inspect.getsource(what))
        return ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError) as error:
        raise DefinitionError(
            f"The source of {_name_of(what)} is not to be found ({error}), so changes of it could not be noticed. Write it into a module.",
            name=what.__name__,
        ) from None


def _canonical(node: object) -> object:
    """Return a syntax tree as lists and text, alike in all releases of Python: fields that are empty or new ones are left out."""
    if isinstance(node, list):
        return [_canonical(one) for one in node]
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__} {node!r}"
    fields = {name: value for name, value in ast.iter_fields(node) if name not in _LEFT_OUT and value not in (None, [])}
    if (
        isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
        and ast.get_docstring(node, clean=False) is not None
    ):
        fields["body"] = fields["body"][1:]
    if isinstance(node, ast.Constant) and node.value is None:
        fields["value"] = None
    return [type(node).__name__, [[name, _canonical(value)] for name, value in fields.items()]]
