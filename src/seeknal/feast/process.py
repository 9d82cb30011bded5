"""Runs Feast in a Python of its own, since its dependencies exclude versions that Seeknal allows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from seeknal.errors import DefinitionError, StoreError
from seeknal.feast.described import Answers, Described
from seeknal.system.folders import named

_PROGRAM = Path(__file__).with_name("beside.py")


class Question(msgspec.Struct, frozen=True):
    """A question to Feast.

    Args:
        kind: "past", for the features at the moments of a spine, or "online", for those served now.
        service: The name of the feature service; None if `features` are asked for.
        features: Features as "view:feature".
        views: The feature views that are read.
        full_names: Whether features are named "view__feature".
        rows: The spine, with the moments in the column event_timestamp; or the keys and request values.
    """

    kind: str
    service: str | None
    features: tuple[str, ...]
    views: tuple[str, ...]
    full_names: bool
    rows: pa.Table


class Feast:
    """A Feast repository. Nothing in it is changed: Feast works on copies of its registry and its online store.

    Args:
        repo: The folder with feature_store.yaml, or the one above it, as `feast init` makes it.
        scratch: A folder for temporary files.
        python: The Python that has Feast. None: the one that runs Seeknal.

    Raises:
        DefinitionError: There is no repository or no such Python, or no folder can have that path.
    """

    def __init__(self, repo: Path, scratch: Path, python: str | None = None) -> None:
        folders = [named(repo), named(repo) / "feature_repo"]
        found = next((one for one in folders if (one / "feature_store.yaml").is_file()), None)
        if found is None:
            raise DefinitionError(
                f"{repo} has no feature_store.yaml, and no folder feature_repo with one.", repo=str(repo)
            )
        self.repo = found.resolve()
        self._scratch = scratch
        program = shutil.which(python or sys.executable)
        if program is None:
            raise DefinitionError(f"{python} is no program. Pass the path of the Python that has Feast.", python=python)
        self._python = os.path.abspath(program)  # noqa: PTH100 - it runs in another folder, and a link to it is not followed

    def describe(self) -> Described:
        """Return what the registry has.

        Raises:
            DefinitionError: This Python does not have Feast, or nothing was applied to the registry.
            StoreError: Feast failed.
        """
        described = msgspec.json.decode(self._run({"command": "describe"}), type=Described)
        if described.is_empty:
            raise DefinitionError(f"The registry of {self.repo} is empty. Run feast apply in {self.repo}.")
        return described

    def compute(self, questions: Sequence[Question], since: float, until: float) -> list[pa.Table | str]:
        """Return the answer to each question, or the error with which Feast failed.

        The online store is a fresh one, into which Feast materializes the rows of an interval.

        Args:
            questions: The questions.
            since: The first event time to materialize, in seconds since 1970.
            until: The last one.

        Raises:
            StoreError: Feast failed as a whole.
        """
        asked = []
        for number, one in enumerate(questions):
            rows = self._scratch / f"rows{number}.parquet"
            pq.write_table(one.rows, rows)
            asked.append({**msgspec.structs.asdict(one), "rows": str(rows)})
        text = self._run({"command": "compute", "questions": asked, "since": since, "until": until})
        answers = msgspec.json.decode(text, type=Answers).answers
        return [pq.read_table(one.file) if one.file else one.error or "" for one in answers]

    def _run(self, request: dict[str, Any]) -> bytes:
        """Run the program, and return its answer."""
        answer = self._scratch / "answer.json"
        told = {**request, "repo": str(self.repo), "scratch": str(self._scratch), "answer": str(answer)}
        done = subprocess.run(  # noqa: S603 - the user's Python, and our own program
            [self._python, str(_PROGRAM)],
            input=json.dumps(told),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.repo,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "FEAST_USAGE": "False"},
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            if "No module named 'feast'" in last:
                raise DefinitionError(
                    f"{self._python} does not have Feast. Pass --python with the path of the Python that does, such as that of a venv "
                    "made for it: python -m venv feastenv && feastenv/bin/pip install feast, then --python feastenv/bin/python.",
                    python=self._python,
                )
            raise StoreError(f"Feast could not read {self.repo}: {last}", stderr=done.stderr)
        return answer.read_bytes()
