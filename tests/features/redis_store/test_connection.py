"""The connection to Redis: wrong answers, passwords, databases, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import socketserver
import ssl
import threading
import time
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from features.columns.rows import OnlineEngine, StoreUnavailable
from features.common import clock
from features.online.engines import open_engine
from features.redis_store.connection import FAILURES_MAX
from features.redis_store.engine import RedisEngine
from tests.features.feast_fixtures import feast_store, view
from tests.features.redis_store.redis_cases import SHOP, arena, row, server
from tests.features.store_cases import Arena, same_as_sdk, write
from tests.stores import Server, find_server
from tests.waiting import ANSWER_S

__all__ = ["arena", "server"]

pytestmark = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")


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
