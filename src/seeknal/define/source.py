"""The source of functions and classes, from the file that they were imported from, as long as it is what was imported."""

from __future__ import annotations
import __future__

import ast
import linecache
import sys
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from seeknal.errors import DefinitionError

_LEFT_OUT = {"kind", "type_comment", "ctx"}
"""Fields of syntax trees that do not change what the code does."""
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def source_of(function: FunctionType) -> list[ast.AST]:
    """Return the syntax tree of a function; for a lambda, of all lambdas that begin in its line.

    Raises:
        DefinitionError: The source is not to be found, or has changed since it was imported.
    """
    own, name = function.__code__, f"{function.__module__}.{function.__qualname__}"
    tree, whole = _read(name, own, function.__globals__)
    named = [one for one in codes_in(whole) if one.co_qualname == own.co_qualname]
    if _is_rewritten(function.__module__):
        same = [one for one in named if one.co_firstlineno == own.co_firstlineno]
    else:
        same = [one for one in named if _content(one) == _content(own)]
    found = [node for node in ast.walk(tree) if same and _starts(node, same[0])]
    if not found:
        raise _changed(name, function.__module__)
    return found


def source_of_class(what: type) -> tuple[ast.AST, CodeType]:
    """Return the syntax tree of a class, and the code that made it.

    Raises:
        DefinitionError: The source is not to be found, or no longer has the class.
    """
    name = f"{what.__module__}.{what.__qualname__}"
    known = vars(sys.modules[what.__module__])
    methods = [
        one.__code__ for one in vars(what).values() if isinstance(one, FunctionType) and one.__globals__ is known
    ]
    written = [
        one.co_filename for one in methods if one.co_filename[:1] != "<"
    ]  # a cell of a notebook has a file of its own
    tree, whole = _parsed(name, (written or [known.get("__file__", "")])[0], known, 0)
    codes = [one for one in codes_in(whole) if one.co_qualname == what.__qualname__]
    found = [(node, code) for node in ast.walk(tree) for code in codes if _starts(node, code)]
    if not found:
        raise DefinitionError(
            f"The source of {name} is not to be found, so changes of it could not be noticed. Define it with `class` in a module.",
            name=name,
        )
    return found[-1]


def codes_in(code: CodeType) -> Iterator[CodeType]:
    """Return code, and all code inside it."""
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from codes_in(one)


def canonical(node: object) -> object:
    """Return a syntax tree as lists and text, the same in all releases of Python: fields that are empty or new are left out."""
    if isinstance(node, list):
        return [canonical(one) for one in node]
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__} {node!r}"
    fields = {name: value for name, value in ast.iter_fields(node) if name not in _LEFT_OUT and value not in (None, [])}
    if isinstance(node, Definition) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = fields["body"][1:]
    if isinstance(node, ast.Constant) and node.value is None:
        fields["value"] = None
    if isinstance(node, ast.JoinedStr):  # some releases put an empty text after a nested format
        fields["values"] = [one for one in node.values if not isinstance(one, ast.Constant) or one.value]
    return [type(node).__name__, [[name, canonical(value)] for name, value in fields.items()]]


def _read(name: str, code: CodeType, known: dict[str, Any]) -> tuple[ast.Module, CodeType]:
    # In a notebook, `from __future__ import annotations` counts for later cells too.
    return _parsed(name, code.co_filename, known, code.co_flags & __future__.annotations.compiler_flag)


def _parsed(name: str, file: str, known: dict[str, Any], flags: int) -> tuple[ast.Module, CodeType]:
    linecache.checkcache(file)
    text = "".join(linecache.getlines(file, known))
    if not text:
        raise DefinitionError(
            f"The source of {name} is not to be found, so changes of it could not be noticed. Write it into a module.",
            name=name,
        )
    try:
        return _compiled(text, file, flags)
    except (SyntaxError, ValueError):
        raise _changed(name, str(known.get("__name__"))) from None


@lru_cache(32)
def _compiled(text: str, file: str, flags: int) -> tuple[ast.Module, CodeType]:
    flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT  # as cells of notebooks may
    return ast.parse(text), compile(text, file, "exec", flags, dont_inherit=True)


def _content(value: Any) -> Any:
    """Return what tells code or a constant in it apart from others: not where it is, but 1, 1.0 and True are three."""
    if isinstance(value, CodeType):
        names = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
        return value.co_name, value.co_code, names, [_content(one) for one in value.co_consts]
    if isinstance(value, tuple):
        return [_content(one) for one in value]
    if isinstance(value, frozenset):
        return sorted(str(_content(one)) for one in value)
    return type(value).__name__, repr(value)


def _starts(node: ast.AST, code: CodeType) -> bool:
    """Return whether some code is that of a definition or lambda. The code of a definition begins with its decorators."""
    if isinstance(node, Definition):
        first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        return node.name == code.co_name and first == code.co_firstlineno
    return isinstance(node, ast.Lambda) and code.co_name == "<lambda>" and node.lineno == code.co_firstlineno


def _is_rewritten(module: str) -> bool:
    """Return whether pytest has imported other code than the source has: its assertions say more."""
    loader = getattr(sys.modules.get(module), "__loader__", None)
    return type(loader).__name__ == "AssertionRewritingHook"


def _changed(name: str, module: str) -> DefinitionError:
    return DefinitionError(
        f"The source of {name} has changed since it was imported. Import it again: start Python anew, or run "
        f"importlib.reload({module}).",
        name=name,
    )
