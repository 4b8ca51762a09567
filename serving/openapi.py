"""The contract as an OpenAPI 3.1 document, made from the route table and the structs that bodies are decoded as."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

import msgspec

from features.vocabulary import ID_CHARACTERS_MAX, ID_TEXT
from serving import problems
from serving.problems import Invalid, Problem, ProblemDocument, Unreadable
from serving.routes import JSON, NOT_MODIFIED, TEXT, Route

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

_UNIT = {"type": "string", "minLength": 1, "maxLength": ID_CHARACTERS_MAX + 1, "pattern": f"^~?{ID_TEXT}$"}
"""What stands in a path as `{id}` and `{unit}`: the id of a customer, or `~` and an anonymous one."""
_KEY = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[A-Za-z0-9._-]+$"}
"""`{key}`: of an experiment, or a flag."""

_HEADER_TEXTS = {
    b"www-authenticate": "How to present a key.",
    b"retry-after": "Seconds to wait.",
    b"accept-post": "The type that a body must have.",
    b"accept-encoding": "The encoding that a body must have.",
}


def route_problems(route: Route) -> tuple[type[Problem], ...]:
    """Every problem that a request to this route may be answered with."""
    kinds = {*_ALWAYS, *route.problems}
    if route.roles:
        kinds.update(_WITH_KEY)
    if route.beacon:
        kinds.add(problems.OriginNotLocal)
    if route.takes_body:
        kinds.update(_WITH_BODY)
        kinds.update(kind for kind in problems.catalogue().values() if issubclass(kind, Unreadable | Invalid))
    if route.handler is None:
        kinds.update((problems.Refused, problems.Overloaded))
    return tuple(sorted(kinds, key=lambda kind: (kind.status, kind.slug)))


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """OpenAPI 3.1 of the whole table."""
    structs: list[type] = [ProblemDocument]
    for route in routes:
        form = None if route.refusal is None else route.refusal.form
        structs += [kind for kind in (route.request, route.response, form) if kind is not None and kind not in structs]
    schemas, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(structs, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
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


def render(routes: Sequence[Route]) -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document(routes))


def _operation(route: Route, schema_of: dict[type, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.response is not None:
        content = {route.media_type: {"schema": schema_of[route.response]}}
    elif route.media_type == JSON:
        content = {JSON: {"schema": {"type": "object"}}}
    else:
        content = {route.media_type: {"schema": {"type": "string"}}}
    shared: dict[str, Any] = {"x-request-id": _header("The request's id, yours if it was well-formed.")}
    timed = {"server-timing": _header("Milliseconds of " + ", ".join(route.stages) + ".")} if route.stages else {}
    responses: dict[str, Any] = {
        str(status): {"description": text, "headers": shared | timed} | ({} if status == NOT_MODIFIED else {"content": content})
        for status, text in (route.statuses or {200: "Success."}).items()
    }
    by_status: defaultdict[int, list[type[Problem]]] = defaultdict(list)
    refusal = route.refusal
    for kind in route_problems(route):
        by_status[kind.status if refusal is None else refusal.status(kind)].append(kind)
    for status, kinds in sorted(by_status.items()):
        if refusal is None:
            responses[str(status)] = _problem_response(kinds, schema_of[ProblemDocument], shared)
        else:
            described = {JSON: {"schema": schema_of[refusal.form]}}
            responses[str(status)] = _described(kinds, shared) | ({} if status in refusal.empty else {"content": described})
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary, "responses": responses}
    if route.roles:
        operation["security"] = [{"bearer": []}, {"header": []}]
        operation["description"] = "Roles that may call it: " + ", ".join(sorted(route.roles)) + "."
        operation["x-roles"] = sorted(route.roles)
    else:
        operation["security"] = []
    if route.parameters:
        schemas = {name: _KEY if name == "key" else _UNIT for name in route.parameters}
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schemas[name]} for name in schemas]
    if route.takes_body:
        schema = {"type": "object"} if route.request is None else schema_of[route.request]
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
        if route.beacon:
            operation["requestBody"]["content"][TEXT] = {"schema": schema}
        operation["x-body-bytes-max"] = route.body_bytes_max
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
    names = {name for kind in kinds for name, _ in kind.fixed_headers}
    headers = shared | {name.decode(): _header(_HEADER_TEXTS[name]) for name in sorted(names)}
    if kinds[0].status == 405:
        headers["allow"] = _header("The methods of this path.")
    return {"description": " / ".join(_sentence(kind.title for kind in kinds)), "headers": headers}


def _sentence(titles: Iterable[str]) -> list[str]:
    return [f"{title}." for title in dict.fromkeys(titles)]


def _header(text: str) -> dict[str, Any]:
    return {"description": text, "schema": {"type": "string"}}


def _version() -> str:
    try:
        return metadata.version("opportune")
    except metadata.PackageNotFoundError:
        return "0"
