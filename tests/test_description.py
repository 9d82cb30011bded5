"""The API description is correct for every route, and readable."""

import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from seeknal.server.description import describe, show
from seeknal.server.routes import OPEN, ROUTES

TOLD = describe()["paths"]
SCHEMAS = describe()["components"]["schemas"]
OPERATIONS = {(path, method): one for path, methods in TOLD.items() for method, one in methods.items()}
SHAPES = [one.body.shape for route in ROUTES for one in route.operations.values() if one.body]


def test_the_description_is_valid_openapi():
    OPENAPI_31_VALIDATOR.validate(describe())


def test_every_method_of_every_route_is_described():
    assert set(OPERATIONS) == {(route.path, method.lower()) for route in ROUTES for method in route.operations}
    assert all(one["summary"].endswith(".") and one["operationId"] for one in OPERATIONS.values())


@pytest.mark.parametrize("shape", list(dict.fromkeys(SHAPES)), ids=lambda shape: shape.__name__)
def test_the_schema_of_a_body_has_every_field_that_is_decoded_and_no_other(shape):
    schema = SCHEMAS[shape.__name__]
    fields = {field.name: field for field in msgspec.structs.fields(shape)}
    assert set(schema["properties"]) == set(fields)
    assert set(schema["required"]) == {name for name, field in fields.items() if field.required}
    assert schema["additionalProperties"] is False
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"a field of no schema": 1}, shape)


def test_the_query_of_one_entity_has_the_fields_of_the_body_for_several():
    names = [one["name"] for one in OPERATIONS["/v1/online/{table}", "get"]["parameters"] if one["in"] == "query"]
    assert names == list(SCHEMAS["OnlineRequest"]["properties"])


def test_a_route_is_described_with_its_right_and_what_can_go_wrong_with_it():
    rights = {route.path: route.right for route in ROUTES}
    for (path, method), one in OPERATIONS.items():
        statuses = set(map(int, one["responses"]))
        assert {200, 500, 503} <= statuses, path
        assert ({401, 403} <= statuses) == (rights[path] != OPEN) == ("security" not in one), path
        assert ({408, 413, 415} <= statuses) == (method == "post"), path
        assert (404 in statuses) == ("{" in path or path == "/v1/historical"), path
    assert set(OPERATIONS["/healthz", "get"]["responses"]) == {"200", "500", "503"}


def test_each_operation_has_a_name_of_its_own_for_clients_that_are_generated():
    names = [one["operationId"] for one in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name.islower() for name in names)


def test_join_keys_are_fields_of_the_query_that_a_generated_client_can_name():
    for path in ("/v1/online/{project}/{table}", "/v1/online/{table}"):
        (keys,) = [one for one in OPERATIONS[path, "get"]["parameters"] if one["name"] == "keys"]
        assert (keys["in"], keys["style"], keys["explode"]) == ("query", "form", True)
        assert (keys["schema"]["type"], keys["schema"]["additionalProperties"]) == ("object", {"type": "string"})


def test_the_page_is_in_words_with_an_example_for_each_route():
    page = show(describe())
    assert page.count("<pre>curl ") == len(OPERATIONS)
    for wrong in ("[&#x27;", "null", ": any", "{&#x27;"):
        assert wrong not in page
    for right in (
        "prefix: string. Text",
        "features: array of strings. ",
        "keys: array of objects, required. ",
        "spine: file, required. A Parquet file or an Arrow stream",
        "as_of: string or integer or object of integers. ",
        "Authorization: Bearer TOKEN",
        "<td>500<td>",
    ):
        assert right in page, right
