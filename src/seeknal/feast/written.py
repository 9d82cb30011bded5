"""The module of request features that an import writes: Feast's functions unchanged, and a request feature that calls each."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from seeknal.define.request_feature import RequestFeature
from seeknal.errors import DefinitionError, StoreError
from seeknal.feast.code import Module
from seeknal.feast.plan import PlannedFunction
from seeknal.system.folders import named
from seeknal.values.types import as_text

_HEAD = '''"""Request features, written by `seeknal import-feast` from the Feast project {project}. The functions of Feast are unchanged."""'''


def text_of(project: str, functions: Collection[PlannedFunction], module: Module) -> str:
    """Return the text of the module."""
    features = [_request_feature(one) for one in functions]
    callers = sorted({_caller(one) for one in functions})
    own = ["from seeknal import request_feature", f"from seeknal.feast.udf import {', '.join(callers)}"]
    if any("pa." in one for one in features):
        own.append("import pyarrow as pa")
    imports = dict.fromkeys([*module.imports, *own])
    future = [one for one in imports if one.startswith("from __future__")]
    ordered = "\n".join([*future, *sorted(one for one in imports if one not in future)])
    head = f"{_HEAD.format(project=project)}\n\n{ordered}"
    return "\n\n\n".join([head, *module.bodies, *features]) + "\n"


def _caller(one: PlannedFunction) -> str:
    """Return the function of `seeknal.feast.udf` that calls a function of Feast as Feast does."""
    if one.view.mode == "pandas":
        return "of_frame"
    return "of_values" if one.view.is_singleton else "of_lists"


def _request_feature(one: PlannedFunction) -> str:
    is_frame = one.view.mode == "pandas"
    outputs = ", ".join(f"{json.dumps(name)}: {_type(kind)}" for name, kind in one.outputs.items())
    named = {name: name for name in one.kinds} | dict(one.long_names)
    pairs = [
        f'"{key}": ({name}, "{_numpy(one.kinds[name])}")' if is_frame else f'"{key}": {name}'
        for key, name in named.items()
    ]
    lines = "".join(f"        {pair},\n" for pair in pairs)
    return (
        f'@request_feature(outputs={{{outputs}}}, mode="{"array" if is_frame else "row"}")\n'
        f"def {one.name}({', '.join(one.kinds)}):\n"
        f"    inputs = {{\n{lines}    }}\n"
        f"    return {_caller(one)}({one.function}, inputs, {json.dumps(list(one.outputs))})"
    )


def _type(kind: pa.DataType) -> str:
    """Return a type as code."""
    with suppress(ValueError):
        if pa.types.is_list(kind) and pa.list_(pa.type_for_alias(str(kind.value_type))) == kind:
            return f'pa.list_(pa.type_for_alias("{kind.value_type}"))'
    return f'"{as_text(kind)}"'


def _numpy(kind: pa.DataType) -> str:
    """Return the NumPy type of a column in Feast's frames."""
    if pa.types.is_timestamp(kind):
        return "datetime64[ns]"
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return str(kind.to_pandas_dtype()().dtype)
    return "object"


def write(file: Path, text: str) -> None:
    """Write the module. A file that is there already is not changed.

    Raises:
        DefinitionError: The file has another content, or a name that cannot be imported.
        StoreError: It cannot be read or written.
    """
    named(file)
    if file.suffix != ".py" or not file.stem.isidentifier():
        raise DefinitionError(
            f"{file} cannot be imported. Pass --functions with a file such as features_from_feast.py."
        )
    try:
        if file.exists():
            if file.read_text(encoding="utf-8") == text:
                return
            raise DefinitionError(
                f"{file} has another content than this import would write. Pass --functions with another file, or remove this one.",
                file=str(file),
            )
        file.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{file} cannot be read or written: {error}") from None


def load(file: Path) -> Mapping[str, RequestFeature]:
    """Import the module, and return its request features by name.

    Raises:
        DefinitionError: It cannot be imported.
    """
    folder = str(file.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(file.stem)
    except Exception as error:  # the code is the user's, and can raise anything
        raise DefinitionError(f"{file} cannot be imported: {type(error).__name__}: {error}", file=str(file)) from error
    if Path(module.__file__ or "").resolve() != file.resolve():
        raise DefinitionError(
            f"Another module is named {file.stem}: {module.__file__}. Pass --functions with another file."
        )
    return {name: one for name, one in vars(module).items() if isinstance(one, RequestFeature)}
