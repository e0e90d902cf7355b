"""The description of the API: every route is in it, and it is what OpenAPI 3.1 allows."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from leadline.adapters.http import openapi
from leadline.adapters.http.routes import ROUTES
from leadline_protocol.messages import SUBMISSION_TYPES, Job, Noop


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(openapi.document("1.2.3"))
    return document


def test_it_is_valid(described: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(described).validate()


def test_an_invalid_one_would_be_found(described: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(described))
    broken["paths"]["/v1/jobs/{job}"]["get"]["parameters"] = []
    assert not OpenAPIV31SpecValidator(broken).is_valid()


def test_every_route_is_in_it_and_nothing_else(described: dict[str, Any]) -> None:
    told = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert told == {(route.method, route.path) for route in ROUTES}


def test_every_field_that_a_route_takes_is_in_it(described: dict[str, Any]) -> None:
    for route in ROUTES:
        operation = described["paths"][route.path][route.method.lower()]
        assert operation["summary"].endswith((".", "?")), route
        said = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        if route.in_body and isinstance(route.means, type):
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            assert set(schema["properties"]) == set(route.takes), route
            assert not said
        elif isinstance(route.means, type):
            assert said == set(route.takes), route


def test_every_operation_has_an_id_of_its_own(described: dict[str, Any]) -> None:
    ids = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)


def test_only_what_machines_ask_is_open_to_everybody(described: dict[str, Any]) -> None:
    without = {
        path for path, methods in described["paths"].items() for each in methods.values() if not each["security"]
    }
    assert without == {"/v1/openapi.json", "/healthz", "/readyz"}


def test_a_submission_is_described_as_it_is_taken(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    body = described["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert len(body["oneOf"]) == len(SUBMISSION_TYPES)
    resolved = {"$ref": "#/components/schemas/Noop", "components": {"schemas": schemas}}
    validator = jsonschema.Draft202012Validator(resolved)
    assert validator.is_valid(msgspec.to_builtins(Noop(teamspace="acme", priority_seconds=5)))
    assert not validator.is_valid({"kind": "noop"})
    assert not validator.is_valid({"kind": "noop", "teamspace": "acme", "notify": True})


def test_what_pairs_replies_with_lines_is_not_in_it(described: dict[str, Any]) -> None:
    for name in ("Receipt", "JobReply", "StatusReply"):
        assert not {"ok", "line", "ref"} & set(described["components"]["schemas"][name]["properties"])
    assert Job.__name__ not in described["components"]["schemas"], "fields of operations are told at their routes"
