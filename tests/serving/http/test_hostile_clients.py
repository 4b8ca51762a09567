"""Clients that mean harm, or are broken, on a real server: each costs itself only, and is closed in time."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import time
import tracemalloc
from collections.abc import Iterator

import msgspec
import pytest

from serving import uvicorn_protocol
from serving.http.admission import NEWCOMER_SECONDS_MIN, NEWCOMERS_MAX, Newcomers, RequestLimits
from serving.http.app import FrontDoor
from serving.http.routing import EVENTS_BODY_BYTES_MAX, Route
from tests.serving import edge_server as edge
from tests.serving.edge_server import GOOD, post, problem, raw, split
from tests.waiting import LIMIT_S

KEY = f"X-API-Key: {edge.ROLE_KEYS['decide']}"
JSON_TYPE = "Content-Type: application/json"
BEACON_HEAD = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
CHUNKED = "Transfer-Encoding: chunked"
MIB = 1 << 20


class _Events(msgspec.Struct):
    key: str = ""


def front_door(limits: RequestLimits | None = None) -> FrontDoor:
    """The lane of the edge's tests with keys, whose events may come as beacons."""
    events = Route(
        method="POST",
        path="/v1/events",
        name="events",
        summary="Take events.",
        roles=frozenset({"events"}),
        handler=edge.count_bytes,
        body_bytes_max=EVENTS_BODY_BYTES_MAX,
        statuses={202: "Taken."},
        beacon=_Events,
    )
    others = [route for route in edge.routes() if route.path != "/v1/events"]
    return FrontDoor([*others, events], edge.all_keys(), limits, inner=edge.inner)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with edge.served(front_door(), head_seconds_max=1.0) as port:
        yield port


@contextlib.contextmanager
def hurried(**limits: float) -> Iterator[int]:
    """A server whose protocol has these limits."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(uvicorn_protocol.GuardedProtocol, name, value)
        with edge.served(front_door()) as port:
            yield port


@contextlib.contextmanager
def more_files(count: int) -> Iterator[None]:
    """Lets this process open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def chunked(body: bytes, *fields: str, trailers: bytes = b"", path: str = "/v1/decisions") -> bytes:
    head = post(b"", *fields, CHUNKED, path=path, length=False)
    return head + b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(body), body, trailers)


# Trailers
# ----------------------------------------------------------------------------------------------------------------------


def test_a_trailer_is_no_field_of_the_head(port: int) -> None:
    """RFC 9110, 6.5.1: a key, a type or an id that comes after the body has no effect."""
    key, pieces = KEY.encode() + b"\r\n", 0
    for fields, trailers, expected in (
        ([JSON_TYPE], key, (401, "unauthenticated")),
        ([KEY], b"Content-Type: application/json\r\n", (415, "media-type")),
    ):
        request = chunked(GOOD, *fields, trailers=trailers)
        for cut in (len(request), request.index(b"\r\n\r\n") + 4, len(request) - len(trailers) - 2):
            assert problem(raw(port, request[:cut], request[cut:], pause=0.1)) == expected
            pieces += 1
    assert pieces == 6
    good = raw(port, chunked(GOOD, JSON_TYPE, KEY, trailers=b"Digest: x\r\nX-Request-Id: late\r\n"))
    assert split(good)[0] == 200 and split(good)[1]["x-request-id"] != "late"


@pytest.mark.parametrize("unit", [b"a:b\r\n", b"b" * 1000], ids=["many fields", "one endless field"])
def test_endless_trailers_cost_nothing(port: int, unit: bytes) -> None:
    """Trailers without end are dropped while they come, and refused by 431 at the bound of a head."""
    tracemalloc.start()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
            client.sendall(BEACON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            time.sleep(0.1)
            client.sendall(b"2\r\n{}\r\n0\r\na:")
            sent, begun = 0, time.monotonic()
            while not select.select([client], [], [], 0.0005)[0] and time.monotonic() < begun + LIMIT_S:
                client.sendall(unit * 60)
                sent += 60 * len(unit)
            answer = client.recv(65536)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB, f"{peak} bytes for {sent} of trailers"
    assert problem(answer) == (431, "headers-too-large")
    assert sent < 4 * MIB


def test_slow_trailers(port: int) -> None:
    """Trailers have the time of a head; a chunk of the body whose data is late has the body's."""
    head = post(b"", JSON_TYPE, KEY, CHUNKED, length=False)
    begun = time.monotonic()
    assert problem(raw(port, head + b"2\r\n{}\r\n0\r\n", *[b"a:b\r\n"] * 3, pause=0.1, patience=LIMIT_S)) == (
        408,
        "timeout",
    )
    assert time.monotonic() < begun + 3
    late = raw(port, head + b"%x\r\n" % len(GOOD), GOOD + b"\r\n0\r\n\r\n", pause=1.3, patience=LIMIT_S)
    assert split(late)[0] == 200
    request = chunked(GOOD, JSON_TYPE, KEY, trailers=b"a:b\r\n")
    assert split(raw(port, *[request[i : i + 1] for i in range(len(request))]))[0] == 200


# Who does not read, and who writes before reading
# ----------------------------------------------------------------------------------------------------------------------


def test_pipelining_without_reading() -> None:
    """Clients that pipeline and never read are cut off, and cost little until then."""
    request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
    tracemalloc.start()
    try:
        with hurried(unsent_seconds_max=1.0) as port, contextlib.ExitStack() as stack:
            clients = []
            for _ in range(8):
                client = stack.enter_context(socket.socket())
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", port))
                client.setblocking(False)
                clients.append(client)
            lost, begun = set(), time.monotonic()
            while len(lost) < len(clients) and time.monotonic() < begun + LIMIT_S:
                for client in clients:
                    try:
                        client.send(request)
                    except BlockingIOError:
                        pass
                    except ConnectionError:
                        lost.add(client)
                time.sleep(0.001)
            peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(lost) == len(clients), "some were open still"
    assert peak < 16 * MIB, peak


def test_many_pipelined_requests(port: int) -> None:
    """Up to 129 requests of one write are answered in order; those beyond are not, and the connection says so."""
    one = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for sent in (100, 129, 1000, 5000):
        answers = raw(port, one * sent, patience=0.5).split(b"HTTP/1.1 ")[1:]
        assert len(answers) == min(sent, uvicorn_protocol.PIPELINED_MAX + 1)
        assert all(answer.startswith(b"200") for answer in answers)
        assert (b"connection: close" in answers[-1]) == (sent > 129)


@pytest.mark.parametrize("framing", ["Content-Length: 24000000", CHUNKED])
@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/events", "/nowhere"])
def test_a_body_far_too_large_gets_its_answer(port: int, path: str, framing: str) -> None:
    """A client that writes 24 MB before it reads gets the refusal, every time, and no reset."""
    body = bytes(24_000_000)
    if framing == CHUNKED:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    key = "X-API-Key: " + edge.ROLE_KEYS["events" if path == "/v1/events" else "decide"]
    head = post(b"", JSON_TYPE, key, framing, path=path, length=False, close=False)
    expected = (404, "not-found") if path == "/nowhere" else (413, "body-too-large")
    for _ in range(10):
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
            client.sendall(head + body)
            answer = bytearray()
            while part := client.recv(65536):
                answer += part
        assert problem(bytes(answer)) == expected


def test_a_long_goodbye_ends() -> None:
    """Who goes on writing after the refusal is closed after a time."""
    with hurried(linger_seconds_max=0.5) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as client:
            client.sendall(post(b"", JSON_TYPE, KEY, "Content-Length: 100000000000", length=False))
            begun = time.monotonic()
            with pytest.raises(ConnectionError):
                while time.monotonic() < begun + LIMIT_S:
                    client.sendall(b"x")
                    time.sleep(0.01)
        assert 0.3 < time.monotonic() - begun < 3


# Who has shown no key
# ----------------------------------------------------------------------------------------------------------------------


def test_strangers_take_no_place_of_others() -> None:
    """2,400 connections with a beacon's head and one byte of its body: callers with a key are served, connected before
    or later; the strangers are closed in time, and beacons are taken again.
    """
    decision = post(GOOD, JSON_TYPE, KEY)
    beacon_body = b'{"key":"%b"}' % edge.ROLE_KEYS["events"].encode()
    beacon = BEACON_HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(beacon_body) + beacon_body
    stall = BEACON_HEAD + b"Content-Length: 60000\r\n\r\n{"
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > 6000, f"{hard} open files are too few for this test"
    limits = RequestLimits(stranger_seconds_max=2.0)
    with more_files(6000), edge.served(front_door(limits)) as port, contextlib.ExitStack() as stack:
        assert split(raw(port, beacon))[0] == 202
        strangers = []
        slowest = 0.0
        for number in range(2400):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S))
            stranger.sendall(stall)
            strangers.append(stranger)
            if number % 100 == 99:
                begun = time.monotonic()
                assert split(raw(port, decision))[0] == 200
                slowest = max(slowest, time.monotonic() - begun)
        print(f"slowest answer to a key: {slowest * 1e3:.0f} ms", end=" ")
        assert problem(raw(port, beacon)) == (503, "overloaded")
        assert split(raw(port, decision))[0] == 200
        wait_until = time.monotonic() + LIMIT_S
        while (answer := split(raw(port, beacon)))[0] == 503 and time.monotonic() < wait_until:
            time.sleep(0.2)
        assert answer[0] == 202


def test_an_address_has_a_share() -> None:
    """Of the places of strangers one address has a part, and bytes are counted as they are declared."""
    stall = BEACON_HEAD + b"Content-Length: 60000\r\n\r\n{"
    for limits, taken in (
        (RequestLimits(stranger_address_bodies_max=3), 3),
        (RequestLimits(stranger_bodies_max=4), 4),
        (RequestLimits(stranger_bytes_max=130_000), 2),
    ):
        with edge.served(front_door(limits)) as port, contextlib.ExitStack() as stack:
            for _ in range(taken):
                stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(stall)
            time.sleep(0.2)
            assert problem(raw(port, stall, patience=0.5)) == (503, "overloaded")
            assert split(raw(port, post(GOOD, JSON_TYPE, KEY)))[0] == 200


def test_the_oldest_newcomer_gives_way() -> None:
    """Beyond the bound the oldest connection without a key is cut off, once it has had its second."""
    now, cut = [0.0], []
    newcomers = Newcomers(lambda: now[0])
    for number in range(NEWCOMERS_MAX + 5):
        newcomers.add(number, lambda number=number: cut.append(number))  # type: ignore[misc]
    assert cut == [], "all came within a second"
    newcomers.discard(0)
    now[0] = 1.5
    for number in range(1000, 1003):
        newcomers.add(number, lambda: None)
    assert cut == [1, 2, 3]


def test_a_connection_with_a_key_stays(port: int) -> None:
    """A connection on which a key was shown is none of the newcomers, and outlives their flood."""
    with (
        more_files(2000),
        contextlib.ExitStack() as stack,
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as kept,
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as silent,
    ):
        kept.sendall(post(GOOD, JSON_TYPE, KEY, close=False))
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
        silent.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert silent.recv(65536).startswith(b"HTTP/1.1 200")
        time.sleep(NEWCOMER_SECONDS_MIN + 0.1)
        for _ in range(NEWCOMERS_MAX + 1):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        with contextlib.suppress(ConnectionError):
            assert silent.recv(1) == b""
        kept.sendall(post(GOOD, JSON_TYPE, KEY, close=False))
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
