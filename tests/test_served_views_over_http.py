"""Feature views over HTTP: the answers of the library, for every encoding, with rights, versions and typed descriptions."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx2
import msgspec
import pandas as pd
import pyarrow as pa
import pytest
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from seeknal import (
    Client,
    DataError,
    DefinitionError,
    Entity,
    FeatureGroupDuckDB,
    FeatureLookup,
    FeatureView,
    Materialization,
)
from seeknal.home import session
from servers import Server, wait_for
from view_functions import costs, log_price, waited

pytestmark = pytest.mark.filterwarnings("ignore::seeknal.SeeknalWarning")
NOW = datetime.now(UTC)
ROW = {"product_id": 1, "cart_value": 31.5}
HERE = Path(__file__).parent
ENV = {"PYTHONPATH": f"{HERE.parent / 'src'}:{HERE}"}


def prices(**more):
    """Write the prices of two products, and return their lookup."""
    group = FeatureGroupDuckDB("prices", Entity("product", ["product_id"]), Materialization("at"), project="shop")
    group.set_dataframe(
        pa.table(
            {
                "product_id": pa.array([1, 2], pa.int64()),
                "at": pa.array([NOW, NOW], pa.timestamp("us", "UTC")),
                "price": pa.array([2.5, None], pa.float64()),
                "since": pa.array([NOW - timedelta(days=3), None], pa.timestamp("us", "UTC")),
            }
        )
    ).write()
    return FeatureLookup(group, **more)


@pytest.fixture
def view():
    """Two served versions of a view, the second with a default."""
    lookup = prices()
    options = {"request": {"cart_value": "float64"}, "functions": [costs, log_price]}
    FeatureView("offer", [lookup], **options).serve()
    return FeatureView("offer", [lookup], defaults={"price": 1.0}, **options).serve()


@pytest.fixture
def server(home, view):
    session.close()
    running = Server(home, "--module", "view_functions", env=ENV).start()
    yield running
    running.stop()


def test_a_view_over_http_answers_as_the_library_in_every_encoding(server, view):
    rows = [ROW, {"product_id": 2, "cart_value": 1}, {"product_id": 3, "cart_value": None}]
    own = view.get_features(rows, "arrow", with_status=True)
    with Client(server.url) as client:
        for given in (rows, pd.DataFrame(rows), pa.Table.from_pylist(rows)):
            found = client.get_view_features("offer", given, "arrow", with_status=True)
            assert found.equals(own.cast(found.schema))
        first = client.get_view_features("shop/offer@1", rows, "dicts")
        assert [row["price"] for row in first] == [2.5, None, None]
        assert client.get_features("offer", rows, "arrow", with_status=True).equals(own.cast(found.schema))
        assert client.get_view_features("offer", [ROW], "dicts", ["gap"]) == [{"product_id": 1, "gap": 29.0}]
    with httpx2.Client(base_url=server.url) as http:
        for body in ({"keys": rows}, {"keys": rows, "features": view.features}):  # the first can take the short path
            plain = http.post("/v1/views/shop/offer", json=body).json()["rows"]
            packed = http.post(
                "/v1/views/offer@2",
                content=msgspec.msgpack.encode(body),
                headers={"content-type": "application/msgpack", "accept": "application/msgpack"},
            )
            assert plain == msgspec.msgpack.decode(packed.content)["rows"]
            assert [row["gap"] for row in plain] == own["gap"].to_pylist()
        quick = http.post("/v1/views/shop/offer", json={"keys": [ROW]}).json()["rows"]
        assert quick == plain[:1]
        one = http.get("/v1/online/shop/offer", params=ROW | {"features": "gap"}).json()["rows"]
        assert one == [{"product_id": 1, "gap": 29.0}]


@pytest.mark.parametrize("features", [["price"], ["price", "since"]], ids=["in the loop at first", "in threads"])
def test_a_function_that_turned_out_to_be_slow_holds_up_no_other_request(home, view, features):
    FeatureView("slow", [prices(features=features)], request={"cart_value": "float64"}, functions=[waited]).serve()
    session.close()
    server = Server(home, "--module", "view_functions", "--timeout", "60", env=ENV).start()

    def ask(name, cart_value):
        body = {"keys": [{"product_id": 1, "cart_value": cart_value}]}
        return httpx2.post(f"{server.url}/v1/views/shop/{name}", json=body, timeout=15).json()["rows"][0]

    try:
        assert [ask("slow", 101.0)["waited"] for _ in range(3)] == [101.0] * 3
        with ThreadPoolExecutor(1) as beside:
            waiting = beside.submit(ask, "slow", -1.0)
            wait_for(Path("waits").exists)
            assert ask("offer", 3.0)["gap"] == 0.5
            assert not waiting.done()
            Path("go").touch()
            assert waiting.result()["waited"] == -1.0
    finally:
        Path("go").touch()
        server.stop()


def test_workers_log_what_they_answer_and_lose_nothing_when_they_end(home, view):
    view.serve(log=1)
    session.close()
    server = Server(home, "--module", "view_functions", "--workers", "2", env=ENV).start()
    with httpx2.Client(base_url=server.url) as http:
        for _ in range(5):
            http.post("/v1/views/shop/offer", json={"keys": [ROW]})
        http.post("/v1/views/shop/offer", json={"keys": [ROW] * 20, "with_status": True})
        http.get("/v1/online/shop/offer", params=ROW)
    server.stop()
    assert session.store().groups.version("offer_v2_log", project="shop").rows == 26
    verified = view.verify(log=True)
    assert (verified.equal, verified.entities) == (True, 26)


def _detail(server, name):
    return httpx2.post(f"{server.url}/v1/views/{name}", json={"keys": [ROW]}).json().get("detail", "")


def test_wrong_rows_and_names_over_http_get_the_messages_of_the_library(server):
    with Client(server.url) as client:
        with pytest.raises(DataError, match=r"lack 'cart_value'.*cart_value: double"):
            client.get_view_features("offer", [{"product_id": 1}])
        with pytest.raises(DataError, match="'cart_vaule' is neither a join key nor a request value"):
            client.get_view_features("offer", [ROW | {"cart_vaule": 1}])
        with pytest.raises(DefinitionError, match="'offer' has no version 9"):
            client.get_view_features("offer@9", [ROW])
        with pytest.raises(DefinitionError, match=r"No feature view named 'ofer'.*Did you mean 'offer'"):
            client.get_view_features("ofer", [ROW])
        with pytest.raises(DefinitionError, match="no version 9"):
            client.view("offer@9")
        FeatureView.load("offer@1").retire()
        wait_for(lambda: _detail(server, "offer@1").startswith("shop/offer@1 was retired."))
        FeatureView("later", prices()).register()
        assert _detail(server, "later").startswith("shop/later@1 is not served. Serve it: ")
    answer = httpx2.get(server.url + "/v1/online/offer", params={"product_id": 1})
    assert (answer.status_code, "lack 'cart_value'" in answer.json()["detail"]) == (400, True)


def test_request_values_of_every_kind_arrive_exactly(home):
    request = {
        "day": pa.date32(),
        "due": pa.decimal128(10, 2),
        "at": pa.timestamp("us", "UTC"),
        "big": pa.int64(),
        "tags": pa.list_(pa.string()),
    }
    view = FeatureView("kinds", [prices()], request=request).serve()
    given = {
        "product_id": 1,
        "day": NOW.date(),
        "due": Decimal("12.50"),
        "at": NOW,
        "big": 2**60 + 1,
        "tags": ["a", None],
    }
    own = view.get_features([given], "dicts")
    assert {name: own[0][name] for name in given} == given
    session.close()
    server = Server(home, env=ENV).start()
    try:
        with Client(server.url) as client:
            assert client.get_view_features("kinds", [given], "dicts") == own
            assert client.get_view_features("kinds", pa.Table.from_pylist([given]), "dicts") == own
        text = given | {"day": str(NOW.date()), "due": "12.50", "at": NOW.isoformat(), "big": str(2**60 + 1)}
        with httpx2.Client(base_url=server.url) as http:
            (row,) = http.post("/v1/views/kinds", json={"keys": [text]}).json()["rows"]
            assert {name: row[name] for name in ("day", "due", "big", "tags")} == {
                name: text[name] for name in ("day", "due", "big", "tags")
            }
            assert datetime.fromisoformat(row["at"]) == NOW
            assert http.get("/v1").status_code == 404
            assert http.post("/v1/views/kinds", json={"keys": [text | {"due": 12.5}]}).status_code == 400
    finally:
        server.stop()


def test_a_view_with_a_default_of_any_kind_is_described(home):
    kinds = {"words": pa.list_(pa.string()), "pair": pa.struct([("a", pa.int64())]), "until": pa.timestamp("us", "UTC")}
    given = {"words": ["x"], "pair": {"a": 1}, "until": NOW}
    FeatureView("kinds", prices(), request=kinds, defaults=given).serve()
    session.close()
    with Server(home) as server:
        told = httpx2.get(server.url + "/v1/views/kinds").json()["request"]
    assert [one["default"] for one in told[:2]] == [["x"], {"a": 1}]
    assert told[2]["default"].startswith(f"{NOW:%Y-%m-%dT%H:%M:%S}")


def test_a_view_is_described_with_its_versions(server, view):
    with Client(server.url) as client:
        told = client.view("offer")
    assert (told["project"], told["name"], told["version"], told["keys"]) == ("shop", "offer", 2, ["product_id"])
    assert told["request"] == [{"name": "cart_value", "type": "double"}]
    assert {"name": "price", "type": "double", "default": 1.0} in told["features"]
    assert [(one["number"], one["is_served"]) for one in told["versions"]] == [(1, True), (2, True)]
    assert told["versions"][1]["changes"] == ["default of price added (1.0)"]


def test_a_version_that_is_retired_is_no_longer_answered(server, view):
    unknown = {"keys": [{"product_id": 9, "cart_value": 1}]}
    with httpx2.Client(base_url=server.url) as http:
        assert http.post("/v1/views/offer", json=unknown).json()["rows"][0]["price"] == 1.0
        view.retire()
        wait_for(lambda: http.post("/v1/views/shop/offer@2", json=unknown).status_code == 404)
        assert http.post("/v1/views/offer", json=unknown).json()["rows"][0]["price"] is None
        told = http.get("/v1/views/offer").json()
        assert told["version"] == 1
        assert told["versions"][1]["retired_at"] is not None


def test_rights_of_views_are_those_of_tables(home, view):
    store = session.store()
    token = store.tokens.create("reader", "shop", ["read"])
    other = store.tokens.create("other", "elsewhere", ["read"], new_project=True)
    session.close()
    server = Server(home, "--module", "view_functions", env=ENV, probe="/healthz").start()
    try:
        with httpx2.Client(base_url=server.url) as http:
            ask = {"url": "/v1/views/shop/offer", "json": {"keys": [ROW]}}
            assert http.post(**ask).status_code == 401
            assert http.post(**ask, headers={"authorization": f"Bearer {other}"}).status_code == 403
            assert http.post(**ask, headers={"authorization": f"Bearer {token}"}).status_code == 200
            assert http.get("/v1/views/shop/offer", headers={"authorization": f"Bearer {other}"}).status_code == 403
            for headers, told in (
                ({}, False),
                ({"authorization": f"Bearer {other}"}, False),
                ({"authorization": f"Bearer {token}"}, True),
            ):
                paths = http.get("/openapi.json", headers=headers).json()["paths"]
                assert ("/v1/views/shop/offer@2" in paths) is told
            assert http.get("/openapi.json", headers={"authorization": "Bearer x"}).status_code == 401
    finally:
        server.stop()


def test_the_description_has_the_types_of_each_view_and_every_answer_fits_them(server, view):
    with httpx2.Client(base_url=server.url) as http:
        told = http.get("/openapi.json").json()
        OPENAPI_31_VALIDATOR.validate(told)
        for path in ("/v1/views/shop/offer", "/v1/views/shop/offer@1", "/v1/views/shop/offer@2"):
            operation = told["paths"][path]["post"]
            components = {"components": told["components"]}
            ask = Draft202012Validator(operation["requestBody"]["content"]["application/json"]["schema"] | components)
            fits = Draft202012Validator(
                operation["responses"]["200"]["content"]["application/json"]["schema"] | components
            )
            for row in (ROW, {"product_id": 2, "cart_value": None}, {"product_id": 2**60, "cart_value": 1e300}):
                for more in ({}, {"with_status": True}, {"features": ["gap"]}):
                    body = {"keys": [row], **more}
                    assert ask.is_valid(body)
                    answer = http.post(path, json=body).json()
                    fits.validate(answer)
            assert not ask.is_valid({"keys": [{"product_id": 1}]})
            assert not ask.is_valid({"keys": [ROW | {"more": 1}]})
            assert not fits.is_valid({"rows": [{"product_id": 1, "price": "much"}]})
    ids = [one["operationId"] for methods in told["paths"].values() for one in methods.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
def test_a_generated_client_calls_a_view_with_named_fields(server, tmp_path):
    described = tmp_path / "openapi.json"
    described.write_text(httpx2.get(server.url + "/openapi.json").text)
    out = tmp_path / "generated"
    command = [
        sys.executable,
        "-m",
        "openapi_python_client",
        "generate",
        "--path",
        str(described),
        "--output-path",
        str(out),
        "--meta",
        "none",
    ]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from generated import Client
from generated.api.default import get_features_of_shop_offer
from generated.models import ShopOffer2Request, ShopOffer2Row
body = ShopOffer2Request(keys=[ShopOffer2Row(product_id=1, cart_value=31.5)])
answer = get_features_of_shop_offer.sync(client=Client(base_url={server.url!r}), body=body)
row = answer.rows[0]
print(row.product_id, row.price, row.gap, row.costs_more, row.since.year)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "2.5", "29.0", "True", str((NOW - timedelta(days=3)).year)], done.stderr


def test_a_server_refuses_to_start_if_the_code_of_a_served_view_cannot_be_imported_or_has_changed(home, view, tmp_path):
    session.close()
    cli = [sys.executable, "-c", "from seeknal.cli import main; main()", "serve", "--port", "0"]
    env = {"SEEKNAL_HOME": str(home), "PATH": "", "PYTHONPATH": str(HERE.parent / "src")}
    for modules, message in (
        ([], "shop/offer@1 is served and cannot be computed here: view_functions:costs cannot be imported"),
        (["--module", "view_functions"], "Module 'view_functions' cannot be imported"),
    ):
        done = subprocess.run([*cli, *modules], env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    changed = (HERE / "view_functions.py").read_text().replace("np.log1p(price)", "np.log1p(price) + 1")
    (tmp_path / "view_functions.py").write_text(changed)
    (tmp_path / "seeknal.toml").write_text('modules = ["view_functions"]\n')
    done = subprocess.run(cli, env=env, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "view_functions:log_price is not what was registered: its code changed" in done.stderr


def test_changed_code_is_rolled_out_while_servers_of_the_old_code_go_on(home, tmp_path):
    prices()
    code = """
from seeknal import *

@request_feature(outputs={"priced": "float64"}, mode="array")
def priced(price):
    return price * TIMES

if __name__ == "__main__":
    import rolled
    FeatureView("rolled", FeatureLookup("shop/prices"), functions=[rolled.priced]).serve()
"""
    env = {"PYTHONPATH": f"{HERE.parent / 'src'}:{tmp_path}"}

    def deploy(times):
        (tmp_path / "rolled.py").write_text(code.replace("TIMES", times))
        command = [sys.executable, str(tmp_path / "rolled.py")]
        subprocess.run(command, env={**env, "SEEKNAL_HOME": str(home)}, check=True, capture_output=True)

    def answers(server):
        asked = (httpx2.post(f"{server.url}/v1/views/{name}", json={"keys": [{"product_id": 1}]}) for name in names)
        return [one.json()["rows"][0]["priced"] if one.status_code == 200 else one.status_code for one in asked]

    names = ("rolled", "rolled@1", "rolled@2")
    session.close()
    deploy("2")
    with Server(home, "--module", "rolled", env=env) as old:
        assert answers(old) == [5.0, 5.0, 404]
        deploy("3")
        wait_for(lambda: answers(old)[2] == 503)
        assert answers(old) == [5.0, 5.0, 503]
        with Server(home, "--module", "rolled", env=env) as new:
            assert answers(new) == [7.5, 503, 7.5]
            assert httpx2.get(new.url + "/readyz").status_code == 200


def test_modules_in_a_file_are_found_beside_it(home, view, tmp_path, monkeypatch):
    session.close()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/view_functions.py").write_text((HERE / "view_functions.py").read_text())
    (tmp_path / "shop/seeknal.toml").write_text('modules = ["view_functions"]\n')
    (tmp_path / "shop/below").mkdir()
    monkeypatch.chdir(tmp_path / "shop/below")
    server = Server(home, "--workers", "2", env={"PYTHONPATH": str(HERE.parent / "src")}).start()
    try:
        answer = httpx2.post(server.url + "/v1/views/offer", json={"keys": [ROW]})
        assert answer.json()["rows"][0]["gap"] == 29.0, answer.text
    finally:
        server.stop()


def test_the_file_of_settings_names_modules_as_a_list():
    from seeknal import config

    Path("seeknal.toml").write_text('modules = ["features", "shop.more"]\n')
    settings = config.load()
    assert (settings.modules, settings.folder) == (("features", "shop.more"), Path.cwd())
    Path("seeknal.toml").write_text('modules = ["features.py", "a b"]\n')
    with pytest.raises(DefinitionError, match="not a list of modules"):
        config.load()
    assert json.dumps(config.checked_modules("a, b", "x")) == '["a", "b"]'
