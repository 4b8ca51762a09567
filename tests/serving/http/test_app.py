"""The front door over a real server: the bad-input table's rows 29 to 48, keys, limits, and that nothing is echoed."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn.config

from serving import uvicorn_protocol
from serving.http import content_types
from serving.http.admission import Admission, RequestLimits
from serving.http.app import FrontDoor
from serving.http.auth import Keys
from serving.http.problems import HostNotLocal
from serving.http.routing import BODY_BYTES_MAX, JSON_HEADERS, Answer, Call, Message, Route
from tests.serving import edge_server as edge
from tests.serving.edge_server import GOOD, post, problem, raw, split
from tests.waiting import LIMIT_S


@pytest.fixture(scope="module")
def app() -> FrontDoor:
    return edge.front_door()


@pytest.fixture(scope="module")
def port(app: FrontDoor) -> Iterator[int]:
    with edge.served(app) as port:
        yield port


@pytest.fixture(scope="module")
def hurried() -> Iterator[int]:
    """A server whose time limits are tenths of a second."""
    with edge.served(edge.front_door(limits=RequestLimits(body_seconds_max=0.3)), head_seconds_max=0.3) as port:
        yield port


@pytest.fixture(scope="module")
def locked() -> Iterator[int]:
    """A server with keys."""
    with edge.served(edge.front_door(edge.all_keys())) as port:
        yield port


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


TYPE = "Content-Type: application/json"
PICKLE = b"cos\nsystem\n(S'touch /tmp/opportune-canary'\ntR."
ROWS: list[tuple[str, bytes, int, str]] = [
    ("1 empty body", post(b""), 400, "body-empty"),
    ("2 truncated", post(b"{"), 400, "json-invalid"),
    ("7 duplicate key", post(GOOD[:-1] + b',"placement":"home"}'), 400, "json-duplicate-key"),
    ("13 unknown field", post(GOOD[:-1] + b',"x":1}'), 422, "field-unknown"),
    ("17 20 MB", post(b"", TYPE, "Content-Length: 20000000", length=False), 413, "body-too-large"),
    ("29 text/plain", post(GOOD, "Content-Type: text/plain"), 415, "media-type"),
    ("30 no content type", post(GOOD, "X-Nothing: 1"), 415, "media-type"),
    ("30 empty content type", post(GOOD, "Content-Type:"), 415, "media-type"),
    ("31 xml", post(GOOD, "Content-Type: application/xml"), 415, "media-type"),
    ("31 octets", post(GOOD, "Content-Type: application/octet-stream"), 415, "media-type"),
    ("32 pickle", post(PICKLE, "Content-Type: application/vnd.bentoml+pickle"), 415, "media-type"),
    ("32 Pickle", post(PICKLE, "Content-Type: Application/VND.BentoML+Pickle", path="/decide"), 415, "media-type"),
    ("33 multipart", post(GOOD, "Content-Type: multipart/form-data; boundary=x", path="/decide"), 415, "media-type"),
    ("33 multipart, no boundary", post(GOOD, "Content-Type: multipart/form-data", path="/decide"), 415, "media-type"),
    ("33 form", post(GOOD, "Content-Type: application/x-www-form-urlencoded", path="/decide"), 415, "media-type"),
    ("34 utf-16", post(GOOD, "Content-Type: application/json; charset=utf-16"), 415, "media-type"),
    ("34 charset twice", post(GOOD, "Content-Type: application/json; charset=utf-8; charset=utf-8"), 415, "media-type"),
    ("34 charset that is empty", post(GOOD, "Content-Type: application/json; charset="), 415, "media-type"),
    ("34 other type", post(GOOD, "Content-Type: application/jsonp;"), 415, "media-type"),
    ("34 other parameter", post(GOOD, "Content-Type: application/json; q=1"), 415, "media-type"),
    ("35 gzip", post(gzip.compress(GOOD), TYPE, "Content-Encoding: gzip"), 415, "content-encoding"),
    ("35 lying gzip", post(GOOD, TYPE, "Content-Encoding: gzip"), 415, "content-encoding"),
    ("36 accepts html only", post(GOOD, TYPE, "Accept: text/html"), 406, "not-acceptable"),
    ("36 refuses json", post(GOOD, TYPE, "Accept: */*, application/json;q=0"), 406, "not-acceptable"),
    *[
        (f"37 {method} on a POST route", get("/v1/decisions", method=method), 405, "method")
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
    ],
    ("37 POST on a GET route", post(b"{}", path="/livez"), 405, "method"),
    *[
        (f"38 {path[:40]}", get(path), 404, "not-found")
        for path in (
            "/v1/decisions/",
            "//v1//decisions",
            "/v1/%2e%2e/admin",
            "/v1/%64ecisions",
            "/v1/../v1/decisions",
            "/V1/decisions",
            "/v1/decisions%00",
            "/unknown",
            "/v1/decisions;x=1",
            "*",
        )
    ],
    *[
        (f"T2 {path}", get(path), 404, "not-found")
        for path in ("/", "/docs.json", "/schema.json", "/static_content/index.css", "/assets/x", "/healthz",
        "/favicon.ico")
    ],
    ("41 64 KiB + 1", post(b" " * (BODY_BYTES_MAX + 1)), 413, "body-too-large"),
    ("41 1 GiB declared", post(b"", TYPE, "Content-Length: 1073741824", length=False), 413, "body-too-large"),
    (
        "41 endless chunks",
        post(b"10000\r\n" + b"x" * 0x10000 + b"\r\n10\r\n" + b"x" * 16, TYPE, "Transfer-Encoding: chunked",
        length=False),
        413,
        "body-too-large",
    ),
    ("41 a body on a GET", get("/livez", "Content-Length: 1") + b"x", 413, "body-too-large"),
    ("42 long target", get("/v1/" + "x" * 100_000), 414, "uri-too-long"),
    ("42 long query", get("/livez?" + "x" * 9000), 414, "uri-too-long"),
    ("43 17 KiB of headers", get("/livez", "X-Long: " + "x" * 17_000), 431, "headers-too-large"),
    ("43 70 kB of headers", get("/livez", "X-Long: " + "x" * 70_000), 431, "headers-too-large"),
    ("43 101 fields", get("/livez", *[f"X-{number}: 1" for number in range(101)]), 431, "headers-too-large"),
    ("43 101 fields of one name", get("/livez", *["X-Same: 1"] * 101), 431, "headers-too-large"),
    ("44 no host", b"GET /livez HTTP/1.1\r\n\r\n", 400, "parser"),
    ("44 two hosts", get("/livez", "Host: localhost"), 400, "parser"),
    ("44 two content types", post(GOOD, TYPE, "Content-Type: text/plain"), 400, "parser"),
    ("56 100-continue and too large", post(b"", TYPE, "Content-Length: 99999999", "Expect: 100-continue",
    length=False), 413,
     "body-too-large"),
]  # fmt: skip


@pytest.mark.parametrize(("request_bytes", "status", "slug"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_row(port: int, request_bytes: bytes, status: int, slug: str) -> None:
    """Each row gets its status and slug as problem+json, with what the status owes; for row 36 we chose 406."""
    answer = raw(port, request_bytes)
    assert b" 100 " not in answer[:20]
    fields = split(answer)[1]
    assert problem(answer) == (status, slug)
    if status == 405:
        assert fields["allow"] == ("POST" if b"/v1/decisions" in request_bytes else "GET, HEAD")
    if status == 415:
        assert fields["accept-post"] == "application/json"
    if status in (413, 414, 431):
        assert fields["connection"] == "close"
    assert edge.INNER_SECRET.encode() not in answer


PARSER_ROWS = {
    "length and chunked": post(b"0\r\n\r\n", TYPE, "Transfer-Encoding: chunked", "Content-Length: 5", length=False),
    "two lengths": post(b"{}", TYPE, "Content-Length: 3", "Content-Length: 2", length=False),
    "negative length": post(b"", TYPE, "Content-Length: -1", length=False),
    "no number": post(b"", TYPE, "Content-Length: 0x10", length=False),
    "bad chunk": post(b"zz\r\nx\r\n", TYPE, "Transfer-Encoding: chunked", length=False),
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60,
    "no version": b"GET /livez\r\n\r\n",
    "version 2.0": b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "blank before the colon": b"GET /livez HTTP/1.1\r\nHost : localhost\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", PARSER_ROWS.values(), ids=PARSER_ROWS)
def test_parser_row(port: int, request_bytes: bytes) -> None:
    """Row 44: bytes that never become an HTTP request get 400 and the end of the connection, never a decision."""
    answer = raw(port, request_bytes)
    assert split(answer)[0] == 400
    assert b"\r\nconnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1 4") == 1


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


CREDENTIALS = {
    "no key": ([], 401),
    "garbage": (["Authorization: Bearer garbage"], 401),
    "empty": (["Authorization: Bearer "], 401),
    "basic": (["Authorization: Basic YTpi"], 401),
    "huge": (["X-API-Key: " + "x" * 5000], 401),
    "expired": ([f"Authorization: Bearer {edge.EXPIRED_KEY}"], 401),
    "expired header": ([f"X-API-Key: {edge.EXPIRED_KEY}"], 401),
    "a character less": ([f"Authorization: Bearer {edge.ROLE_KEYS['decide'][:-1]}"], 401),
}


def test_keys_on_every_route(locked: int) -> None:
    """T1: every route of the table refuses every bad credential with 401, every wrong role with 403, and takes the
    right ones.
    """
    table = edge.front_door(edge.all_keys()).routes
    cells = 0
    for route in table:

        def ask(fields: list[str], route: Route = route) -> bytes:
            if route.takes_body:
                return raw(locked, post(b"{}" if route.path == "/decide" else GOOD, TYPE, *fields, path=route.path))
            return raw(locked, get(route.path, *fields))

        for fields, status in CREDENTIALS.values():
            answer = ask(fields)
            if not route.roles:
                assert split(answer)[0] == 200
            else:
                assert problem(answer) == (status, "unauthenticated")
                assert split(answer)[1]["www-authenticate"].startswith('Bearer realm="opportune"')
            cells += 1
        for role, key in edge.ROLE_KEYS.items():
            for fields in ([f"Authorization: Bearer {key}"], [f"X-API-Key: {key}"], [f"authorization: bEARER {key}"]):
                answer = ask(fields)
                if route.roles and role not in route.roles:
                    assert problem(answer) == (403, "forbidden")
                else:
                    assert split(answer)[0] in (200, 202)
                cells += 1
    assert cells == len(table) * (len(CREDENTIALS) + 12) == 140


def test_a_key_does_not_open_what_is_not_there(locked: int) -> None:
    """T2: a valid key changes nothing about unknown paths, and the order of refusals does not tell whether a path
    exists below one.
    """
    for path in ("/", "/docs.json", "/v1/admin"):
        assert problem(raw(locked, get(path, f"X-API-Key: {edge.ROLE_KEYS['admin']}"))) == (404, "not-found")


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("LOCALHOST:1", 200), ("127.0.0.1:80", 200), ("[::1]:80", 200), ("evil.example", 421),
     ("localhost.evil.example", 421), ("127.0.0.1.evil.example", 421), ("192.168.0.1", 421), ("", 421), ("localhost:x",
     421)],
)  # fmt: skip
def test_without_keys_only_local_names(port: int, host: str, status: int) -> None:
    """Without keys a page whose name was bent to loopback (DNS rebinding) is refused: the Host must mean this
    machine.
    """
    answer = raw(port, f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert split(answer)[0] == status


def test_with_keys_any_host(locked: int) -> None:
    """With keys the Host is whatever the proxy in front calls us."""
    assert split(raw(locked, b"GET /livez HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"))[0] == 200


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


def test_probes_and_draining() -> None:
    """/readyz says why not, and while draining it is 503 and every answer ends its connection; /livez stays 200."""
    reason: list[str | None] = ["No bundle yet."]
    app = edge.front_door(ready=lambda: reason[0])
    with edge.served(app) as port:
        answer = raw(port, get("/readyz"))
        assert problem(answer) == (503, "not-ready")
        assert json.loads(split(answer)[2])["detail"] == "No bundle yet."
        assert split(answer)[1]["retry-after"] == "1"
        reason[0] = None
        assert split(raw(port, get("/readyz")))[0] == 200
        app.drain()
        assert problem(raw(port, get("/readyz"))) == (503, "draining")
        for request in (
            post(GOOD, TYPE, close=False),
            post(b"{", TYPE, close=False),
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ):
            answer = raw(port, request, patience=LIMIT_S)
            assert split(answer)[0] in (200, 400)
            assert b"\r\nconnection: close\r\n" in answer


STOPPING = """
import sys, uvicorn
from serving import uvicorn_protocol
from tests.serving import edge_server as edge
uvicorn_protocol.install()
uvicorn.run(edge.front_door(drain_seconds=1.0), port=int(sys.argv[1]), log_config=None)
"""


def test_sigterm_drains_first() -> None:
    """After SIGTERM the server goes on answering for its grace, ends each connection, says so in /readyz, and then
    exits by itself.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", STOPPING, str(port)], cwd=Path(__file__).parents[3])
    try:
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                assert split(raw(port, get("/readyz")))[0] == 200
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
        while split(raw(port, get("/readyz")))[0] == 200:
            assert time.monotonic() < deadline, "the server did not begin to drain"
            time.sleep(0.01)
        assert problem(raw(port, get("/readyz"))) == (503, "draining")
        answer = raw(port, post(GOOD, TYPE, close=False))
        assert split(answer)[0] == 200
        assert b"\r\nconnection: close\r\n" in answer
        assert server.wait(10) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait(10)


@pytest.mark.parametrize(
    ("server", "fit"), [(("127.0.0.1", 1), True), (("::1", 1), True), (("10.0.0.5", 1), False), (None, True)]
)
def test_without_keys_only_loopback_is_served(server: tuple[str, int] | None, fit: bool) -> None:
    """Even when something bound all addresses, a connection that came in from outside gets nothing while there are no
    keys.
    """
    gate, route = Admission(Keys(), RequestLimits()), edge.routes()[0]
    scope = {"server": server}
    if fit:
        assert gate.admit(route, scope, {b"host": b"localhost"}) is None
        return
    with pytest.raises(HostNotLocal):
        gate.admit(route, scope, {b"host": b"localhost"})


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
