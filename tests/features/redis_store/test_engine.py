"""What only the Redis engine has to bear: late, lost and wrong answers, cancelled reads, passwords, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import random
import select
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from features.columns.rows import OnlineEngine, OnlineRow, StoreUnavailable
from features.common import clock
from features.online.engines import open_engine
from features.redis_store.address import Address
from features.redis_store.connection import FAILURES_MAX
from features.redis_store.engine import RedisEngine
from features.redis_store.routing import slot_of
from tests.features.feast_fixtures import feast_store, view
from tests.features.store_cases import Arena, same_as_sdk, write
from tests.stores import Server, find_server
from tests.waiting import ANSWER_S

pytestmark = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")

SHOP = view("shop", {"age": "number", "city": "category"}, {"by_group": ["spend"]})


def row(i: int) -> dict[str, object]:
    return {"age": float(i), "city": f"city {i}", "by_group__keys": [f"g{i}"], "by_group__spend": [float(i)]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("valkey")).start()
    yield found
    found.stop()


@pytest.fixture
def arena(tmp_path: Path, server: Server) -> Iterator[Arena]:
    found = Arena("redis", tmp_path, server)
    yield found
    found.close()


def test_a_stopped_server_costs_the_timeout_once(arena: Arena, server: Server) -> None:
    """While a server hangs, reads fail within the timeout, then at once; it is read again within two seconds of its
    return.
    """
    write(arena.store(SHOP), SHOP, [("1", row(1), 1.0)])
    engine = arena.engine(SHOP, timeout_ms=25)
    arena.recovers(engine)
    server.pause()
    try:
        times = []
        for _ in range(60):
            times.append(arena.unavailable(engine))
            arena.run(asyncio.sleep(0.01))
    finally:
        server.resume()
    assert max(times) < 0.15
    assert np.median(times[-20:]) < 0.005
    arena.recovers(engine)


def test_killed_and_restarted(tmp_path: Path) -> None:
    """A killed server is unavailable at once; one that comes back, with what Feast writes again, is read within two
    seconds.
    """
    server = Server(tmp_path / "valkey").start()
    arena = Arena("redis", tmp_path, server)
    try:
        write(arena.store(SHOP), SHOP, [("1", row(1), 1.0)])
        engine = arena.engine(SHOP, timeout_ms=25)
        arena.recovers(engine)
        server.kill()
        assert max(arena.unavailable(engine) for _ in range(30)) < ANSWER_S
        server.start()
        arena.recovers(engine, good=lambda row: not row.known)
        write(feast_store(tmp_path, arena.online, project=arena.project), SHOP, [("1", row(1), 1.0)])
        arena.recovers(engine)
    finally:
        arena.close()
        server.stop()


def test_answers_never_change_hands(arena: Arena, server: Server) -> None:
    """Thousands of reads at once, many cancelled, some late: each gets its own customer's row, or none."""
    write(arena.store(SHOP), SHOP, [(str(i), row(i), 1.0) for i in range(200)])
    engine = arena.engine(SHOP, timeout_ms=60)
    draw = random.Random(7)
    own, gone = 0, 0

    async def read(number: int, patience: float) -> None:
        nonlocal own, gone
        try:
            found: OnlineRow = await asyncio.wait_for(engine.read(str(number)), patience)
        except (StoreUnavailable, TimeoutError):
            gone += 1
            return
        assert found.numbers[0] == number
        assert engine.words.texts[int(found.numbers[1])] == f"city {number}"
        own += 1

    async def all_of_them() -> None:
        for turn in range(30):
            reading = asyncio.gather(
                *(read(draw.randrange(200), draw.choice([0.0005, 0.003, 1.0])) for _ in range(100))
            )
            if turn % 10 == 5:
                await asyncio.sleep(0)
                server.pause()
                await asyncio.sleep(0.08)
                server.resume()
            await reading
            await asyncio.sleep(0.02)

    arena.run(all_of_them())
    assert own + gone == 3_000
    assert own > 300
    assert gone > 100
    arena.recovers(engine)


def serve(answer: bytes, after: float = 0.0) -> asyncio.Future[asyncio.Server]:
    """A server that says PONG, and then the same to everything."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await asyncio.sleep(after if b"HMGET" in data else 0)
                writer.write(answer if b"HMGET" in data else b"+PONG\r\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    return asyncio.ensure_future(asyncio.start_server(talk, "127.0.0.1", 0))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"-LOADING Redis is loading\r\n",
        b"*1\r\n$1\r\nx\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"+OK\r\n+OK\r\n",
        b":1\r\n",
        b"*5\r\n$99",
    ],
)
def test_wrong_answers(answer: bytes) -> None:
    """Errors, other protocols, too much and too little are StoreUnavailable within the timeout, never a row."""

    async def reading() -> None:
        server = await serve(answer)
        engine = RedisEngine(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", (SHOP,), 50, "shop")
        for _ in range(FAILURES_MAX + 2):
            start = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await engine.read("1")
            assert time.monotonic() - start < ANSWER_S
        engine.close()
        await asyncio.sleep(0)
        server.close()

    asyncio.run(reading())


def test_damaged_values(arena: Arena, server: Server) -> None:
    """A value of another type is missing and counted; the rest of the row is read."""
    from features.redis_store.feast_format import entity_key, field_name

    write(arena.store(SHOP), SHOP, [("1", row(1), 1.0)])
    engine = arena.engine(SHOP)
    key = entity_key("customer_id", "1", arena.project).decode("utf-8", "strict")
    raw = field_name("shop", "age")
    import redis

    client = redis.Redis(port=server.port)
    assert client.hset(key, raw, b"not a number") == 0  # it was there
    found = arena.read(engine, "1")
    assert np.isnan(found.numbers[0])
    assert engine.words.texts[int(found.numbers[1])] == "city 1"
    assert engine.damaged == 1
    client.hset(key, "_ts:shop", b"\xff")
    assert not arena.read(engine, "1").known
    client.delete(key)
    client.set(key, "a string")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        arena.read(engine, "1")
    client.delete(key)
    client.close()


def test_password_and_database(tmp_path: Path) -> None:
    """User, password and database of the URL are used; a wrong password says so."""
    server = Server(tmp_path / "valkey", "--requirepass", "p@ss word").start()
    arena = Arena("redis", tmp_path, server)
    try:
        online = {"type": "redis", "connection_string": f"127.0.0.1:{server.port},db=3,password=p@ss word"}
        store = feast_store(tmp_path, online, (SHOP,), project=arena.project)
        write(store, SHOP, [("1", row(1), 1.0)])
        for url, known in (
            (f"redis://default:p%40ss%20word@127.0.0.1:{server.port}/3", True),
            (f"valkey://:p%40ss%20word@127.0.0.1:{server.port}", False),
        ):
            engine = open_engine(url, tmp_path, (SHOP,), 2_000, arena.project)
            assert arena.read(engine, "1").known == known
            engine.close()
        for url in (f"redis://:wrong@127.0.0.1:{server.port}", f"redis://127.0.0.1:{server.port}"):
            engine = open_engine(url, tmp_path, (SHOP,), 200, arena.project)
            arena.unavailable(engine)
            with pytest.raises(StoreUnavailable, match=r"refused|WRONGPASS|NOAUTH"):
                arena.read(engine, "1")
            engine.close()
    finally:
        arena.close()
        server.stop()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgres://h", "expected redis://"),
        ("redis://", "expected host:port"),
        ("redis://h:port", "expected host:port"),
        ("redis://h/x", "database number"),
        ("redis+cluster://h:1,g:2/1", "0 with a cluster"),
        ("redis://h?retries=3", "unknown option 'retries'"),
    ],
)
def test_urls_that_say_nothing(url: str, message: str) -> None:
    """A URL that is not understood says what was expected."""
    with pytest.raises(ValueError, match=message):
        open_engine(url, Path(), (SHOP,), 25, "shop")


def test_urls() -> None:
    """Hosts, ports, IPv6, credentials, databases and clusters are read from the URL."""
    assert Address.parse("redis://h").nodes == (("h", 6379),)
    assert Address.parse("redis://u:p%2F@[::1]:7/2") == Address((("::1", 7),), False, "u", "p/", 2, None)
    assert Address.parse("rediss+cluster://a:1,b,c:3").nodes == (("a", 1), ("b", 6379), ("c", 3))
    assert Address.parse("rediss://h").tls is not None


def test_slots() -> None:
    """The examples of the Redis Cluster specification."""
    assert slot_of(b"123456789") == 0x31C3
    assert slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers") == slot_of(b"user1000")
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")


class TlsDoor:
    """Takes TLS connections and passes what they say on to a server that knows no TLS; in threads of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.certificate = folder / "certificate.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self._make(folder))
        closing = self._closing = threading.Event()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.settimeout(5)
                with (
                    contextlib.suppress(OSError),
                    context.wrap_socket(self.request, server_side=True) as front,
                    socket.create_connection(("127.0.0.1", port)) as back,
                ):
                    while not closing.is_set():
                        ready = [front] if front.pending() else select.select([front, back], [], [], 0.1)[0]
                        for source, target in ((front, back), (back, front)):
                            if source in ready:
                                data = source.recv(65_536)
                                if not data:
                                    return
                                target.sendall(data)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _make(self, folder: Path) -> Path:
        """A key and its own certificate, for 127.0.0.1; the key's file."""
        key, name = (
            ec.generate_private_key(ec.SECP256R1()),
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")]),
        )
        now = clock.now()
        made = (
            x509.CertificateBuilder(
                name, name, key.public_key(), x509.random_serial_number(), now - timedelta(1), now + timedelta(1)
            )
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.certificate.write_bytes(made.public_bytes(Encoding.PEM))
        file = folder / "key.pem"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return file

    def close(self) -> None:
        """Ends all connections."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.mark.parametrize("near_cache_rows", [0, 10])
def test_tls(arena: Arena, server: Server, tmp_path: Path, near_cache_rows: int) -> None:
    """`rediss://` is read over TLS, with a certificate that is checked: against the URL's authority and host, unless it
    says no.
    """
    everyone = view("everyone_shop", {}, {"by_group": ["spend"]}, entity="everyone")
    store = arena.store(SHOP, everyone)
    write(store, SHOP, [("1", row(1), 1.0)])
    write(store, everyone, [("*", {"by_group__keys": ["g1"], "by_group__spend": [1.0]}, 1.0)])
    door = TlsDoor(tmp_path, server.port)

    def engine(host: str, scheme: str, options: str, timeout_ms: float = 300) -> OnlineEngine:
        views, url = (SHOP, everyone), f"{scheme}://{host}:{door.port}{options}"
        arena.engines.append(
            open_engine(url, tmp_path, views, timeout_ms, arena.project, near_cache_rows=near_cache_rows)
        )
        return arena.engines[-1]

    authority = f"?ssl_ca_certs={door.certificate}"
    try:
        for host, options in (
            ("127.0.0.1", authority),
            ("localhost", f"{authority}&ssl_check_hostname=false"),
            ("localhost", "?ssl_cert_reqs=none"),
        ):
            good = engine(host, "rediss", options, 2_000)
            same_as_sdk(good, arena.read(good, "1"), store, (SHOP,), "1")
            same_as_sdk(good, good.everyone(), store, (everyone,), "*")
        for host, scheme, options, why in (
            ("127.0.0.1", "valkeys", "", "CERTIFICATE_VERIFY_FAILED"),
            ("localhost", "rediss", authority, "CERTIFICATE_VERIFY_FAILED"),
        ):
            bad = engine(host, scheme, options)
            arena.unavailable(bad)
            with pytest.raises(StoreUnavailable, match=why):
                arena.read(bad, "1")
            with pytest.raises(StoreUnavailable, match=why):
                bad.everyone()
        plain = engine("127.0.0.1", "redis", "")
        arena.unavailable(plain)
    finally:
        for opened in arena.engines:
            opened.close()
        arena.run(asyncio.sleep(0.05))  # what is not closed by then costs the door's time limit
        door.close()
