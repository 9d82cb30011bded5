"""Each proof under scripts/ still proves what it says: in small here, whole in the long run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.profiles import IS_LONG

SCRIPTS = Path(__file__).parent.parent / "scripts"
SMALL = {
    "break_the_join.py": ["--some 1"],
    "break_the_rest.py": ["--some 3"],
    "fill_disks.py": ["--deeds 12"],
    "kill_backups.py": ["--kills 6 --rows 20000"],
    "kill_loaders.py": [
        f"--kills 4 --readers 2 --entities 2000 --warm-up 1 {more}"
        for more in ("", "--moves", "--store redis", "--store redis --moves")
    ],
    "kill_movers.py": ["--moves 1 --kills 2 --rows 500"],
    "kill_pushers.py": ["--seconds 15"],
    "kill_services.py": ["--away 4 --ways 1 --replicas 2 --updates 1"],
    "kill_sources.py": ["--kills 4", "--kills 4 --store redis"],
    "kill_workers.py": ["--seconds 12 --every 4 --connections 6 --processes 2"],
    "kill_writers.py": ["--kills 6 --quick"],
    "larger_than_memory.py": ["--spine 1 --rows 1 --memory 100MB"],
    "make_home.py": ["today ."],
}
"""Their arguments where there is little time; without any, they take minutes."""

WHOLE = {
    "kill_loaders.py": ["", "--moves", "--store redis", "--store redis --moves"],
    "kill_sources.py": ["", "--store redis"],
    "larger_than_memory.py": ["--spine 2 --rows 20 --memory 500MB"],
    "make_home.py": ["today ."],
}
UNSEEDED = {"larger_than_memory.py", "make_home.py"}

pytestmark = pytest.mark.slow
RUNS = [(name, run) for name, runs in SMALL.items() for run in (WHOLE.get(name, [""]) if IS_LONG else runs)]


def test_no_script_is_left_out():
    assert {file.name for file in SCRIPTS.glob("[!_]*.py")} == set(SMALL)


@pytest.mark.parametrize(("name", "arguments"), RUNS)
def test_a_script_proves_what_it_says(name, arguments):
    seed = [] if name in UNSEEDED else ["--seed", os.environ["SEEKNAL_TEST_SEED"]]
    command = [sys.executable, str(SCRIPTS / name), *arguments.split(), *seed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
