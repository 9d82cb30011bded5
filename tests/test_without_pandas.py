"""Without pandas everything works in Arrow, and what would be a frame of pandas says what to install."""

import os
import subprocess
import sys

import pytest

from seeknal.system.extras import how_to_install

pytestmark = pytest.mark.slow

WRITE = """
import pyarrow as pa
from seeknal import DefinitionError, Entity, FeatureGroupDuckDB, FeatureLookup, HistoricalFeaturesDuckDB, Materialization

moments = pa.array([0, 10, 20], pa.timestamp("us", "UTC"))
rows = pa.table({"user_id": [1, 1, 2], "at": moments, "n": pa.array([1, 2, None], pa.timestamp("ns")), "x": [5, 6, 7]})
group = FeatureGroupDuckDB("clicks", Entity("user", ["user_id"]), Materialization(event_time_col="at"))
group.set_dataframe(rows).set_features().write()
features = HistoricalFeaturesDuckDB([FeatureLookup(group, features=["x"])])
spine = pa.table({"user_id": [1, 2], "at": pa.array([5, 30], pa.timestamp("us", "UTC"))})
seen = HistoricalFeaturesDuckDB([FeatureLookup(group)]).using_spine(spine, date_col="at")
"""
ADVICE = f'pandas is not installed. Ask for output="arrow", or install it. {how_to_install("pandas")}'


@pytest.fixture(autouse=True)
def without(home, tmp_path, monkeypatch):
    """Hide pandas from the processes that tests start."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "pandas.py").write_text("raise ModuleNotFoundError(\"No module named 'pandas'\", name='pandas')")
    monkeypatch.setenv("PYTHONPATH", str(hidden), prepend=os.pathsep)


def told(code, **variables):
    """Run code after the rows were written, and give what it prints."""
    done = python(WRITE + code, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def command(line):
    """Run a command."""
    return python(f"import sys; sys.argv[1:] = {line.split()}; from seeknal.cli import main; main()")


def python(code, **variables):
    variables = os.environ | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables, check=False)


def test_arrow_goes_in_and_comes_out_and_online_answers():
    assert told("print(features.using_spine(spine, date_col='at').to_dataframe()['x'].to_pylist())") == "[5, 7]"
    assert told("print(features.to_dataframe(output='arrow')['x'].to_pylist())") == "[5, 6, 7]"
    serve = "table = features.serve('online'); key = [{'user_id': 1}]; "
    assert told(f"{serve}print(table.get_features(key, output='dicts'))") == "[{'user_id': 1, 'x': 6}]"
    assert told(f"{serve}print(table.get_features(key, output='arrow')['x'].to_pylist())") == "[6]"


@pytest.mark.parametrize(
    "asked",
    [
        "features.to_dataframe()",
        "features.using_spine(spine, date_col='at').to_dataframe(output='pandas')",
        "features.serve('online').get_features([{'user_id': 1}])",
        "features.using_spine(spine, date_col='at').save('set').reproduce()",
    ],
)
def test_a_result_in_pandas_says_what_to_install(asked):
    assert told(f"try: {asked}\nexcept DefinitionError as error: print(error)").endswith(ADVICE)


def test_explain_says_what_to_install():
    said = told("try: seen.explain(spine.to_pylist()[0])\nexcept DefinitionError as error: print(error)")
    assert said.endswith(f"pandas is not installed. {how_to_install('pandas')}")


def test_moments_of_a_zone_need_no_zones_of_the_system():
    assert "UTC" in told("print(spine['at'][0].as_py().tzinfo)", PYTHONTZPATH="")


def test_nanoseconds_are_shown_as_text():
    told("")
    for line in ("debug clicks -f json", "explain clicks user_id=1 --at 2024-01-01 -f json"):
        assert '"1970-01-01 00:00:00.000000002"' in command(line).stdout


def test_the_demo_says_what_to_install():
    done = command("demo")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: The demo needs pandas. {how_to_install('demo')}\n"
