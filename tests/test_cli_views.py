"""Feature views on the command line: looked up with request values, and verified, with one way to name tables and views."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from commands import seeknal, seeknal_process
from seeknal import Entity, FeatureGroupDuckDB, FeatureLookup, FeatureView, HistoricalFeaturesDuckDB, Materialization
from seeknal.home import session
from view_functions import costs, log_price

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
NOW = datetime.now(UTC)
HERE = Path(__file__).parent
STATUS = {"prices_status": "found", "prices_event_time": NOW.isoformat()}


def prices(rows=((1, 2.5), (2, None)), at=NOW, mode="merge"):
    """Write prices of products."""
    group = FeatureGroupDuckDB("prices", Entity("product", ["product_id"]), Materialization("at"), project="shop")
    columns = {
        "product_id": pa.array([one[0] for one in rows], pa.int64()),
        "at": pa.array([at] * len(rows), pa.timestamp("us", "UTC")),
        "price": pa.array([one[1] for one in rows], pa.float64()),
    }
    group.set_dataframe(pa.table(columns)).write(mode=mode)
    return group


def offer(**options):
    """Return a view of prices with a request value and two functions."""
    given = {"request": {"cart_value": "float64"}, "functions": [costs, log_price]}
    return FeatureView("offer", [FeatureLookup("shop/prices")], **{**given, **options})


@pytest.fixture
def versions():
    """Two served versions of a view, the second with defaults."""
    prices()
    return offer().serve(log=1), offer(defaults={"price": 1.0, "cart_value": 9.0}).serve(log=1)


def run(*arguments, code=0):
    """Run a command that prints JSON, and read it."""
    done = seeknal(*arguments, "--format", "json")
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def failure(*arguments):
    """Run a command that must fail, and return its error."""
    done = seeknal(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.removeprefix("Error: ").strip()


def test_a_view_is_looked_up_with_its_request_values(versions):
    first = {"product_id": 1, "cart_value": 31.5, "price": 2.5, "costs_more": True, "gap": 29.0}
    found = run("lookup", "offer@1", "product_id=1", "cart_value=31.5")
    assert found == first | {"log_price": pytest.approx(1.2527629)} | STATUS
    newest = run("lookup", "shop/offer", "product_id=2")
    assert (newest["price"], newest["gap"], newest["defaulted"]) == (1.0, 8.0, ["cart_value", "price"])
    assert run("lookup", "offer", "product_id=7", "cart_value=1", "--project", "shop")["prices_status"] == "not_found"


def test_a_row_that_does_not_fit_a_view_is_refused_with_what_it_needs(versions):
    needs = "A row of view 'offer@1' has the join keys product_id: int64, and the request values cart_value: double."
    assert failure("lookup", "offer@1", "product_id=1") == f"The rows lack 'cart_value'. {needs}"
    assert failure("lookup", "offer@1", "cart_value=1") == f"A row lacks 'product_id'. {needs}"
    wrong = failure("lookup", "offer@1", "product_id=1", "cart=1")
    assert wrong == f"'cart' is neither a join key nor a request value. There are: cart_value, product_id. {needs}"
    assert "cart_value is double, which 'much' is not." in failure("lookup", "offer", "product_id=1", "cart_value=much")
    assert "has 'cart_value' twice" in failure("lookup", "offer", "product_id=1", "cart_value=1", "cart_value=2")


@pytest.mark.parametrize("command", [["lookup", "{}", "product_id=1"], ["verify", "{}"], ["verify", "{}", "--log"]])
def test_a_name_that_means_nothing_served_says_what_to_do(versions, command):
    def said(name):
        return failure(*(one.format(name) for one in command))

    assert "Feature view 'offer' has no version 7. There are: 1, 2." in said("offer@7")
    assert "'offer@x' names no version. Write offer@3" in said("offer@x")
    assert "named 'ofer' in" in said("ofer")
    assert "Did you mean 'offer" in said("ofer")
    offer(functions=[costs]).register()
    if "--log" in command:
        assert "No answer of shop/offer@3 was logged yet. Serve it with log=0.01" in said("offer@3")
        return
    unserved = "No online table named 'offer@3': feature view shop/offer@3 is not served."
    assert said("offer@3") == f"{unserved} Serve it: FeatureView.load('offer@3').serve()."
    versions[0].retire()
    assert "feature view shop/offer@1 was retired, so it is not served. Register its definition again" in said(
        "offer@1"
    )


def test_verify_compares_what_a_view_computes_and_says_what_it_cannot(versions):
    found = run("verify", "offer@2")
    assert (found["online_table"], found["different"]) == ("shop/offer@2", 0)
    assert found["values"] == 2 + 2 * 2  # price of each product; then price and log_price of each, with defaults
    assert [one.partition(":")[0] for one in found["not_compared"]] == ["cart_value", "costs_more", "gap"]
    prices([(1, 9.0)], NOW + timedelta(microseconds=1))
    assert run("verify", "offer", code=1)["first_differences"][0]["cause"] == "not loaded yet"


def test_a_name_without_version_means_the_same_for_lookup_verify_and_its_log(versions):
    versions[1].retire()
    offer(functions=[costs]).register()  # a newer version, which is not served
    assert "defaulted" not in run("lookup", "offer", "product_id=1", "cart_value=1")
    session.store().tables.flush_logs()
    assert run("verify", "offer")["online_table"] == "shop/offer@1"
    assert run("verify", "offer", "--log")["log_of"] == "shop/offer@1"


def test_verify_recomputes_logged_answers_and_exits_with_1_if_one_differs(versions):
    for number in (1, 2, 3):
        run("lookup", "offer@1", f"product_id={number}", "cart_value=3")
    found = run("verify", "offer@1", "--log")
    assert (found["answers"], found["different"], found["values"]) == (3, 0, 3 * 4)
    prices([(1, 2.75)], NOW)
    late = run("verify", "offer@1", "--log", code=1)
    assert {one["feature"]: one["cause"] for one in late["first_differences"]} == dict.fromkeys(
        ["price", "gap", "log_price"], "late data"
    )
    assert all(one["answered_at"] >= f"{NOW:%Y-%m-%d %H:%M:%S}" for one in late["first_differences"])
    assert run("verify", "offer@1", "--log", "--newest", "2")["answers"] == 2  # not that of product 1
    versions[0].retire()
    assert run("verify", "offer@1", "--log", "--newest", "1")["answers"] == 1


@pytest.mark.parametrize("options", [["--log", "--sample", "5"], ["--newest", "5"], ["--log", "--newest", "0"]])
def test_options_that_do_not_belong_together_are_wrong_usage(versions, options):
    done = seeknal("verify", "offer", *options)
    assert (done.returncode, done.stdout) == (2, "")


def test_verify_of_a_table_or_its_log_that_serves_no_functions_needs_no_module(versions, monkeypatch):
    HistoricalFeaturesDuckDB([FeatureLookup("shop/prices")]).serve("plain")
    monkeypatch.setenv("SEEKNAL_MODULES", "no_such_module")
    assert run("verify", "plain")["not_compared"] == []
    assert run("lookup", "plain", "product_id=1")["price"] == 2.5
    assert "No answer of shop/plain@1 was logged yet." in failure("verify", "plain", "--log")
    for command in (["verify", "offer"], ["verify", "offer", "--log"], ["lookup", "offer", "product_id=1"]):
        assert "Module 'no_such_module' cannot be imported" in failure(*command)
    assert "--module sets modules to ['a b']" in failure("verify", "plain", "--module", "a b")


def test_modules_come_from_the_settings_or_from_the_command(versions, tmp_path, monkeypatch):
    """In processes of their own, which find no module of the tests."""
    session.close()
    folder = tmp_path / "shop"
    (folder / "below").mkdir(parents=True)
    (folder / "view_functions.py").write_text((HERE / "view_functions.py").read_text())
    monkeypatch.chdir(folder / "below")
    env = {"PYTHONPATH": str(HERE.parent / "src")}
    lookup = ("lookup", "offer@1", "product_id=1", "cart_value=31.5", "--format", "json")
    missing = seeknal_process(*lookup, env=env)
    assert missing.returncode == 1
    assert 'modules = ["view_functions"] in seeknal.toml, or --module view_functions' in missing.stderr
    (folder / "seeknal.toml").write_text('modules = ["view_functions"]\n')
    assert json.loads(seeknal_process(*lookup, env=env).stdout)["gap"] == 29.0
    assert seeknal_process("verify", "offer@1", "--log", env=env).returncode == 0
    (folder / "seeknal.toml").write_text("")
    monkeypatch.chdir(folder)
    assert json.loads(seeknal_process(*lookup, "--module", "view_functions", env=env).stdout)["gap"] == 29.0
    changed = (folder / "view_functions.py").read_text().replace("np.log1p(price)", "np.log1p(price) + 1")
    (folder / "view_functions.py").write_text(changed)
    done = seeknal_process(*lookup, "--module", "view_functions", env=env)
    assert (done.returncode, "its code changed" in done.stderr) == (1, True), done.stderr
    differing = seeknal_process("verify", "offer@1", "--log", "--module", "view_functions", env=env)
    assert (differing.returncode, "changed code" in differing.stdout) == (1, True), differing.stderr
