"""The contract as an OpenAPI 3.1 document: of the route table, the structs of bodies, and the workspace that serves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from features.common.release import installed
from features.common.types import UNIT_PATTERN
from features.workspace.workspace import Workspace
from serving.http import problems
from serving.http.problems import Invalid, Problem, ProblemDocument, Unreadable
from serving.http.routing import ADMINISTRATORS, JSON, NO_CONTENT, NOT_MODIFIED, TEXT, Route
from serving.openapi.bodies import Schema, body_schemas, pattern_of
from serving.openapi.workspace import key_schema, narrow

_ALWAYS: tuple[type[Problem], ...] = (
    problems.Malformed,
    problems.NotAcceptable,
    problems.BodyTooLarge,
    problems.UriTooLong,
    problems.HostNotLocal,
    problems.HeadersTooLarge,
    problems.Internal,
)
_WITH_KEY: tuple[type[Problem], ...] = (problems.Unauthenticated, problems.Forbidden, problems.Overloaded)
_WITH_BODY: tuple[type[Problem], ...] = (problems.ReceiveTimeout, problems.MediaType, problems.ContentEncoding)

_UNIT = {"type": "string", "pattern": pattern_of(UNIT_PATTERN)}
"""What stands in a path as `{id}` and `{unit}`: the id of a customer, or `~` and an anonymous one."""

_HEADER_TEXTS = {
    b"www-authenticate": "How to present a key.",
    b"retry-after": "Seconds to wait.",
    b"accept-post": "The type that a body must have.",
    b"accept-encoding": "The encoding that a body must have.",
}


def route_problems(route: Route) -> tuple[type[Problem], ...]:
    """Return every problem that a request to this route may be answered with."""
    kinds = {*_ALWAYS, *route.problems}
    if route.roles:
        kinds.update(_WITH_KEY)
    if route.beacon is not None:
        kinds.add(problems.OriginNotLocal)
    if route.takes_body:
        kinds.update(_WITH_BODY)
        kinds.update(kind for kind in problems.catalogue().values() if issubclass(kind, Unreadable | Invalid))
    if route.handler is None:
        kinds.update((problems.Refused, problems.Overloaded))
    return tuple(sorted(kinds, key=lambda kind: (kind.status, kind.slug)))


def document(
    routes: Sequence[Route], workspace: Workspace | None = None, *, keys: bool = True, origins: bool = False
) -> dict[str, Any]:
    """Return OpenAPI 3.1 of the whole table.

    Args:
        workspace: what requests may name; None where nothing serves yet.
        keys: whether keys are configured, and therefore asked for.
        origins: whether pages of other origins may call, and therefore ask beforehand.
    """
    requests, responses = _bodies(routes)
    schema_of, components = body_schemas(requests, responses)
    narrow(components, workspace)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = paths.setdefault(route.path, {})
        path[route.method.lower()] = _operation(route, schema_of, workspace, keys=keys)
        if origins and route.roles != ADMINISTRATORS:
            path.setdefault("options", _preflight(route, schema_of))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Opportune",
            "version": _version(),
            "summary": "Which offers, in which order, for this customer, now.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def render(
    routes: Sequence[Route], workspace: Workspace | None = None, *, keys: bool = True, origins: bool = False
) -> bytes:
    """Return the document as JSON; arguments as for `document`."""
    return msgspec.json.encode(document(routes, workspace, keys=keys, origins=origins))


def _bodies(routes: Sequence[Route]) -> tuple[list[type], list[type]]:
    """Return the types of requests and of responses, each once."""
    requests = [kind for route in routes for kind in (route.request, route.beacon) if kind is not None]
    responses: list[type] = [ProblemDocument]
    for route in routes:
        responses += [
            kind for kind in (route.response, None if route.refusal is None else route.refusal.form) if kind is not None
        ]
    return list(dict.fromkeys(requests)), list(dict.fromkeys(responses))


def _operation(
    route: Route, schema_of: dict[type, Schema], workspace: Workspace | None, *, keys: bool
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": _responses(route, schema_of),
    }
    operation["security"] = [{"bearer": []}, {"header": []}] if route.roles and keys else []
    if route.roles:
        operation["description"] = "Roles that may call it: " + ", ".join(sorted(route.roles)) + "."
        operation["x-roles"] = sorted(route.roles)
    if parameters := _parameters(route, workspace):
        operation["parameters"] = parameters
    if route.takes_body:
        schema = {"type": "object"} if route.request is None else schema_of[route.request]
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
        if route.beacon is not None:
            operation["requestBody"]["content"][TEXT] = {"schema": schema_of[route.beacon]}
        operation["x-body-bytes-max"] = route.body_bytes_max
    return operation


def _parameters(route: Route, workspace: Workspace | None) -> list[dict[str, Any]]:
    schemas = {
        name: key_schema(workspace, flags=route.open_ended) if name == "key" else _UNIT for name in route.parameters
    }
    found = [_in_path(name, schema) for name, schema in schemas.items()]
    if NOT_MODIFIED in (route.statuses or {}):
        text = "The ETag of an answer that is kept: 304 where it is still the answer."
        found.append({"name": "If-None-Match", "in": "header", "description": text, "schema": {"type": "string"}})
    return found


def _in_path(name: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _responses(route: Route, schema_of: dict[type, Schema]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.response is not None:
        content = {route.media_type: {"schema": schema_of[route.response]}}
    elif route.media_type == JSON:
        content = {JSON: {"schema": {"type": "object"}}}
    else:
        content = {route.media_type: {"schema": {"type": "string"}}}
    shared: dict[str, Any] = {"x-request-id": _header("The request's id, yours if it was well-formed.", required=True)}
    timed = {"server-timing": _header("Milliseconds of " + ", ".join(route.stages) + ".")} if route.stages else {}
    tagged = {"etag": _header("For If-None-Match.", required=True)} if NOT_MODIFIED in (route.statuses or {}) else {}
    responses: dict[str, Any] = {
        str(status): {"description": text, "headers": shared | timed | tagged}
        | ({} if status == NOT_MODIFIED else {"content": content})
        for status, text in (route.statuses or {200: "Success."}).items()
    }
    return responses | _refusals(route, schema_of, shared)


def _refusals(route: Route, schema_of: dict[type, Schema], shared: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    by_status: defaultdict[int, list[type[Problem]]] = defaultdict(list)
    refusal = route.refusal
    for kind in route_problems(route):
        by_status[kind.status if refusal is None else refusal.status(kind)].append(kind)
    for status, kinds in sorted(by_status.items()):
        if refusal is None:
            responses[str(status)] = _problem_response(kinds, schema_of[ProblemDocument], shared)
        else:
            described = {JSON: {"schema": schema_of[refusal.form]}}
            responses[str(status)] = _described(kinds, shared) | (
                {} if status in refusal.empty else {"content": described}
            )
    return responses


def _preflight(route: Route, schema_of: dict[type, Schema]) -> dict[str, Any]:
    """Return the operation with which browsers ask whether a page of another origin may call."""
    asked = Route(
        method="OPTIONS",
        path=route.path,
        name="preflight_" + route.name,
        summary="Asked by browsers beforehand (CORS).",
    )
    allow = {"allow": _header("The methods of this path.", required=True)}
    shared = {"x-request-id": _header("The request's id, yours if it was well-formed.", required=True)}
    answers: dict[str, Any] = {str(NO_CONTENT): {"description": "What a page may send.", "headers": shared | allow}}
    operation: dict[str, Any] = {"operationId": asked.name, "summary": asked.summary, "security": []}
    operation["responses"] = answers | _refusals(asked, schema_of, shared)
    if route.parameters:  # what they name is not looked at
        operation["parameters"] = [_in_path(name, {"type": "string"}) for name in route.parameters]
    return operation


def _problem_response(kinds: list[type[Problem]], schema: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    return _described(kinds, shared) | {
        "content": {
            problems.MEDIA_TYPE: {
                "schema": {
                    "allOf": [
                        schema,
                        {"properties": {"type": {"enum": [problems.TYPE_PREFIX + kind.slug for kind in kinds]}}},
                    ]
                }
            }
        },
    }


def _described(kinds: list[type[Problem]], shared: dict[str, Any]) -> dict[str, Any]:
    carried = [{name for name, _ in kind.fixed_headers} for kind in kinds]
    always = set.intersection(*carried)
    headers = shared | {
        name.decode(): _header(_HEADER_TEXTS[name], required=name in always)
        for name in sorted(set[bytes]().union(*carried))
    }
    return {"description": " / ".join(_sentence(kind.title for kind in kinds)), "headers": headers}


def _sentence(titles: Iterable[str]) -> list[str]:
    return [f"{title}." for title in dict.fromkeys(titles)]


def _header(text: str, *, required: bool = False) -> dict[str, Any]:
    return {"description": text, "required": required, "schema": {"type": "string"}}


def _version() -> str:
    found = installed()
    return found[1] if found else "0"
