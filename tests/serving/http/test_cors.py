"""CORS over real HTTP, held against what the Fetch standard makes of it: a browser's part in twenty lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.common.errors import Failure
from serving.http.auth import Keys
from serving.http.cors import ANY, ORIGINS_MAX, Origins, is_origin
from serving.settings import ORIGINS_VARIABLE, BadSettings, Settings, origins_for
from tests.serving import edge_server as edge
from tests.serving.edge_server import GOOD, ROLE_KEYS, post, raw, split

SHOP, APP, THIEF = "https://shop.example", "http://localhost:5173", "https://thief.example"
TYPE, KEY = "Content-Type: application/json", f"X-API-Key: {ROLE_KEYS['decide']}"
CORS = ("access-control-", "vary", "timing-")
FRONTENDS = ("/v1/decisions", "/v1/events", "/decide", "/livez", "/readyz", "/openapi.json")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """With keys, for two origins."""
    with edge.served(edge.front_door(edge.all_keys(), origins=Origins([SHOP, APP]))) as port:
        yield port


@pytest.fixture(scope="module")
def closed() -> Iterator[int]:
    """With keys, for nobody's pages."""
    with edge.served(edge.front_door(edge.all_keys())) as port:
        yield port


def options(path: str, origin: str, method: str = "POST", headers: str = "content-type,x-api-key") -> bytes:
    """A preflight, as browsers send it."""
    fields = [
        f"Origin: {origin}",
        f"Access-Control-Request-Method: {method}",
        f"Access-Control-Request-Headers: {headers}",
    ]
    return "\r\n".join(
        [f"OPTIONS {path} HTTP/1.1", "Host: localhost", "Connection: close", "Accept: */*", *fields, "", ""]
    ).encode()


def permits(answer: bytes, origin: str, method: str, headers: str) -> bool:
    """What a browser makes of the answer to a preflight without credentials (Fetch, "CORS-preflight fetch"); `*` stands
    for no key field.
    """
    status, fields, _ = split(answer)
    allowed = {name.strip().lower() for name in fields.get("access-control-allow-headers", "").split(",")}
    methods = {name.strip() for name in fields.get("access-control-allow-methods", "").split(",")}
    return (
        200 <= status < 300
        and fields.get("access-control-allow-origin") in (origin, "*")
        and method in methods | {"GET", "HEAD", "POST"}
        and {name.strip() for name in headers.split(",")} <= allowed
    )


def readable(answer: bytes, origin: str) -> dict[str, str] | None:
    """The header fields that a page may read of an answer; None where it may read nothing, not even the status."""
    _, fields, _ = split(answer)
    if fields.get("access-control-allow-origin") not in (origin, "*"):
        return None
    exposed = {name.strip().lower() for name in fields.get("access-control-expose-headers", "").split(",")}
    return {
        name: value
        for name, value in fields.items()
        if name in exposed | {"content-type", "content-length", "cache-control"}
    }


def of_cors(answer: bytes) -> dict[str, str]:
    return {name: value for name, value in split(answer)[1].items() if name.startswith(CORS)}


@pytest.mark.parametrize("path", FRONTENDS)
def test_preflight(port: int, path: str) -> None:
    """An allowed origin may use the methods of each route with all header fields that clients send; no other origin may
    anything.
    """
    method, fields = (
        ("POST" if path in FRONTENDS[:3] else "GET"),
        "authorization,content-type,if-none-match,x-api-key,x-request-id",
    )
    for origin in (SHOP, APP):
        answer = raw(port, options(path, origin, method, fields))
        assert permits(answer, origin, method, fields)
        status, told, body = split(answer)
        assert (status, body, told["vary"], "content-length" in told) == (204, b"", "Origin", False)
        assert "access-control-allow-credentials" not in told
        assert int(told["access-control-max-age"]) > 0
    for origin in (THIEF, SHOP + ":8443", SHOP.upper(), SHOP + "/", "null", SHOP + ".evil.example"):
        answer = raw(port, options(path, origin, method, fields))
        assert not permits(answer, origin, method, fields)
        assert of_cors(answer) == {"vary": "Origin"}
    assert not permits(raw(port, options(path, SHOP, "DELETE")), SHOP, "DELETE", "")


def test_administrators_have_no_pages(port: int) -> None:
    """What only administrators may is not for browsers: no preflight, and no answer that a page could read."""
    assert edge.problem(raw(port, options("/metrics", SHOP, "GET"))) == (405, "method")
    request = (
        f"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: {SHOP}\r\nX-API-Key:"
        f" {ROLE_KEYS['admin']}\r\n\r\n"
    )
    answer = raw(port, request.encode())
    assert (split(answer)[0], of_cors(answer)) == (200, {})


ANSWERS = {
    "good": (post(GOOD, TYPE, KEY, f"Origin: {SHOP}"), 200),
    "no key": (post(GOOD, TYPE, f"Origin: {SHOP}"), 401),
    "another role": (post(GOOD, TYPE, f"X-API-Key: {ROLE_KEYS['events']}", f"Origin: {SHOP}"), 403),
    "bad JSON": (post(b"{", TYPE, KEY, f"Origin: {SHOP}"), 400),
    "breaks the contract": (post(b'{"x":1}', TYPE, KEY, f"Origin: {SHOP}"), 422),
    "no such path": (post(GOOD, TYPE, f"Origin: {SHOP}", path="/v2"), 404),
    "another method": (post(GOOD, TYPE, f"Origin: {SHOP}", path="/livez"), 405),
    "a long path": (post(GOOD, TYPE, f"Origin: {SHOP}", path="/" + "x" * 9_000), 414),
    "a large body": (post(b" " * 70_000, TYPE, KEY, f"Origin: {SHOP}"), 413),
    "our fault": (post(b'{"customer_id":"explode","placement":"a"}', TYPE, KEY, f"Origin: {SHOP}"), 500),
    "from BentoML": (post(b"{}", TYPE, KEY, f"Origin: {SHOP}", path="/decide"), 200),
}


@pytest.mark.parametrize(("request_bytes", "status"), ANSWERS.values(), ids=ANSWERS)
def test_every_answer_can_be_read_by_the_page(port: int, request_bytes: bytes, status: int) -> None:
    """Success or refusal, the page that may call reads status, id and what else helps; another reads nothing."""
    answer = raw(port, request_bytes)
    told = readable(answer, SHOP)
    assert split(answer)[0] == status
    assert (
        told is not None
        and told["x-request-id"]
        and (status != 200 or "/decide" in request_bytes.decode() or told["server-timing"])
    )
    assert of_cors(answer)["vary"] == "Origin"
    stranger = raw(port, request_bytes.replace(SHOP.encode(), THIEF.encode()))
    assert (split(stranger)[0], readable(stranger, THIEF), of_cors(stranger)) == (status, None, {"vary": "Origin"})


def test_off(closed: int) -> None:
    """Nothing is said to browsers unless origins are configured, and OPTIONS is a method like any other that is not
    allowed.
    """
    assert of_cors(raw(closed, post(GOOD, TYPE, KEY, f"Origin: {SHOP}"))) == {}
    answer = raw(closed, options("/v1/decisions", SHOP))
    assert (edge.problem(answer), split(answer)[1]["allow"], of_cors(answer)) == ((405, "method"), "POST", {})


def test_any_origin() -> None:
    """With `*` everybody's pages may call, none with credentials; answers do not depend on who asked."""
    with edge.served(edge.front_door(edge.all_keys(), origins=Origins([ANY]))) as port:
        assert permits(raw(port, options("/v1/decisions", THIEF)), THIEF, "POST", "content-type,x-api-key")
        for origin in (SHOP, THIEF):
            told = of_cors(raw(port, post(GOOD, TYPE, KEY, f"Origin: {origin}")))
            assert told["access-control-allow-origin"] == "*"
            assert "vary" not in told and "access-control-allow-credentials" not in told


def test_without_keys_the_host_must_be_local() -> None:
    """A preflight passes the same gate as what follows it."""
    with edge.served(edge.front_door(origins=Origins([SHOP]))) as port:
        assert permits(raw(port, options("/v1/decisions", SHOP)), SHOP, "POST", "content-type")
        rebound = options("/v1/decisions", SHOP).replace(b"Host: localhost", b"Host: shop.example")
        assert edge.problem(raw(port, rebound)) == (421, "host-not-local")
        assert edge.problem(
            raw(port, options("/v1/decisions", SHOP).replace(b"Accept: */*", b"Content-Length: 1") + b"x")
        ) == (
            413,
            "body-too-large",
        )


def test_preflights_are_counted() -> None:
    """As a route of their own."""
    app = edge.front_door(origins=Origins([SHOP]))
    with edge.served(app) as port:
        raw(port, options("/v1/decisions", SHOP))
    assert b'opportune_requests_total{route="preflight",status="204"} 1\n' in app.metrics.exposition()


@given(st.from_regex(r"(https?|capacitor)://[a-z0-9-]{1,12}(\.[a-z]{2,5})?(:[0-9]{4,5})?", fullmatch=True))
def test_origins_are_recognised(text: str) -> None:
    """Scheme, host and port, and nothing more or else."""
    assert is_origin(text)
    for other in (
        text + "/",
        text + "/x",
        text + "?",
        text.upper(),
        " " + text,
        text + ",",
        f"x@{text}",
        text + "\n",
        "*." + text,
    ):
        assert not is_origin(other)


@pytest.mark.parametrize(
    "text", ["https://shop.example:443", "http://shop.example:80", "shop.example", "https://*.shop.example", "null", ""]
)
def test_what_is_no_origin(text: str) -> None:
    """Browsers leave out a scheme's own port, and no pattern is understood."""
    assert not is_origin(text)


def test_origins_of_the_environment(tmp_path: Path) -> None:
    """Blanks and commas separate; a fault is fatal and names what came; `*` stands alone, and needs keys."""
    (tmp_path / "workspace.yaml").touch()

    def settings(text: str) -> Settings:
        return Settings.from_environment({"OPPORTUNE_WORKSPACE": str(tmp_path), ORIGINS_VARIABLE: text})

    assert settings("").origins == () and origins_for(settings(" "), Keys()) is None
    assert settings(f"{SHOP}, {APP} {SHOP}").origins == (SHOP, APP)
    assert settings("*").origins == ("*",)
    for bad in (
        f"{SHOP}/",
        f"* {SHOP}",
        "shop.example",
        " ".join(f"https://s{number}.example" for number in range(ORIGINS_MAX + 1)),
    ):
        with pytest.raises(BadSettings, match=ORIGINS_VARIABLE):
            settings(bad)
    with pytest.raises(Failure, match="without keys"):
        origins_for(settings("*"), Keys())
    kept = origins_for(settings("*"), edge.all_keys())
    assert kept is not None and kept.any
