"""The bad-input table's rows 29 to 48: bad requests get their status, whatever they hold."""

from __future__ import annotations

import gzip

import pytest

from serving.http.routing import BODY_BYTES_MAX
from tests.serving import edge_server as edge
from tests.serving.edge_server import GOOD, post, problem, raw, split
from tests.serving.raw_requests import TYPE, get

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
