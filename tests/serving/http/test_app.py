"""The front door over a real server: good requests, limits, overload, and that nothing is echoed."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn.config

from serving import uvicorn_protocol
from serving.http import content_types
from serving.http.admission import RequestLimits
from serving.http.app import FrontDoor
from serving.http.auth import Keys
from serving.http.routing import BODY_BYTES_MAX, JSON_HEADERS, Answer, Call, Message, Route
from tests.serving import edge_server as edge
from tests.serving.edge_server import GOOD, post, problem, raw, split
from tests.serving.raw_requests import TYPE, get
from tests.waiting import LIMIT_S


@pytest.fixture(scope="module")
def hurried() -> Iterator[int]:
    """A server whose time limits are tenths of a second."""
    with edge.served(edge.front_door(limits=RequestLimits(body_seconds_max=0.3)), head_seconds_max=0.3) as port:
        yield port


@pytest.mark.parametrize(
    "content_type",
    [
        *(
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            'application/json;charset="UTF-8"',
        ),
        *(
            "application/json;",
            "application/json ;",
            "application/json;;",
            "application/json; ; charset=utf-8 ;",
            "Application/JSON ; charset=UTF-8;",
        ),
    ],
)
def test_good_request(port: int, content_type: str) -> None:
    """A well-formed request is answered with its id, its stages and no word of who serves."""
    status, fields, body = split(raw(port, post(GOOD, f"Content-Type: {content_type}", "X-Request-Id: shop.42_a-b")))
    assert (status, fields["content-type"], fields["x-request-id"]) == (200, "application/json", "shop.42_a-b")
    assert fields["server-timing"] == "read;dur=1.000, score;dur=2.500"
    assert fields["cache-control"] == "no-store"
    assert "server" not in fields
    assert json.loads(body)["customer_id"] == "1042"


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "ü", "<script>", "a:b"])
def test_request_id_is_made_when_the_given_one_is_unfit(port: int, given: str) -> None:
    """An id that could do harm in a log or a page is replaced, and no two made ids are equal."""
    request = post(GOOD, TYPE, f"X-Request-Id: {given}")
    made = [split(raw(port, request))[1]["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    assert all(re.fullmatch(r"[0-9a-f]{10}-[0-9a-f]+", one) for one in made)


def test_head_and_pipelining(port: int) -> None:
    """HEAD answers without a body, and a hundred pipelined requests are answered in order on one connection."""
    status, fields, body = split(raw(port, get("/livez", method="HEAD")))
    assert (status, body, fields["content-length"]) == (200, b"", "18")
    requests = [post(GOOD, TYPE, f"X-Request-Id: n{number}", close=number == 99) for number in range(100)]
    answers = raw(port, b"".join(requests))
    assert re.findall(rb"x-request-id: n(\d+)", answers) == [str(number).encode() for number in range(100)]


def test_expect_continue(port: int) -> None:
    """A client that waits for 100 Continue gets it at once, and then its answer; head and body of an answer arrive
    together.
    """
    head = post(GOOD, TYPE, "Expect: 100-continue").removesuffix(GOOD)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(head)
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(GOOD)
        assert split(connection.recv(65536))[2].endswith(b"}")


def test_http_1_0_and_upgrades(port: int) -> None:
    """Row 58: HTTP/1.0 works without a Host; upgrades to h2c and web sockets are ignored."""
    assert split(raw(port, b"GET /livez HTTP/1.0\r\n\r\n"))[0] == 200
    for upgrade in ("h2c", "websocket"):
        request = f"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
        assert split(raw(port, request.encode(), patience=0.5))[0] == 200


def test_pass_through(port: int) -> None:
    """An inner route is answered by the inner application, its own refusals are replaced by ours."""
    status, fields, body = split(raw(port, post(b"{}", path="/decide")))
    assert (status, body) == (200, b'{"inner":true}')
    assert fields["x-request-id"]
    answer = raw(port, post(b'{"fail":"CANARY"}', path="/decide"))
    assert problem(answer) == (400, "request-refused")
    assert b"CANARY" not in answer
    assert problem(raw(port, post(b'{"fail":"a","fail":"b"}', path="/decide"))) == (400, "json-duplicate-key")
    assert problem(raw(port, post(b'{"fail":NaN}', path="/decide"))) == (400, "json-invalid")
    assert problem(raw(port, post(b'{"fail":3}', path="/decide"))) == (422, "field-type")
    assert problem(raw(port, post(b" " * (BODY_BYTES_MAX + 1), path="/decide"))) == (413, "body-too-large")


def test_events_route_takes_a_mebibyte(port: int) -> None:
    """A route's own body limit holds: one MiB passes on the events route in pieces, one byte more does not."""
    body = b" " * 1024 * 1024
    assert json.loads(split(raw(port, post(body, path="/v1/events")))[2]) == {"bytes": 1024 * 1024}
    assert problem(raw(port, post(body + b" ", path="/v1/events"))) == (413, "body-too-large")


def test_many_keys_in_a_large_body(port: int) -> None:
    """T22: a 1 MiB body of 90,000 keys is refused by its length before it is parsed."""
    body = json.dumps({f"k{number}": 1 for number in range(90_000)}).encode()
    assert len(body) > 1_000_000
    with httpx.Client() as client:
        answer = client.post(
            f"http://127.0.0.1:{port}/v1/decisions", content=body, headers={"content-type": "application/json"}
        )
    assert (answer.status_code, answer.json()["type"].rsplit(":")[-1]) == (413, "body-too-large")


def test_slow_clients(hurried: int) -> None:
    """Row 45: a slow body gets 408, a slow head is answered 408, a silent connection and blank lines are closed."""
    slow_body = [post(GOOD[:20], TYPE, f"Content-Length: {len(GOOD)}", length=False), *[b"x"] * 8]
    assert problem(raw(hurried, *slow_body, pause=0.1)) == (408, "timeout")
    assert problem(raw(hurried, b"GET /livez HTTP/1.1\r\nHost: loc", patience=LIMIT_S)) == (408, "timeout")
    dripping = [b"GET /livez HTTP/1.1\r\n", *[b"X-A: b\r\n"] * 8]
    assert problem(raw(hurried, *dripping, pause=0.1)) == (408, "timeout")
    begun = time.monotonic()
    assert raw(hurried, b"", patience=LIMIT_S) == b""
    assert raw(hurried, *[b"\r\n"] * 8, pause=0.1, patience=LIMIT_S) == b""
    keep_alive = post(GOOD, TYPE, close=False)
    assert split(raw(hurried, keep_alive, b"\r\n", pause=0.05, patience=LIMIT_S))[0] == 200
    assert time.monotonic() - begun < LIMIT_S, "one of the connections was not closed by the server"


def test_a_client_that_goes_away(app: FrontDoor, port: int, caplog: pytest.LogCaptureFixture) -> None:
    """Row 46: nobody is answered, it is counted, and it is no error."""
    caplog.set_level(logging.INFO)
    lines = app.metrics.exposition().decode().splitlines()
    (before,) = [int(line.split()[1]) for line in lines if line.startswith("opportune_disconnects_total ")]
    wanted = f"opportune_disconnects_total {before + 1}\n".encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(post(GOOD[:20], TYPE, f"Content-Length: {len(GOOD)}", length=False))
        time.sleep(0.1)
    deadline = time.monotonic() + LIMIT_S
    while wanted not in app.metrics.exposition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert wanted in app.metrics.exposition()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


CANARIES = {
    "field": GOOD[:-1] + b',"CANARY":1}',
    "context key": b'{"customer_id":"1","placement":"a","context":{"canary":1}}',
    "context value": b'{"customer_id":"1","placement":"a","context":{"hour":["CANARY"]}}',
    "context text": b'{"customer_id":"1","placement":"a","context":{"note":"CANARY\\u0007"}}',
    "customer": b'{"customer_id":"CANARY\\n","placement":"a"}',
    "customer's type": b'{"customer_id":["CANARY"],"placement":"a"}',
    "placement": b'{"customer_id":"1","placement":"CANARY"}',
    "exclusion": b'{"customer_id":"1","placement":"a","exclude":["CANARY "]}',
    "malformed": b'{"customer_id":"CANARY',
    "duplicate": b'{"CANARY":1,"CANARY":2}',
    "explosion": b'{"customer_id":"explode","placement":"a","context":{"note":"CANARY"}}',
}


def test_nothing_is_echoed(port: int, locked: int, caplog: pytest.LogCaptureFixture) -> None:
    """T17: a canary in any free field of body, path, query or headers occurs in no problem and in no log line."""
    caplog.set_level(logging.DEBUG)
    requests = [post(body) for body in CANARIES.values()]
    requests += [get("/CANARY"), get("/v1/decisions?CANARY"), get("/livez", "Accept: CANARY/x", "Cookie: CANARY")]
    requests += [
        post(GOOD, "Content-Type: CANARY/x"),
        post(GOOD, TYPE, "Content-Encoding: CANARY"),
        b"CANARY / HTTP/1.1\r\n\r\n",
    ]
    requests += [get("/livez", "Host: CANARY"), post(GOOD, TYPE, "X-Request-Id: CANARY CANARY", path="/x")]
    for request in requests:
        answer = raw(port, request)
        assert split(answer)[0] >= 400
        assert b"canary" not in answer.lower(), answer
    for field in ("Authorization: Bearer CANARY", "X-API-Key: CANARY", "Authorization: CANARY CANARY"):
        assert b"canary" not in raw(locked, post(GOOD, TYPE, field)).lower()
    logged = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert "RuntimeError" in logged, "the explosion was not logged, so this test saw no log"
    assert "canary" not in logged.lower()


def test_metrics_count_what_happened() -> None:
    """Requests, problems and latencies are counted under labels of closed sets, by routes and slugs and never by
    paths.
    """
    app = edge.front_door()
    with edge.served(app) as port:
        for _ in range(3):
            raw(port, post(GOOD))
        raw(port, post(b"{"))
        raw(port, get("/nowhere"))
        lines = (
            split(raw(port, get("/metrics", "Accept: application/openmetrics-text;q=0.9, text/plain;q=0.5")))[2]
            .decode()
            .split("\n")
        )
    for line in (
        'opportune_requests_total{route="decisions",status="200"} 3',
        'opportune_requests_total{route="decisions",status="400"} 1',
        'opportune_requests_total{route="other",status="404"} 1',
        'opportune_problems_total{slug="json-invalid"} 1',
        'opportune_request_seconds_count{route="decisions"} 3',
        'opportune_stage_seconds_count{stage="decisions:score"} 3',
        'opportune_stage_seconds_sum{stage="decisions:score"} 0.0075',
    ):
        assert line in lines
    assert "nowhere" not in "\n".join(lines)


def test_overload_is_shed() -> None:
    """With as many requests in flight as a worker may have, the next gets 503 with Retry-After, and probes still
    answer.
    """
    release = asyncio.Event()

    async def wait(_: bytes, __: Call) -> Answer:
        await release.wait()
        return 200, JSON_HEADERS, b"{}", ()

    route = Route(method="POST", path="/slow", name="slow", summary="Waits.", roles=frozenset({"decide"}), handler=wait)
    app = FrontDoor([route], Keys(), RequestLimits(in_flight_max=2))

    async def ask(method: str, path: str) -> tuple[int, dict[bytes, bytes]]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "method": method, "raw_path": path.encode()}
        scope |= {"query_string": b"", "server": ("127.0.0.1", 1), "headers": [(b"host", b"localhost")]}
        if method == "POST":
            scope["headers"].append((b"content-type", b"application/json"))
        await app(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"])

    async def run() -> None:
        waiting = [asyncio.create_task(ask("POST", "/slow")) for _ in range(2)]
        await asyncio.sleep(0)
        status, fields = await ask("POST", "/slow")
        assert (status, fields[b"retry-after"]) == (503, b"1")
        assert (await ask("GET", "/livez"))[0] == 200
        release.set()
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
        assert (await ask("POST", "/slow"))[0] == 200

    asyncio.run(run())


def test_bentoml_would_use_the_guarded_protocol() -> None:
    """The name that BentoML's worker leaves to uvicorn (`http="auto"`) means our protocol once it is installed."""
    uvicorn_protocol.install()
    config = uvicorn.config.Config(app=edge.front_door(), log_config=None)
    config.load()
    assert config.http_protocol_class is uvicorn_protocol.GuardedProtocol


def test_table_is_checked() -> None:
    """A path that could never match, a route that stands twice and one that nobody answers are refused at boot."""
    with pytest.raises(ValueError, match="absolute path"):
        Route(method="GET", path="v1", name="a", summary="")
    with pytest.raises(ValueError, match="GET or POST"):
        Route(method="PUT", path="/v1", name="a", summary="")
    route = edge.routes()[0]
    with pytest.raises(ValueError, match="twice"):
        FrontDoor([route, route], Keys())
    with pytest.raises(ValueError, match="came neither"):
        FrontDoor([Route(method="POST", path="/x", name="x", summary="")], Keys())


@pytest.mark.parametrize(
    ("accept", "fit"),
    [("*/*", True), ("application/*", True), ("application/json", True), ("APPLICATION/JSON;q=0.1", True), ("", True),
     ("text/html, */*;q=0.1", True), ("text/html", False), ("*/*;q=0", False),
     ("application/*, application/json;q=0.0", False),
     ("application/json;q=1, */*;q=0", True), ("application/problem+json", False), (",", True)],
)  # fmt: skip
def test_accept(accept: str, fit: bool) -> None:
    """The most specific range decides (RFC 9110); an empty field asks for nothing in particular."""
    assert content_types.accepts(accept.encode(), b"application/json") is fit
