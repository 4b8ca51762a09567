"""The contract that /openapi.json shows is the route table, and what the running front door answers is in it."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from features.common.types import Decision, DecisionRequest
from serving.http import problems
from serving.http.problems import ProblemDocument
from serving.openapi import document as openapi_document
from tests.serving import edge_server as edge
from tests.serving.edge_server import GOOD, post, raw, split

TYPE = "Content-Type: application/json"


@pytest.fixture(scope="module")
def contract() -> dict[str, Any]:
    with edge.served(edge.front_door()) as port:
        status, fields, body = split(
            raw(port, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        )
    assert (status, fields["content-type"]) == (200, "application/json")
    document: dict[str, Any] = json.loads(body)
    return document


def test_documented_paths_are_the_route_table(contract: dict[str, Any]) -> None:
    """Each route is documented once, with its roles and its body limit, and nothing else is."""
    table = {(route.path, route.method.lower()): route for route in edge.front_door().routes}
    documented = {(path, method) for path, item in contract["paths"].items() for method in item}
    assert documented == set(table)
    for (path, method), route in table.items():
        operation = contract["paths"][path][method]
        assert operation["operationId"] == route.name
        assert operation.get("x-roles", []) == sorted(route.roles)
        assert operation["security"] == [], "no keys are configured"
        assert ("requestBody" in operation) == route.takes_body


def test_references_resolve(contract: dict[str, Any]) -> None:
    """Every reference in the document leads somewhere, and the structs of the contract are its schemas."""
    assert contract["openapi"] == "3.1.0"
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(contract)))
    assert references <= set(contract["components"]["schemas"])
    assert {"DecisionRequest", "Decision", "ProblemDocument", "FieldError"} <= set(contract["components"]["schemas"])
    request = contract["components"]["schemas"]["DecisionRequest"]
    assert request["additionalProperties"] is False
    assert set(request["properties"]) == set(DecisionRequest.__struct_fields__)


def test_catalogue_is_documented() -> None:
    """Slugs are unique, and each problem with a body's cause stands on the decision route with its status."""
    kinds = list(problems.catalogue().values())
    assert len({kind.slug for kind in kinds}) == len(kinds) > 30
    assert all(400 <= kind.status < 600 and kind.title and kind.text for kind in kinds)
    route = next(route for route in edge.front_door().routes if route.name == "decisions")
    assert {kind.status for kind in openapi_document.route_problems(route)} >= {
        400,
        401,
        403,
        406,
        408,
        413,
        414,
        415,
        421,
        422,
        431,
        500,
        503,
    }


REQUESTS = {
    "good": post(GOOD),
    "400": post(b"{"),
    "406": post(GOOD, TYPE, "Accept: text/html"),
    "413": post(b" " * 70_000),
    "414": post(GOOD, path="/v1/decisions?" + "x" * 9000),
    "415": post(GOOD, "Content-Type: text/plain"),
    "415 encoding": post(GOOD, TYPE, "Content-Encoding: br"),
    "421": post(GOOD).replace(b"Host: localhost", b"Host: evil.example"),
    "422": post(GOOD[:-1] + b',"x":1}'),
    "422 range": post(GOOD.replace(b'"limit":3', b'"limit":99')),
    "431": post(GOOD, TYPE, "X-Long: " + "x" * 17_000),
    "500": post(b'{"customer_id":"explode","placement":"a"}'),
}


def test_answers_conform(contract: dict[str, Any]) -> None:
    """What the running front door answers has a documented status, type, header fields and shape."""
    operation = contract["paths"]["/v1/decisions"]["post"]
    seen = set()
    with edge.served(edge.front_door()) as port:
        for request in REQUESTS.values():
            status, fields, body = split(raw(port, request))
            documented = operation["responses"][str(status)]
            assert fields["content-type"] in documented["content"]
            assert set(documented["headers"]) <= set(fields) | {"accept-encoding"}
            if status == 200:
                msgspec.json.decode(body, type=Decision)
            else:
                answered = msgspec.json.decode(body, type=ProblemDocument)
                schema = documented["content"]["application/problem+json"]["schema"]
                assert answered.type in schema["allOf"][1]["properties"]["type"]["enum"]
            seen.add(status)
    assert seen == {200, 400, 406, 413, 414, 415, 421, 422, 431, 500}


def test_answers_with_keys_conform(contract: dict[str, Any]) -> None:
    """401 and 403 are documented on every route that asks for a role, and only there; with keys, so is that one is
    asked for.
    """
    keyed = openapi_document.document(edge.front_door(edge.all_keys()).routes)
    with edge.served(edge.front_door(edge.all_keys())) as port:
        for route in edge.front_door().routes:
            documented = contract["paths"][route.path][route.method.lower()]["responses"]
            assert bool(keyed["paths"][route.path][route.method.lower()]["security"]) == bool(route.roles)
            assert ("401" in documented) == ("403" in documented) == bool(route.roles)
            request = (
                post(GOOD, TYPE, path=route.path)
                if route.takes_body
                else f"GET {route.path} HTTP/1.1\r\nHost: a\r\n".encode()
            )
            status = split(raw(port, request if route.takes_body else request + b"Connection: close\r\n\r\n"))[0]
            assert status == (401 if route.roles else 200)
            assert str(status) in documented
