"""A lane with small handlers behind a real uvicorn on loopback, for the tests of the edge."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import uvicorn

from features.common.types import Decision, DecisionRequest, ModelStamp
from serving import uvicorn_protocol
from serving.http.admission import RequestLimits
from serving.http.app import FrontDoor
from serving.http.auth import KeyEntry, Keys
from serving.http.problems import TYPE_PREFIX, ProblemDocument
from serving.http.routing import EVENTS_BODY_BYTES_MAX, JSON_HEADERS, Answer, Call, Receive, Route, Scope, Send
from serving.http.strict_json import StrictDecoder
from serving.openapi.contract import ContractDocument
from serving.runtime.metrics import Metrics
from tests.waiting import LIMIT_S

CONTEXT = frozenset({"channel", "device", "hour", "note"})
GOOD = b'{"customer_id":"1042","placement":"checkout","limit":3,"context":{"channel":"app","hour":18}}'
ROLE_KEYS = {role: f"{role}-key.{'s' * 40}{role}" for role in ("decide", "events", "experiments", "admin")}
EXPIRED_KEY = "old-key." + "x" * 43
INNER_SECRET = "inner-page"

_decode = StrictDecoder(DecisionRequest, {"context": CONTEXT})
_STAMP = ModelStamp("m", "1", "sha256:0")


class InnerBody(msgspec.Struct, forbid_unknown_fields=True):
    """What the inner application's method takes, as the front door checks it first."""

    request: dict[str, str | int] = {}
    fail: str = ""


async def decide(body: bytes, _: Call) -> Answer:
    request = _decode(body)
    if request.customer_id == "explode":
        raise RuntimeError(f"no luck with {request.context}")
    offers: list[Any] = []
    decision = Decision(
        "d", request.customer_id, str(request.placement), offers, _STAMP, (), 0, "2026-01-01T00:00:00Z", "c0ffee"
    )
    return 200, JSON_HEADERS, msgspec.json.encode(decision), (1_000_000, 2_500_000)


async def count_bytes(body: bytes, _: Call) -> Answer:
    return 202, JSON_HEADERS, json.dumps({"bytes": len(body)}).encode(), ()


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for BentoML: answers everything that reaches it, pages that must never be reached included."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    message = await receive()
    failing = b"fail" in message["body"]
    body = b'{"error":"%s %s"}' % (INNER_SECRET.encode(), message["body"]) if failing else b'{"inner":true}'
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400 if failing else 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def routes() -> list[Route]:
    return [
        Route(
            method="POST",
            path="/v1/decisions",
            name="decisions",
            summary="Rank offers.",
            roles=frozenset({"decide"}),
            handler=decide,
            request=DecisionRequest,
            response=Decision,
            stages=("read", "score"),
        ),
        Route(
            method="POST",
            path="/v1/events",
            name="events",
            summary="Take events.",
            roles=frozenset({"events"}),
            handler=count_bytes,
            body_bytes_max=EVENTS_BODY_BYTES_MAX,
            statuses={202: "Taken."},
        ),
        Route(
            method="POST",
            path="/decide",
            name="bento_decide",
            summary="BentoML's own.",
            roles=frozenset({"decide", "admin"}),
            request=InnerBody,
        ),
    ]


def all_keys() -> Keys:
    entries = [
        KeyEntry(name=f"{role}-key", role=role, sha256=hashlib.sha256(key.encode()).hexdigest())  # type: ignore[arg-type]
        for role, key in ROLE_KEYS.items()
    ]
    old = KeyEntry(
        name="old-key",
        roles=("decide", "events", "experiments", "admin"),
        sha256=hashlib.sha256(EXPIRED_KEY.encode()).hexdigest(),
        expires=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    )
    return Keys((*entries, old))


def front_door(keys: Keys | None = None, limits: RequestLimits | None = None, **named: Any) -> FrontDoor:
    contract = ContractDocument(keys or Keys(), lambda: None, origins=named.get("origins") is not None)
    return FrontDoor(routes(), keys or Keys(), limits, Metrics(), inner=inner, document=contract.render, **named)


@contextlib.contextmanager
def served(
    app: FrontDoor, head_seconds_max: float | None = None, keep_alive_seconds: float | None = None
) -> Iterator[int]:
    """Serves as BentoML's worker does (`_bentoml_impl/worker/service.py`); yields the port."""
    uvicorn_protocol.install()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app=app, backlog=2048, log_config=None, workers=1, timeout_keep_alive=5, server_header=False
    )
    config.load()
    limits = {"head_seconds_max": head_seconds_max, "keep_alive_seconds": keep_alive_seconds}
    given = {name: value for name, value in limits.items() if value is not None}
    if given:
        config.http_protocol_class = type("Quick", (uvicorn_protocol.GuardedProtocol,), given)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + LIMIT_S
    while not server.started:
        if time.monotonic() > deadline:
            raise TimeoutError("the test server did not start within 10 s")
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


def raw(port: int, *parts: bytes, pause: float = 0.0, patience: float = 5.0) -> bytes:
    """Sends bytes as they are and returns what comes back until the server closes, or `patience` is over."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        with contextlib.suppress(ConnectionError):
            for number, part in enumerate(parts):
                if number:
                    time.sleep(pause)
                connection.sendall(part)
        received = bytearray()
        with contextlib.suppress(TimeoutError, ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
        return bytes(received)


def post(body: bytes, *fields: str, path: str = "/v1/decisions", length: bool = True, close: bool = True) -> bytes:
    """The bytes of a POST; `fields` replace the usual content type."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *(fields or ("Content-Type: application/json",))]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def split(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields and body of one answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return int(first.split(" ")[1]), fields, body


def problem(answer: bytes) -> tuple[int, str]:
    """Status and slug of a problem answer; the form of the document is checked on the way."""
    status, fields, body = split(answer)
    assert fields["content-type"] == "application/problem+json", answer
    document = msgspec.json.decode(body, type=ProblemDocument)
    assert document.status == status
    assert document.instance == "urn:request:" + fields["x-request-id"]
    assert document.type.startswith(TYPE_PREFIX)
    return status, document.type.removeprefix(TYPE_PREFIX)
