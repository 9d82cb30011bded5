"""Request features: plain functions of looked-up features and values of a request. The code stays in the user's module."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from types import FunctionType
from typing import Any

import pyarrow as pa

from seeknal.define.code import code_hash
from seeknal.errors import DefinitionError
from seeknal.values import types

ROW, ARRAY = "row", "array"


class RequestFeature:
    """A function that computes features of what was looked up and of values of the request. Calling it calls the function.

    `@request_feature` makes it. The same function computes the values of a training set and those of a request.

    Args:
        function: A function of a module. Its parameters name features and request values.
        outputs: The types of what it computes, by name.
        mode: "row", if it takes plain Python values, or "array", if it takes NumPy arrays.

    Raises:
        DefinitionError: The function is not one that another process can import, or an argument has the wrong form.
    """

    def __init__(self, function: Callable[..., Any], outputs: Mapping[str, str | pa.DataType], mode: str = ROW) -> None:
        if not isinstance(function, FunctionType) or not function.__qualname__.isidentifier():
            name = getattr(function, "__qualname__", repr(function))
            raise DefinitionError(
                f"{name} is not a function of a module, so another process could not import it. Define it with def, outside of classes "
                "and of other functions."
            )
        if mode not in (ROW, ARRAY):
            raise DefinitionError(f'mode={mode!r} is neither "row" nor "array".')
        self.function = function
        self.outputs = types.parse_each("outputs", outputs)
        self.mode = mode
        self.inputs = _inputs_of(function)
        self.__name__, self.__doc__, self.__module__ = function.__name__, function.__doc__, function.__module__
        self.__wrapped__ = function
        if not self.outputs:
            raise DefinitionError(
                f'{self.name} has no outputs. Write outputs={{"{self.name}": "float64"}}, for example.'
            )

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return self.function(*args, **options)

    def __repr__(self) -> str:
        return f"RequestFeature({self.path}: {', '.join(self.inputs)} -> {', '.join(self.outputs)})"

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__

    @property
    def path(self) -> str:
        """Where the function is, as "module:function"."""
        return f"{self.function.__module__}:{self.name}"

    @cached_property
    def code_hash(self) -> str:
        """The hash of its code; see `seeknal.define.code`.

        Raises:
            DefinitionError: The source is not to be found, or the function uses an object whose value cannot be compared.
        """
        return code_hash(self.function)

    def to_json(self) -> dict[str, Any]:
        """Return what identifies the function, as plain data. Two functions are the same if it is equal, in the same order.

        Raises:
            DefinitionError: The module has another object of that name, so another process would import that one.
        """
        module = sys.modules.get(self.function.__module__)
        if getattr(module, self.name, None) is not self:
            raise DefinitionError(
                f"{self.path} is another object than this function, and another process would import that one. Give the function the name "
                "that its module has for it.",
                name=self.name,
            )
        return {
            "function": self.path,
            "mode": self.mode,
            "inputs": list(self.inputs),
            "outputs": {name: types.as_text(kind) for name, kind in self.outputs.items()},
            "code": self.code_hash,
        }


def _inputs_of(function: FunctionType) -> tuple[str, ...]:
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise DefinitionError(f"{function.__name__} is asynchronous or yields. A request feature returns its value.")
    found = []
    for one in inspect.signature(function).parameters.values():
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise DefinitionError(
                f"{function.__name__} takes {one}. Name each feature and request value as a parameter."
            )
        if one.kind is one.KEYWORD_ONLY:
            raise DefinitionError(
                f"{function.__name__} takes {one.name} by name only. Leave out the * before it: inputs are given in order."
            )
        if one.default is not one.empty:
            raise DefinitionError(
                f"{function.__name__} has a default for {one.name}, which would never be used. Leave it out; defaults={{...}} of the view "
                "says what takes the place of null."
            )
        found.append(one)
    if not found:
        raise DefinitionError(f"{function.__name__} has no parameters. Name features or request values as parameters.")
    return tuple(one.name for one in found)


def request_feature(
    outputs: Mapping[str, str | pa.DataType], *, mode: str = ROW
) -> Callable[[Callable[..., Any]], RequestFeature]:
    """Return a decorator that makes a function of a module a request feature.

    The parameters name looked-up features, request values, or outputs of other functions.

    Args:
        outputs: The types of what the function computes, by name. With one, the function returns its value; with several, a mapping
            from name to value, or a tuple in their order.
        mode: "array": the function is called once for all rows with NumPy arrays, and returns arrays of the same length. Numbers and
            bools arrive as float64 with NaN for null. "row": it is called for each row with plain Python values, and None for null.

    Raises:
        DefinitionError: The function is not one that another process can import, or an argument has the wrong form.
    """
    return lambda function: RequestFeature(function, outputs, mode)


def load(known: Mapping[str, Any]) -> RequestFeature:
    """Import a request feature, and check that it is the one that was registered.

    Args:
        known: What `to_json` returned when it was registered.

    Raises:
        DefinitionError: It cannot be imported, or it is another one now.
    """
    module, _, name = known["function"].partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise DefinitionError(
            f"{known['function']} cannot be imported: {type(error).__name__}: {error}. Put its module where Python finds it, and name it: modules = "
            f'["{module}"] in seeknal.toml, or --module {module}.',
            function=known["function"],
        ) from error
    if not isinstance(found, RequestFeature):
        where = "a notebook or script that is not running" if module == "__main__" else f"module {module}"
        hint = " Move it to a module, and register the view again." if module == "__main__" else ""
        raise DefinitionError(f"{where} has no request feature {name!r}.{hint}", function=known["function"])
    now = found.to_json()
    changed = [part for part in ("mode", "inputs", "outputs", "code") if _in_order(now[part]) != _in_order(known[part])]
    if changed:
        raise DefinitionError(
            f"{known['function']} is not what was registered: its {' and '.join(changed)} changed. Check out the code that was registered, "
            "or register the view again, which makes its next version.",
            function=known["function"],
            changed=changed,
        )
    return found


def _in_order(part: object) -> object:
    """Return a part of the text form so that it is equal only to one in the same order: tuples of outputs depend on it."""
    return list(part.items()) if isinstance(part, Mapping) else list(part) if isinstance(part, tuple) else part
