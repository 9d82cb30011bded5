"""The code of the pages runs as printed, and prints what they say."""

import re
import shlex
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from commands import seeknal
from seeknal import FeatureGroupDuckDB, SeeknalWarning

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TESTS = Path(__file__).parent
BLOCK = re.compile(r"^```(python|bash|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL_ONLY = ("make ", "pip ", "git ", "cd ", "#")


def second_version():
    """Give the guide's group the second version that its commands speak of."""
    group = FeatureGroupDuckDB("user_features", project="my_project").get_or_create()
    frame = pd.DataFrame({"user_id": ["user_001"], "timestamp": pd.to_datetime(["2024-01-16"]), "visits": [3]})
    group.set_dataframe(frame).set_features().write(feature_start_time="2024-01-16")


BEFORE_COMMANDS = {"feature-store-guide.md": second_version}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_and_prints_what_it_says(page):
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    namespace: dict[str, object] = {}
    printed, prepared = "", False
    for language, text in blocks:
        if language == "python":
            printed = run_python(text, namespace)
        elif language == "bash":
            if not prepared:
                prepare(page)
                prepared = True
            printed = run_commands(text)
        else:
            assert printed.strip() == text.strip()


def prepare(page: Path):
    """Do what the page's reader has done before its commands."""
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


def run_commands(lines: str) -> str:
    """Run a block's commands, all of which must succeed, and give what they print."""
    printed = ""
    for line in lines.splitlines():
        if line.strip() and not line.startswith(SHELL_ONLY):
            program, *arguments = shlex.split(line, comments=True)
            assert program == "seeknal", f"who runs {line!r}?"
            done = seeknal(*arguments)
            assert done.returncode == 0, done.stderr
            printed += done.stdout
    return "\n".join(line.rstrip() for line in printed.splitlines())


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
    assert [int(number) for number, _ in rows] == list(range(1, 24))
    for number, names in rows:
        named = set(re.findall(r"`(test_\w+)`", names))
        assert named, f"rule {number}"
        assert named <= defined, named - defined
