"""The hash of a function's code: of its own source, and of all that it uses from its own package."""

from __future__ import annotations

import ast
import dis
import hashlib
import importlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from copy import copy
from datetime import date, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from importlib.util import resolve_name
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, GenericAlias, MethodType, ModuleType, UnionType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from seeknal.define.source import Definition, canonical, codes_in, source_of, source_of_class
from seeknal.errors import DefinitionError

_PLAIN = (
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    type(...),
    range,
    slice,
    date,
    time,
    timedelta,
    timezone,
    ZoneInfo,
    Decimal,
    Fraction,
    UUID,
    Enum,
)
"""The types of values whose `repr` says all about them. A bool is an int, a datetime a date."""
_OF_THE_MODULE = {
    "__builtins__",
    "__cached__",
    "__file__",
    "__loader__",
    "__name__",
    "__package__",
    "__path__",
    "__spec__",
}
"""Globals that say how and where a module was loaded, which may differ between machines."""


def code_hash(function: FunctionType) -> str:
    """Return the SHA-256 of what a function does, as far as its own package decides it.

    It covers the syntax tree of the function without comments, docstrings and layout, and, by name, whatever it uses of its own
    top-level package: functions, classes, and constants with their values. Of other packages it covers the names.

    Raises:
        DefinitionError: The source is not to be found or has changed since it was imported, or the function uses an object whose value
            cannot be compared.
    """
    uses = _Uses(_root(function.__module__))
    uses.add(_name_of(function), function)
    return hashlib.sha256(json.dumps(sorted(uses.found.items())).encode()).hexdigest()


class _Uses:
    """What a function uses, directly and indirectly.

    Args:
        root: The name of the package whose code counts.

    Attributes:
        found: A text for each name that is used, from which two different values can be told apart.
    """

    def __init__(self, root: str) -> None:
        self.found: dict[str, str] = {}
        self._root, self._place = root, _place_of(root)
        self._names: dict[int, str] = {}
        """The first name of each function and class, by identity: they may use themselves under several names."""
        self._steps: set[tuple[str, frozenset[str]]] = set()
        """Attributes of modules that were followed, each with the attributes that may follow it."""

    def add(self, name: str, value: object) -> None:
        """Add what a name stands for, and all that this uses in turn."""
        if name not in self.found:
            self.found[name] = ""
            self.found[name] = self._text(name, value)

    def _text(self, name: str, value: Any) -> str:
        if isinstance(value, ModuleType):
            return f"module {value.__name__}"
        if self._is_own(type(value).__module__) and not isinstance(value, type):
            self.add(f"{name} {type(value).__qualname__}", type(value))
        if type(value).__module__ == "typing" or isinstance(value, GenericAlias | UnionType):
            return f"type {value!r}"
        if callable(value) and not isinstance(value, Enum):
            if id(value) in self._names:
                return f"as {self._names[id(value)]}"
            self._names[id(value)] = name
            return self._callable(name, value)
        return self._constant(name, value)

    def _callable(self, name: str, value: Any) -> str:  # noqa: PLR0911 - one for each kind of value
        if isinstance(value, FunctionType) and self._is_own(value.__globals__["__name__"]):
            return self._function(name, value)
        if isinstance(value, type) and self._is_own(value.__module__):
            return self._class(name, value)
        if found := self._importable(name, value):
            return found
        if isinstance(value, partial):
            return (
                f"partial {self._text(f'{name}.func', value.func)} {self._constant(name, (value.args, value.keywords))}"
            )
        if isinstance(value, MethodType) and isinstance(value.__self__, type):
            self.add(f"{name}.__self__", value.__self__)
            return f"method {value.__name__}"
        if isinstance(value, FunctionType):  # of another package, but made here, as by its decorators
            self._closed(name, value)
            return f"function {value.__code__.co_qualname}"
        inner = getattr(value, "__wrapped__", None)
        if isinstance(inner, FunctionType) and not self._is_own(type(value).__module__):  # as by functools.lru_cache
            return f"{type(value).__name__} of {self._text(f'{name}.__wrapped__', inner)}"
        return self._object(name, value)

    def _function(self, name: str, function: FunctionType) -> str:
        known, trees = function.__globals__, source_of(function)
        self._closed(name, function)
        self._used(function.__code__, known)
        return json.dumps([self._tree(tree, known) for tree in trees])

    def _closed(self, name: str, function: FunctionType) -> None:
        """Add what belongs to a function, and not to its source: variables of the function around it, defaults, what it wraps."""
        for own, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self.add(f"{name}.{own}", cell.cell_contents)
        for place, default in enumerate(function.__defaults__ or ()):
            self.add(f"{name} default {place}", default)
        for own, default in (function.__kwdefaults__ or {}).items():
            self.add(f"{name} default {own}", default)
        if (inner := getattr(function, "__wrapped__", None)) is not None:
            self.add(f"{name}.__wrapped__", inner)

    def _class(self, name: str, what: type) -> str:
        tree, code = source_of_class(what)
        known = vars(sys.modules[what.__module__])
        self._used(code, known)
        for base in (*what.__bases__, type(what)):
            self.add(f"{name} {base.__qualname__}", base)
        for own, member in vars(what).items():
            inner = getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
            if isinstance(inner, FunctionType):
                is_written = inner.__code__.co_filename[:1] != "<"  # unlike methods that a decorator generates
                if is_written and self._is_own(inner.__globals__["__name__"]):
                    self.add(f"{name}.{own}", inner)
            elif isinstance(member, _PLAIN) and not own.startswith("_"):
                self.add(f"{name}.{own}", member)
        return json.dumps(self._tree(tree, known))

    def _tree(self, tree: ast.AST, known: Mapping[str, Any]) -> object:
        """Return a syntax tree as lists and text, after adding what its decorators use and what it imports when it runs.

        What `@request_feature` says is left out: it is not code.
        """
        if isinstance(tree, Definition):
            tree = copy(tree)
            tree.decorator_list = [one for one in tree.decorator_list if not _declares(one, known)]
            for one in tree.decorator_list:
                names = {node.id for node in ast.walk(one) if isinstance(node, ast.Name)}
                for own in sorted(names & known.keys()):
                    self.add(f"{known['__name__']}.{own}", known[own])
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._imported(alias.name, None, tree)
            elif isinstance(node, ast.ImportFrom):
                source = resolve_name("." * node.level + (node.module or ""), known.get("__package__"))
                for alias in node.names:
                    self._imported(source, alias.name, tree)
        return canonical(tree)

    def _imported(self, module: str, name: str | None, tree: ast.AST) -> None:
        """Add what a function imports from its own package when it runs."""
        if not self._is_own(module):
            return
        attributes = frozenset(node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute))
        try:
            found: Any = importlib.import_module(module)
            if name is not None:
                found = getattr(found, name) if hasattr(found, name) else importlib.import_module(f"{module}.{name}")
        except ImportError:
            found = None
        self._global(f"{module}.{name}" if name else module, found, attributes)

    def _used(self, code: CodeType, known: Mapping[str, Any]) -> None:
        attributes = frozenset(name for one in codes_in(code) for name in one.co_names)
        for own in sorted(set(_globals_of(code)) & known.keys() - _OF_THE_MODULE):
            self._global(f"{known['__name__']}.{own}", known[own], attributes)

    def _global(self, name: str, value: object, attributes: frozenset[str]) -> None:
        self.add(name, value)
        if not isinstance(value, ModuleType) or not self._is_own(value.__name__):
            return
        for one in sorted(attributes & vars(value).keys() - _OF_THE_MODULE):
            if (step := (f"{value.__name__}.{one}", attributes)) not in self._steps:
                self._steps.add(step)
                self._global(step[0], vars(value)[one], attributes)

    def _constant(self, name: str, value: Any) -> str:  # noqa: PLR0911 - one for each kind of value
        kind = type(value)
        if kind.__module__ == "numpy" and hasattr(value, "tobytes") and not value.dtype.hasobject:
            return f"numpy {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
        if isinstance(value, re.Pattern):
            return f"pattern {value.pattern!r} {value.flags}"
        if isinstance(value, _PLAIN):
            return f"{kind.__name__} {value!r}"
        if isinstance(value, list | tuple):
            return f"{kind.__name__} {[self._text(f'{name}[{place}]', one) for place, one in enumerate(value)]}"
        if isinstance(value, set | frozenset):
            return f"{kind.__name__} {sorted(self._text(name, one) for one in value)}"
        if isinstance(value, Mapping):
            return f"{kind.__name__} {[(self._text(name, key), self._text(f'{name}[{key!r}]', one)) for key, one in value.items()]}"
        if isinstance(value, logging.Logger):
            return f"logger {value.name}"
        return self._importable(name, value) or self._object(name, value)

    def _object(self, name: str, value: Any) -> str:
        """Return the text of an object of one of the package's own classes: that of its attributes."""
        kinds = type(value).__mro__[:-1]
        if not kinds or not all(self._is_own(one.__module__) and not vars(one).get("__slots__") for one in kinds):
            raise DefinitionError(
                f"{name} is a {type(value).__name__}, whose value cannot be compared with that of another process. A request feature can "
                "use constants, functions and classes: pass the value as an input, or build it from constants inside the function.",
                name=name,
            )
        return f"{type(value).__name__} {self._text(f'{name}.__dict__', vars(value))}"

    def _importable(self, name: str, value: object) -> str | None:
        """Return the other package and the name under which each process finds the same object; None if there are none."""
        module = getattr(value, "__module__", None) or type(value).__module__
        is_bound = isinstance(value, BuiltinFunctionType) and not isinstance(value.__self__, ModuleType | type(None))
        if self._is_own(module) or is_bound:
            return None
        for path in (getattr(value, "__qualname__", None), getattr(value, "__name__", None), name.rpartition(".")[2]):
            found: object = sys.modules.get(module)
            for part in str(path).split("."):
                found = getattr(found, part, None)
            if found is value:
                return f"{_root(module)} {path}"
        return None

    def _is_own(self, module: str) -> bool:
        root = _root(module)
        return root == self._root or (self._place is not None and _place_of(root) == self._place)


def _place_of(root: str) -> Path | None:
    """Return the folder of a user's top-level modules and packages; None for those of Python and of installed packages."""
    file = getattr(sys.modules.get(root), "__file__", None)
    if file is None:
        return None
    path = Path(file).absolute()
    place = path.parent.parent if path.stem == "__init__" else path.parent
    installed = {"site-packages", "dist-packages", Path(os.__file__).parent.name}
    return None if installed & set(place.parts) else place


def _root(module: str) -> str:
    return module.partition(".")[0]


def _name_of(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _globals_of(code: CodeType) -> Iterator[str]:
    loads = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
    for one in codes_in(code):
        yield from (step.argval for step in dis.get_instructions(one) if step.opname in loads)


def _declares(decorator: ast.expr, known: Mapping[str, Any]) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    if isinstance(called, ast.Attribute):
        return called.attr == "request_feature"
    found = known.get(called.id) if isinstance(called, ast.Name) else None
    return getattr(found, "__module__", None) == "seeknal.define.request_feature"
