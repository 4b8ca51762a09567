"""Keys on every route of the front door, and which hosts are served without."""

from __future__ import annotations

import pytest

from serving.http.admission import Admission, RequestLimits
from serving.http.auth import Keys
from serving.http.problems import HostNotLocal
from serving.http.routing import Route
from tests.serving import edge_server as edge
from tests.serving.edge_server import GOOD, post, problem, raw, split
from tests.serving.raw_requests import TYPE, get

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
