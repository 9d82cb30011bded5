"""The architecture rules: the direction of imports, the cost of an import, the sizes of files and functions."""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

import seeknal
from seeknal import Entity, FeatureStore, Materialization
from seeknal.define.feature_group import FeatureGroup

PACKAGE = Path(seeknal.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import only from modules named before its own.
ORDER = [
    "errors",
    "names",
    "entity",
    "system",
    "values",
    "config",
    "define",
    "request",
    "offline",
    "online",
    "engine",
    "registry",
    "write",
    "join",
    "load",
    "serve",
    "views",
    "home",
    "backup",
    "featurestore",
    "mlflow",
    "demo",
    "feast",
    "client",
    "server",
    "cli",
]


INTERFACES = {"featurestore", "demo", "client", "server", "cli"}


@cache
def tree_of(file: Path) -> ast.Module:
    """Parse a module, once for all tests."""
    return ast.parse(file.read_text())


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to."""
    return [*module.split("."), ""][1]


def module_of(file: Path) -> str:
    """Return the dotted name of a module."""
    return ".".join(["seeknal", *file.relative_to(PACKAGE).with_suffix("").parts])


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield all imports of the package, lazy ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("seeknal"))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seeknal"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", [f for f in FILES if f.parent != PACKAGE or f.name != "__init__.py"], ids=str)
def test_imports_point_one_way(file):
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imports(tree_of(file)):
        other = part_of(module)
        assert other in ORDER or other == "__version__", f"{module} has no place in the order"
        if other in ORDER:
            assert other == own or ORDER.index(other) < ORDER.index(own), f"{own} must not import {other}"


def test_every_part_has_its_place_in_the_order():
    parts = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES} - {"__init__"}
    assert parts == set(ORDER)


def test_the_design_page_names_every_part_and_module_in_the_order():
    page = (PACKAGE.parents[1] / "docs/design.md").read_text()
    rows = re.findall(r"^\| `(\w+)/?` \| [^|]+ \| ([^|]*) \|$", page, re.MULTILINE)
    assert [part for part, _ in rows] == ORDER
    for part, told in rows:
        inside = [file.relative_to(PACKAGE / part).parts[0] for file in FILES if file.is_relative_to(PACKAGE / part)]
        modules = {name.removesuffix(".py") for name in inside} - {"__init__"}
        assert set(re.findall(r"\w+", told)) == modules, part


def test_import_loads_nothing_heavy():
    heavy = {"duckdb", "pandas", "pyarrow", "numpy", "typer", "sqlalchemy", "deltalake", "lmdb", "polars"}
    code = "import sys, seeknal; print(*{m.partition('.')[0] for m in sys.modules})"
    for module in ("seeknal", "seeknal.featurestore.duckdbengine.feature_group"):
        loaded = run(code.replace("seeknal;", f"{module};")).split()
        assert not heavy & set(loaded)


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        ("--help", {"sqlalchemy", "pyarrow", "numpy", "duckdb", "deltalake", "pydantic"}),
        ("list feature-groups", {"pyarrow", "numpy", "duckdb", "deltalake", "pandas", "pydantic"}),
        ("version list clicks", {"pyarrow", "numpy", "duckdb", "deltalake", "pandas", "pydantic", "lmdb", "redis"}),
        ("version show clicks", {"pyarrow", "numpy", "duckdb", "deltalake", "pandas", "pydantic", "lmdb", "redis"}),
    ],
    ids=["help", "list", "version list", "version show"],
)
def test_a_command_loads_nothing_that_it_does_not_need(command, unneeded, tmp_path, monkeypatch):
    monkeypatch.setenv("SEEKNAL_HOME", str(tmp_path))
    group = FeatureGroup("clicks", Entity("person", ["person_id"]), Materialization("seen_at"))
    seen = pa.array([0], pa.timestamp("us", "UTC"))
    FeatureStore(tmp_path).groups.write(group, pa.table({"person_id": [1], "seen_at": seen, "clicks": [1]}))
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from seeknal.cli import main"
    loaded = run(f"{code}; sys.argv[1:] = {command.split()}; main()").splitlines()[-1].split()
    assert "seeknal.cli.app" in loaded
    assert not unneeded & set(loaded)


def test_an_online_read_loads_no_query_engine(tmp_path):
    group = FeatureGroup("clicks", Entity("person", ["person_id"]), Materialization("seen_at", online=True))
    seen = pa.array([0], pa.timestamp("us", "UTC"))
    FeatureStore(tmp_path).groups.write(group, pa.table({"person_id": [1], "seen_at": seen, "clicks": [1]}))
    read = f"seeknal.FeatureStore({str(tmp_path)!r}).tables.open('clicks').get_features([{{'person_id': 1}}], 'dicts')"
    answer, loaded = run(f"import sys, seeknal; print({read}); print(*sys.modules)").splitlines()
    assert answer == "[{'person_id': 1, 'clicks': 1}]"
    assert not {"duckdb", "deltalake", "pandas"} & set(loaded.split())


def test_import_takes_less_than_a_tenth_of_a_second():
    code = "import time; t = time.process_time(); import seeknal; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(5)) < 0.1


def run(code: str) -> str:
    """Run code in a fresh Python."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_every_public_name_can_be_imported():
    own, clients = seeknal.__all__[:-2], seeknal.__all__[-2:]
    assert (sorted(own), clients) == (own, ["AsyncClient", "Client"])
    for name in seeknal.__all__:
        assert getattr(seeknal, name).__name__ == name
    assert set(seeknal.__all__) <= set(dir(seeknal))


def test_all_names_at_once_need_no_extra():
    code = "import sys; sys.modules['httpx2'] = None; from seeknal import *; print('FeatureStore' in globals())"
    assert run(code) == "True\n"


def test_all_names_at_once_have_the_clients_where_their_extra_is_installed():
    assert run("from seeknal import *; print(Client.__name__, AsyncClient.__name__)") == "Client AsyncClient\n"


STORAGE_ONLY = {"registry", "write", "join", "load", "serve"}
"""The parts that know the storage of a home by `Storage` and `Location` only, and the query engine by `Engine` only."""
OF_FILES = {
    *("duckdb", "fcntl", "glob", "io", "os", "pathlib", "shutil", "tempfile"),
    *("seeknal.system.delta_log", "seeknal.system.duck", "seeknal.system.folders"),
    *(f"seeknal.system.locks.{name}" for name in ("exclusive_lock", "hold", "shared_lock", "try_exclusive_lock")),
    *(f"seeknal.system.storage.{name}" for name in ("LocalLocation", "LocalStorage", "path_of")),
}
WITH_FILES = {
    "registry/sqlite/__init__.py": {"pathlib"},  # the file of its own database
    "registry/sqlite/database.py": {"pathlib", "seeknal.system.folders"},  # the same file
    "registry/sqlite/implementation.py": {"os", "pathlib", "seeknal.system.folders"},  # the same file
    "registry/sql/upgrade.py": {"pathlib"},  # the modules of migrations beside it
    "join/features.py": {"duckdb"},  # the type of a result with output="duckdb"
    "join/streaming.py": {"pathlib"},  # the Parquet file that a user names
    "serve/online_tables.py": {"pathlib"},  # the folder of an LMDB store that a user names
}


def of_files(file: Path) -> set[str]:
    """Return the modules and functions for local files and for DuckDB that a module imports."""
    found = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {one for one in OF_FILES if any(name == one or name.startswith(f"{one}.") for name in found)}


def test_above_the_engine_the_storage_is_known_by_its_locations_only():
    inner = [file for file in FILES if part_of(module_of(file)) in STORAGE_ONLY]
    found = {file.relative_to(PACKAGE).as_posix(): of_files(file) for file in inner}
    assert {name: modules for name, modules in found.items() if modules} == WITH_FILES


@pytest.mark.parametrize("file", [f for f in FILES if part_of(module_of(f)) in INTERFACES], ids=str)
def test_the_interfaces_use_only_the_public_parts_of_a_store(file):
    uses = [node for node in ast.walk(tree_of(file)) if isinstance(node, ast.Attribute)]
    assert not [node.lineno for node in uses if node.attr == "core"]


def test_the_reference_lists_all_calls_of_every_part_of_a_store():
    page = (PACKAGE.parents[1] / "docs/api/featurestore.md").read_text()
    for part in ("projects", "entities", "groups", "features", "training_sets", "tables", "views", "tokens"):
        (told,) = re.findall(rf"^\| `store\.{part}` \| (.*) \|$", page, re.MULTILINE)
        calls = {name for name in dir(type(getattr(FeatureStore(), part))) if not name.startswith("_")}
        assert set(re.findall(r"`([a-z_]+)`", told)) == calls, part


def test_files_and_functions_keep_to_their_budgets():
    lengths = [len(file.read_text().splitlines()) for file in FILES]
    functions = [
        node.end_lineno - node.lineno + 1
        for file in FILES
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.FunctionDef)
    ]
    assert max(lengths) <= 500
    assert statistics.median(lengths) <= 150
    assert max(functions) <= 60


FACES = (
    "FeatureStore",
    "FeatureGroupDuckDB",
    "HistoricalFeaturesDuckDB",
    "OnlineFeaturesDuckDB",
    "FeatureView",
    "FeatureViews",
    "TrainingSet",
    "Client",
    "AsyncClient",
    "Entities",
    "Features",
    "Groups",
    "OnlineTables",
    "Projects",
    "Tokens",
    "TrainingSets",
)
INNER = {
    *(
        "Core",
        "Catalog",
        "Engine",
        "Erasures",
        "OnlineTable",
        "Recipe",
        "Registry",
        "Snapshot",
        "Source",
        "Stores",
        "View",
    ),
    "Viewing",
}
"""Attributes that the parts of a store use among themselves; they are not public."""


@pytest.mark.parametrize("face", FACES)
def test_what_public_calls_take_and_return_can_be_imported_from_the_package(face):
    named = set()
    for kind in getattr(seeknal, face).__mro__[:-1]:
        tree = tree_of(Path(sys.modules[kind.__module__].__file__))
        (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__]
        for call in (node for node in found.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            if not call.name.startswith("_"):
                each = [*call.args.args, *call.args.kwonlyargs, call.args.vararg, call.args.kwarg]
                annotations = [one.annotation for one in each if one and one.annotation] + [call.returns]
                named |= {node.id for one in annotations if one for node in ast.walk(one) if isinstance(node, ast.Name)}
    assert (named & own_classes()) - INNER <= set(seeknal.__all__)


@cache
def own_classes() -> set[str]:
    """Return the names of all classes of the package."""
    return {node.name for file in FILES for node in tree_of(file).body if isinstance(node, ast.ClassDef)}


def test_every_public_name_is_there():
    assert all(getattr(seeknal, name).__name__ == name for name in seeknal.__all__)
    assert set(seeknal.__all__) <= set(dir(seeknal))
