"""The hash of a request feature's code changes with what the function does, and with nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import seeknal

SOURCE = Path(seeknal.__file__).parents[1]
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"

HASH_EACH = """
import importlib, json, sys
from seeknal.errors import DefinitionError
from seeknal.define.code import code_hash
for folder in sys.argv[2:]:
    known = set(sys.modules)
    sys.path.insert(0, folder)
    found = getattr(importlib.import_module(sys.argv[1]), "ratio")
    try:
        print(json.dumps(code_hash(getattr(found, "function", found))))
    except DefinitionError as error:
        print(json.dumps({"error": str(error)}))
    sys.path.pop(0)
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("features", "shop"):
            del sys.modules[name]
    importlib.invalidate_caches()
"""
START = """\
import functools, re
from datetime import date
from enum import Enum
import numpy as np
from seeknal import request_feature


"""
FEATURE = """\
@request_feature(outputs={"r": "float64"})
def ratio(x, y):
    return helper(x) / y
"""


def run(code: str, *arguments: object, python: object = sys.executable, **environment: str) -> str:
    done = subprocess.run(
        [python, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def hashes(tmp_path):
    """Give the hash of the function `ratio` in each of some texts of its module, or the error."""

    def find(*texts, module="features", **options):
        folders = []
        for text in texts:
            folder = tmp_path / f"v{len(list(tmp_path.iterdir()))}"
            for name, content in (text if isinstance(text, dict) else {"features.py": text}).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(dedent(content), encoding="utf-8")
            folders.append(folder)
        return [json.loads(line) for line in run(HASH_EACH, module, *folders, **options).splitlines()]

    return find


def module(before: str = "", feature: str = FEATURE, after: str = "") -> str:
    return START + dedent(before) + "\n\n" + feature + "\n\n" + dedent(after)


HELPER = "def helper(x):\n    return x + 1\n"


def test_comments_docstrings_layout_and_the_order_of_definitions_do_not_change_the_hash(hashes):
    documented = '''
        # A comment.
        def helper(x):
            """Say what it does."""
            return (   x
                + 1)   # another comment
    '''
    multiline = (
        '@request_feature(\n    outputs={"other": "int64"}, mode="array",\n)\n'
        'def ratio(x, y):\n    """Doc."""\n\n    return helper( x )/y\n'
    )
    found = hashes(
        module(HELPER),
        module(documented),
        module("", FEATURE, HELPER),
        module(HELPER, multiline),
        module("UNUSED = 1\n\ndef unused(x):\n    return 2\n\n" + HELPER),
        module(HELPER, FEATURE.replace("@request_feature", "import seeknal\n@seeknal.request_feature")),
        module(HELPER, FEATURE.replace("@request_feature", "from seeknal import request_feature as rf\n@rf")),
    )
    assert len(set(found)) == 1, found


SAME_PACKAGE = {
    "shop/__init__.py": "",
    "shop/features.py": module("from shop import money\nfrom .money import helper"),
    "shop/money.py": "from .rates import RATE\ndef helper(x):\n    return x * RATE\n",
    "shop/rates.py": "RATE = 2\n",
}
THROUGH_MODULES = {
    "shop/__init__.py": "",
    "shop/features.py": module("import shop.money\n", FEATURE.replace("helper(x)", "shop.money.rates.helper(x)")),
    "shop/money.py": "from shop import rates\n",
    "shop/rates.py": HELPER,
}
IMPORTS_INSIDE = {
    "shop/__init__.py": "",
    "shop/features.py": module("", FEATURE.replace("return", "from .money import helper\n    return")),
    "shop/money.py": HELPER,
}
TWICE = """
def times(count):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args) * count
        return wrapper
    return decorate

@times(2)
def helper(x):
    return x
"""
CLASS = """
LOW = 3
class Base:
    def shift(self, x):
        return x + 1

class Clip(Base):
    top = 9
    def __call__(self, x):
        return self.shift(min(max(x, LOW), self.top))

    @property
    def size(self):
        return 4

    @staticmethod
    def half(x):
        return x / 5

def helper(x):
    return Clip()(x)
"""
CHANGES = {
    "its own body": (module(HELPER), "/ y", "/ (y + 1)"),
    "a constant in its body": (module(HELPER), "helper(x) / y", "helper(x) / y * 2"),
    "a helper": (module(HELPER), "x + 1", "x + 2"),
    "a helper's helper": (module("def helper(x):\n    return other(x)\n\ndef other(x):\n    return x + 1\n"), "x + 1", "x - 1"),
    "a constant": (module("RATE = 2\ndef helper(x):\n    return x * RATE\n"), "RATE = 2", "RATE = 3"),
    "the type of a constant": (module("RATE = 2\ndef helper(x):\n    return x * RATE\n"), "RATE = 2", "RATE = 2.0"),
    "the sign of zero": (module("RATE = 0.0\ndef helper(x):\n    return x * RATE\n"), "RATE = 0.0", "RATE = -0.0"),
    "a value in a dict": (module("R = {'a': [1, (2,)]}\ndef helper(x):\n    return x * R['a'][0]\n"), "(2,)", "(3,)"),
    "a function in a dict": (module(HELPER.replace("helper", "inner") + "R = {'a': inner}\ndef helper(x):\n    return R['a'](x)\n"), "x + 1", "x + 2"),
    "an array": (module("R = np.array([1.0, 2.0])\ndef helper(x):\n    return x * R[0]\n"), "2.0]", "3.0]"),
    "the type of an array": (module("R = np.array([1, 2])\ndef helper(x):\n    return x * R[0]\n"), "[1, 2]", "[1, 2], 'int32'"),
    "a long pattern": (module(f"R = re.compile('{'a' * 300}b')\ndef helper(x):\n    return R\n"), "ab'", "ac'"),
    "the flags of a pattern": (module("R = re.compile('a')\ndef helper(x):\n    return R\n"), "('a')", "('a', re.I)"),
    "a date": (module("R = date(2024, 1, 1)\ndef helper(x):\n    return R\n"), "1, 1", "1, 2"),
    "an enum": (module("class R(Enum):\n    A = 1\ndef helper(x):\n    return R.A.value\n"), "A = 1", "A = 2"),
    "a method": (module(CLASS), "min(max(x, LOW), self.top)", "max(x, LOW)"),
    "a constant of a class": (module(CLASS), "top = 9", "top = 8"),
    "a constant of a method": (module(CLASS), "LOW = 3", "LOW = 2"),
    "a base class": (module(CLASS), "x + 1", "x + 2"),
    "a property": (module(CLASS), "return 4", "return 5"),
    "a static method": (module(CLASS), "x / 5", "x / 6"),
    "an object of a class": (module("class Rate:\n    def __init__(self, by):\n        self.by = by\nRATE = Rate(2)\ndef helper(x):\n    return x * RATE.by\n"), "Rate(2)", "Rate(3)"),
    "the class of an object": (module("class Rate:\n    def __call__(self, x):\n        return x + 1\nhelper = Rate()\n"), "x + 1", "x + 2"),
    "a default of a helper": (module("STEP = 1\ndef helper(x, by=STEP):\n    return x + by\n"), "STEP = 1", "STEP = 2"),
    "a keyword default": (module("def helper(x, *, by=1):\n    return x + by\n"), "by=1", "by=2"),
    "a variable of a closure": (module("def make(by):\n    def add(x):\n        return x + by\n    return add\nhelper = make(1)\n"), "make(1)", "make(2)"),
    "a lambda": (module("helper = lambda x: (\n    x + 1\n)\n"), "x + 1", "x + 2"),
    "a partial": (module("def add(y, x):\n    return x + y\nhelper = functools.partial(add, 1)\n"), "(add, 1)", "(add, 2)"),
    "what a partial calls": (module("def add(y, x):\n    return x + y\nhelper = functools.partial(add, 1)\n"), "x + y", "x - y"),
    "a cached helper": (module(HELPER.replace("def", "@functools.cache\ndef")), "x + 1", "x + 2"),
    "the argument of a decorator": (module(TWICE), "@times(2)", "@times(3)"),
    "the code of a decorator": (module(TWICE), "(*args) * count", "(*args) + count"),
    "what is decorated": (module(TWICE), "return x\n", "return x + 1\n"),
    "the argument of another package's decorator": (module("SIZE = 1\n@functools.lru_cache(SIZE)\n" + HELPER), "SIZE = 1", "SIZE = 2"),
    "its own decorator": (module(HELPER + TWICE.replace("helper", "other"), FEATURE.replace("def", "@times(2)\ndef")), "+ 1", "+ 2"),
    "the argument of its own decorator": (module(HELPER + TWICE.replace("helper", "other"), FEATURE.replace("def", "@times(4)\ndef")), "times(4)", "times(5)"),
    "a class method under a name": (module("class R:\n    @classmethod\n    def go(cls, x):\n        return x + 1\nhelper = R.go\n"), "x + 1", "x + 2"),
    "the package of a function": (module("from math import log as helper"), "math import log", "numpy import log"),
    "a helper's recursion": (module("def helper(x):\n    return x if x < 1 else other(x - 1)\ndef other(x):\n    return helper(x - 2)\n"), "x - 2", "x - 3"),
    "a closure's recursion": (module("def make():\n    def go(x):\n        return go(x - 1) if x > 1 else 5\n    return go\nhelper = make()\n"), "else 5", "else 6"),
    "a global of a nested function": (module("A = 1\ndef helper(x):\n    return sum(A + i for i in (lambda: [A, x])())\n"), "A = 1", "A = 2"),
}  # fmt: skip
PACKAGES = {
    "a helper of another module of the package": (SAME_PACKAGE, "shop/money.py", "x * RATE", "x / RATE"),
    "a constant of a third module": (SAME_PACKAGE, "shop/rates.py", "2", "3"),
    "a helper by way of two modules": (THROUGH_MODULES, "shop/rates.py", "x + 1", "x + 2"),
    "a helper that is imported inside": (IMPORTS_INSIDE, "shop/money.py", "x + 1", "x + 2"),
}


def test_the_hash_changes_with_everything_that_the_function_uses_of_its_own_module(hashes):
    before = [text for text, _, _ in CHANGES.values()]
    after = [text.replace(old, new) for text, old, new in CHANGES.values()]
    found = hashes(*before, *after)
    for name, first, second in zip(CHANGES, found, found[len(before) :], strict=False):
        assert isinstance(first, str), (name, first)
        assert isinstance(second, str), (name, second)
        assert first != second, name


def test_the_hash_changes_with_what_the_function_uses_of_other_modules_of_its_package(hashes):
    before = [files for files, *_ in PACKAGES.values()]
    after = [{**files, file: files[file].replace(old, new)} for files, file, old, new in PACKAGES.values()]
    found = hashes(*before, *after, module="shop.features")
    for name, first, second in zip(PACKAGES, found, found[len(before) :], strict=False):
        assert isinstance(first, str), (name, first)
        assert first != second, name


def test_the_hash_is_the_same_in_each_process_whatever_the_seed_of_hashes_and_the_folder(hashes):
    sets = module(
        "NAMES = {'a', 'b', 'c', 'd'}\ndef helper(x):\n    return x in NAMES or x in {'p', 'q', 'r'}\n"
        + CLASS.replace("helper", "clip")
    )
    found = {hashes(sets, PYTHONHASHSEED=seed)[0] for seed in ("0", "1", "2")}
    assert len(found) == 1
    assert isinstance(found.pop(), str)


def pythons() -> list[Path]:
    names = [*PYENV.glob("3.1[1-9]*/bin/python"), *map(Path, ("/usr/bin/python3.12", "/usr/bin/python3.13"))]
    return [path for path in names if path.exists()]


def test_the_hash_is_the_same_in_each_release_of_python(hashes):
    text = '''
        import functools
        from dataclasses import dataclass
        from enum import Enum
        from typing import NamedTuple

        class Kind(Enum):
            A = "a"
            B = 2

        @dataclass(frozen=True)
        class Limits:
            low: float = 0.5
            high: "float | None" = None

        class Pair(NamedTuple):
            a: int = 1
            b: int = 2

        LIMITS, PAIR, TINY = Limits(high=1e300), Pair(b=-3), 5e-324

        @functools.lru_cache(None)
        def helper(x: int, /, *rest: int, by=(1, None, ..., b"\\x00", 1j), **more) -> "float":
            match x:
                case {"a": [first, *_], **others} if first:
                    return f"{x!r:>{10}}" f"{LIMITS.low=}" "tail" + f"{'nested'}{{}}"
                case Kind.A | Kind.B as found:
                    return found
                case Pair(a=1):
                    return PAIR, TINY
            try:
                return [y := i for i in range(x) if i % 2 for j in (lambda k, *, m=2: k)(range(i))]
            except* ValueError as error:
                raise TypeError from error
            finally:
                del rest

        def ratio(x, y):
            """Docstring."""
            async def inner():
                return [z async for z in y]
            with open(x) as a, open(y) as b:
                global TINY
                return {**helper(x), "k": not -x ** 2 @ y[1:2, ...]} if x else (*a, *b)
    '''
    found = {path: hashes(text, python=path)[0] for path in [Path(sys.executable), *pythons()]}
    if len(found) == 1:
        pytest.skip("there is no other Python here")
    assert all(isinstance(one, str) for one in found.values()), found
    assert len(set(found.values())) == 1, found


REFUSED = {
    "lambda": ("ratio = feature(lambda x, y: x)", "<lambda> is not a function of a module"),
    "method": ("class Group:\n    @feature\n    def ratio(self, x):\n        return x", "Group.ratio is not a function of a module"),
    "nested": ("def outer():\n    @feature\n    def ratio(x):\n        return x\n    return ratio\nratio = outer()", "outer.<locals>.ratio is not a function"),
    "builtin": ("ratio = feature(len)", "len is not a function of a module"),
    "partial": ("ratio = feature(functools.partial(pow, 2))", "is not a function of a module, so another process could not import it. Define it with def"),
    "async": ("@feature\nasync def ratio(x):\n    return x", "ratio is asynchronous or yields"),
    "generator": ("@feature\ndef ratio(x):\n    yield x", "ratio is asynchronous or yields"),
    "args": ("@feature\ndef ratio(*x):\n    return x", "ratio takes *x. Name each feature"),
    "options": ("@feature\ndef ratio(**x):\n    return x", "ratio takes **x. Name each feature"),
    "keyword": ("@feature\ndef ratio(x, *, y):\n    return x", "ratio takes y by name only. Leave out the * before it"),
    "default": ("@feature\ndef ratio(x=1):\n    return x", "ratio has a default for x, which would never be used"),
    "no inputs": ("@feature\ndef ratio():\n    return 1", "ratio has no parameters"),
    "mode": ("ratio = request_feature(outputs={'r': 'int64'}, mode='rows')(abs_)", "mode='rows' is neither"),
    "no outputs": ("ratio = request_feature(outputs={})(abs_)", 'abs_ has no outputs. Write outputs={"abs_": "float64"}'),
}  # fmt: skip
LATER = {
    "exec": ("exec('@feature\\ndef ratio(x):\\n    return x')", "The source of features.ratio is not to be found"),
    "generator of numbers": ("R = np.random.default_rng()\n@feature\ndef ratio(x):\n    return R.random()", "features.R is a Generator, whose value cannot be compared"),
    "object": ("R = object()\n@feature\ndef ratio(x):\n    return R", "features.R is a object, whose value"),
    "bound method": ("R = {}.get\n@feature\ndef ratio(x):\n    return R(x)", "features.R is a builtin_function_or_method, whose value"),
    "vectorized": ("R = np.vectorize(abs_)\n@feature\ndef ratio(x):\n    return R(x)", "features.R is a vectorize, whose value"),
    "objects in an array": ("R = np.array([{}])\n@feature\ndef ratio(x):\n    return R", "features.R is a ndarray, whose value"),
    "slots": ("class S:\n    __slots__ = 'a'\nR = S()\n@feature\ndef ratio(x):\n    return R", "features.R is a S, whose value"),
}  # fmt: skip
TRY = """
import json, sys
from seeknal.errors import DefinitionError
sys.path.insert(0, sys.argv[1])
found = []
for name in sys.argv[2:]:
    try:
        found.append(__import__(name).ratio.to_json()["code"])
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
print(json.dumps(found))
"""
DECLARED = """\
import functools
import numpy as np
from seeknal import request_feature
feature = request_feature(outputs={"r": "float64"})
def abs_(x):
    return abs(x)
"""


def test_what_is_no_plain_function_of_a_module_is_refused_with_what_to_write_instead(tmp_path):
    cases = [*REFUSED.values(), *LATER.values()]
    for place, (code, _) in enumerate(cases):
        (tmp_path / f"m{place}.py").write_text(DECLARED + code)
    found = json.loads(run(TRY, tmp_path, *(f"m{place}" for place in range(len(cases)))))
    for place, (error, (code, says)) in enumerate(zip(found, cases, strict=True)):
        assert error.startswith("DefinitionError: "), (code, error)
        assert says.replace("features.", f"m{place}.") in error, (code, error)


FOLLOWED = (
    "@feature\ndef ratio(x, y):\n    return x",
    "@feature\ndef ratio(x, y, /):\n    return x",
    "@feature\ndef ratio(x):\n    return np.random.default_rng(5).random()",
    "@feature\ndef ratio(x):\n    return np.vectorize(abs_)(x)",
    "class S:\n    a = 1\nR = S()\n@feature\ndef ratio(x):\n    return R.a",
)


def test_what_the_errors_advise_is_accepted(tmp_path):
    for place, code in enumerate(FOLLOWED):
        (tmp_path / f"m{place}.py").write_text(DECLARED + code)
    found = json.loads(run(TRY, tmp_path, *(f"m{place}" for place in range(len(FOLLOWED)))))
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in found), found


EDIT = """
import sys
from pathlib import Path
from seeknal.errors import DefinitionError
sys.path.insert(0, sys.argv[1])
import features
for text in sys.argv[2:]:
    (Path(sys.argv[1]) / "features.py").write_text(text)
    vars(features.ratio).pop("code_hash", None)
    try:
        print(features.ratio.code_hash)
    except DefinitionError as error:
        print(error)
"""


def test_a_file_that_is_edited_after_its_import_is_refused_and_accepted_again_when_the_edit_is_undone(tmp_path):
    first = module(HELPER)
    (tmp_path / "features.py").write_text(first)
    edits = [
        first.replace("/ y", "* y"),
        first.replace("helper(x) / y", "helper(x) / y * 2"),
        first.replace("x + 1", "x + 1.0"),
        first.replace("def ratio(x, y)", "def ratio(y, x)"),
        first.replace("def helper", "def other"),
        first + "(",
        "",
    ]
    kept = ["# A comment.\n\n" + first, first.replace("return helper", "# More.\n    return helper"), first]
    lines = run(EDIT, tmp_path, first, *edits, *kept).splitlines()
    refused, accepted = lines[1 : 1 + len(edits)], [lines[0], *lines[1 + len(edits) :]]
    for text, line in zip(edits, refused, strict=True):
        assert "has changed since it was imported" in line or (not text and "is not to be found" in line), (text, line)
    assert len(set(accepted)) == 1, accepted


def loaded(folder: Path, known: dict) -> str:
    code = (
        "import json, sys\nsys.path.insert(0, sys.argv[1])\nfrom seeknal.define.request_feature import load\n"
        "try:\n    print(load(json.loads(sys.argv[2])))\nexcept Exception as error:\n    print(f'{type(error).__name__}: {error}')"
    )
    return run(code, folder, json.dumps(known))


@pytest.fixture
def known(tmp_path) -> dict:
    """Write a module with a request feature, and give the text form of this."""
    text = module(HELPER).replace('{"r": "float64"}', '{"r": "float64", "s": "float64"}')
    (tmp_path / "features.py").write_text(text)
    show = "import json, sys\nsys.path.insert(0, sys.argv[1])\nimport features\nprint(json.dumps(features.ratio.to_json()))"
    return json.loads(run(show, tmp_path))


def test_a_function_is_loaded_in_another_process_by_its_text_form(tmp_path, known):
    assert loaded(tmp_path, known) == "RequestFeature(features:ratio: x, y -> r, s)\n"
    assert list(known) == ["function", "mode", "inputs", "outputs", "code"]
    assert (known["function"], known["inputs"]) == ("features:ratio", ["x", "y"])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("x + 1", "x + 2", "features:ratio is not what was registered: its code changed. Check out the code"),
        ('"s": "float64"}', '"s": "float64"}, mode="array"', "its mode changed"),
        ("def ratio(x, y)", "def ratio(x, z)", "its inputs and code changed"),
        ('"s": "float64"', '"s": "float32"', "its outputs changed"),
        ('{"r": "float64", "s": "float64"}', '{"s": "float64", "r": "float64"}', "its outputs changed"),
        ("def ratio", "def other", "module features has no request feature 'ratio'"),
        ("@request_feature", "ratio = 5\n#", "module features has no request feature 'ratio'"),
        ("import functools", "import functools_", "features:ratio cannot be imported: ModuleNotFoundError"),
        (
            "import functools, re",
            "raise KeyError('x')",
            "features:ratio cannot be imported: KeyError: 'x'. Put its module where",
        ),
        ("import functools, re", "import (", "features:ratio cannot be imported: SyntaxError"),
    ],
)
def test_a_function_that_is_not_the_registered_one_is_refused(tmp_path, known, old, new, says):
    path = tmp_path / "features.py"
    text = path.read_text()
    assert old in text
    changed = text.replace(old, new)
    path.write_text(changed if new != "ratio = 5\n#" else changed.replace("def ratio", "def other"))
    found = loaded(tmp_path, known)
    assert found.startswith("DefinitionError: "), found
    assert says in found


def test_a_function_of_a_missing_module_or_of_a_notebook_is_refused_with_where_to_put_it(tmp_path, known):
    assert 'modules = ["nowhere"] in seeknal.toml' in loaded(tmp_path, {**known, "function": "nowhere:ratio"})
    assert "Move it to a module" in loaded(tmp_path, {**known, "function": "__main__:ratio"})


def test_a_function_under_another_name_than_that_of_its_module_is_refused(tmp_path):
    (tmp_path / "m0.py").write_text(DECLARED + "@feature\ndef plain(x):\n    return x\nratio = plain\ndel plain")
    (found,) = json.loads(run(TRY, tmp_path, "m0"))
    assert found.startswith("DefinitionError: m0:plain is another object than this function")


def test_nothing_is_pickled(tmp_path, known):
    never = "import pickle\npickle.loads = pickle.load = pickle.dumps = pickle.dump = pickle.Unpickler = None\n"
    (tmp_path / "sitecustomize.py").write_text(never)
    code = "import json, sys, pickle\nassert pickle.loads is None\nfrom seeknal.define.request_feature import load\nprint(load(json.loads(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(known)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{SOURCE}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "RequestFeature(features:ratio: x, y -> r, s)\n", done.stderr


@pytest.mark.parametrize("helper", ["helpers.py", "helpers/__init__.py"])
def test_what_is_used_of_modules_in_the_same_folder_counts(tmp_path, helper):
    (tmp_path / helper).parent.mkdir(exist_ok=True)
    (tmp_path / "own.py").write_text("import helpers\n\ndef f(x):\n    return helpers.twice(x) * helpers.K\n")
    code = "from seeknal.define.code import code_hash; import own; print(code_hash(own.f))"

    def digest(text):
        (tmp_path / helper).write_text(text)
        env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        return done.stdout

    first = digest("K = 1\n\ndef twice(x):\n    return 2 * x\n")
    assert digest("K = 1\n\ndef twice(x):\n    # a comment\n    return 2 * x\n") == first
    assert (
        len(
            {
                first,
                digest("K = 2\n\ndef twice(x):\n    return 2 * x\n"),
                digest("K = 1\n\ndef twice(x):\n    return 3 * x\n"),
            }
        )
        == 3
    )
