"""The code of a function of Feast with all that it uses of its module, as text for a module without Feast."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

_GIVEN = {"pd": "import pandas as pd", "pandas": "import pandas", "np": "import numpy as np", "numpy": "import numpy"}
"""What Feast itself gives to a function whose module it does not have."""


class NotPortableError(Exception):
    """An object of Feast cannot become one of Seeknal; the message is a clause that says why.

    Args:
        why: The clause.
        instead: What to do, if it is something else than for others of the kind.
    """

    def __init__(self, why: str, instead: str | None = None) -> None:
        super().__init__(why)
        self.instead = instead


@dataclass(frozen=True)
class Statement:
    """A statement of a module: its text, and the names that it binds."""

    text: str
    names: frozenset[str]
    is_import: bool


@dataclass
class Module:
    """The statements of a module to be written, each once and in the order of its first use."""

    imports: dict[str, None] = field(default_factory=dict)
    bodies: dict[str, None] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)

    def add(self, statements: Sequence[Statement]) -> None:
        """Add statements, all or none.

        Raises:
            NotPortableError: A name is bound by another statement already.
        """
        owners = dict(self._owners)
        for one in statements:
            for name in one.names:
                if owners.setdefault(name, one.text) != one.text:
                    raise NotPortableError(f"two modules of the repository have different things named {name}")
        self._owners |= owners
        for one in statements:
            (self.imports if one.is_import else self.bodies).setdefault(one.text)


def add_function(code: str, repo: Path, module: Module) -> str:
    """Add a function of Feast, and all that it uses of its module, to a module to be written, and return its name.

    Args:
        code: The text of the function, with its decorator.
        repo: The folder of the repository.
        module: The module; it is unchanged if the function cannot be added.

    Raises:
        NotPortableError: The code is not to be found, or uses what is not in its module.
    """
    try:
        tree = ast.parse(textwrap.dedent(code))
    except SyntaxError:
        raise NotPortableError("its code in the registry is no function") from None
    function = next((one for one in tree.body if isinstance(one, ast.FunctionDef)), None)
    if function is None:
        raise NotPortableError("its code in the registry is no function with def")
    function = _undecorated(function)
    own = Statement(_text(textwrap.dedent(code), function), frozenset({function.name}), is_import=False)
    ways: list[list[Statement]] = []
    for known in list(_modules_of(function, repo)) or [{}]:
        ways.append([])
        _collect(function, known, ways[-1], {function.name})
    if any(one != ways[0] for one in ways):
        raise NotPortableError("two modules of the repository define it, and differ in what it uses")
    for one in (*ways[0], own):
        _check_imports(one, repo)
    module.add([*ways[0], own])
    return function.name


def _text(source: str, node: ast.stmt) -> str:
    """Return the text of a statement, with its comments."""
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


def _modules_of(function: ast.FunctionDef, repo: Path) -> Iterator[Mapping[str, list[tuple[ast.stmt, str]]]]:
    """Yield the statements of each module that defines a function, with their texts, by the names that they bind or change."""
    wanted = ast.dump(function)
    for file in sorted(repo.rglob("*.py")):
        if any(part.startswith(".") or part == "site-packages" for part in file.relative_to(repo).parts):
            continue
        try:
            source = file.read_text(encoding="utf-8")
            body = ast.parse(source).body
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue
        if any(isinstance(one, ast.FunctionDef) and ast.dump(_undecorated(one)) == wanted for one in body):
            known: dict[str, list[tuple[ast.stmt, str]]] = {}
            for one in body:
                for name in _bound(one) | _changed(one):
                    known.setdefault(name, []).append((one, _text(source, one)))
            yield known


def _undecorated(function: ast.FunctionDef) -> ast.FunctionDef:
    plain = copy(function)
    plain.decorator_list = []
    return plain


def _collect(
    node: ast.stmt,
    known: Mapping[str, list[tuple[ast.stmt, str]]],
    found: list[Statement],
    seen: set[str],
) -> None:
    """Add the statements of a module that a statement needs, each after those that it needs in turn."""
    for name in _used(node):
        if name in seen or hasattr(builtins, name):
            continue
        seen.add(name)
        if name in known:
            statement, text = known[name][0]
            if len(known[name]) > 1:
                raise NotPortableError(f"its module binds or changes {name} in more than one statement")
            if isinstance(statement, ast.Import | ast.ImportFrom) and _is_of_feast(statement):
                raise NotPortableError(f"it uses {name} of Feast")
            _collect(statement, known, found, seen)
            is_import = isinstance(statement, ast.Import | ast.ImportFrom)
            found.append(Statement(text, frozenset(_bound(statement)), is_import))
        elif name in _GIVEN:
            found.append(Statement(_GIVEN[name], frozenset({name}), is_import=True))
        else:
            raise NotPortableError(f"it uses {name}, which its module does not define")


def _check_imports(statement: Statement, repo: Path) -> None:
    """Check that a module outside of the repository can import what a statement imports.

    Raises:
        NotPortableError: A module is one of the repository, or it is imported at the start and not installed here.
    """
    for node in ast.walk(ast.parse(statement.text)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
        for top in (name.partition(".")[0] for name in names):
            is_relative = isinstance(node, ast.ImportFrom) and node.level > 0
            if is_relative or (repo / f"{top}.py").exists() or (repo / top).is_dir():
                raise NotPortableError(
                    f"it imports {ast.unparse(node).partition('import ')[2]} of the module {names[0]!r} of the repository",
                    "Move what it uses into its own module, run feast apply, and import again.",
                )
            if statement.is_import and importlib.util.find_spec(top) is None:
                raise NotPortableError(
                    f"it imports {top}, which is not installed where Seeknal runs", f"Install {top}, and import again."
                )


def _is_of_feast(statement: ast.Import | ast.ImportFrom) -> bool:
    modules = (
        [statement.module or ""] if isinstance(statement, ast.ImportFrom) else [one.name for one in statement.names]
    )
    return any(one.partition(".")[0] == "feast" for one in modules)


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module binds."""
    names: set[str] = set()
    for node in [statement] if isinstance(statement, ast.FunctionDef | ast.ClassDef) else ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _changed(statement: ast.stmt) -> set[str]:
    """Return the names whose values a statement of a module may change: by a call, an item or an attribute."""
    if isinstance(statement, ast.Expr | ast.For | ast.While | ast.With | ast.AugAssign | ast.Delete):
        parts: list[ast.AST] = [statement]
    elif isinstance(statement, ast.Assign):
        parts = [one for one in statement.targets if not isinstance(one, ast.Name)]
    else:
        return set()
    return {node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)} - _bound(statement)


def _used(statement: ast.stmt) -> list[str]:
    """Return the names that a statement takes from its module, in order."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return []
    own, shared = set(), set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Global):
            shared |= set(node.names)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.alias):
            own.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name:
            own.add(node.name)
    loaded = [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return list(dict.fromkeys(name for name in loaded if name not in own - shared))
