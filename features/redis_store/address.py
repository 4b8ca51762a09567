"""Where a Redis or Valkey is: its URL taken apart, and one blocking exchange with it.

    redis://[user[:password]@]host[:port][/db]      rediss:// with TLS; valkey:// and valkeys:// mean the same
    redis+cluster://[…@]host:port,host:port,…       rediss+cluster:// with TLS

TLS options are redis-py's:
`?ssl_ca_certs=FILE&ssl_certfile=FILE&ssl_keyfile=FILE&ssl_cert_reqs=none&ssl_check_hostname=false`.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

import hiredis

from features.columns.rows import StoreUnavailable

PORT_DEFAULT = 6379
SCHEMES = (
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+cluster",
    "rediss+cluster",
    "valkey+cluster",
    "valkeys+cluster",
)
REDIRECTIONS_MAX = 3

Node = tuple[str, int]
"""Host and port."""

_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")


@dataclass(frozen=True)
class Address:
    """A server, or the nodes that a cluster is first met at."""

    nodes: tuple[Node, ...]
    cluster: bool
    username: str
    password: str
    db: int
    tls: ssl.SSLContext | None

    @staticmethod
    def parse(url: str) -> Address:
        """Raises ValueError with what was expected; never shows the password."""
        parts = urlsplit(url)
        if parts.scheme not in SCHEMES:
            raise ValueError(
                f"expected a URL that starts with one of {', '.join(SCHEMES)}, got the scheme {parts.scheme!r}"
            )
        kind, _, suffix = parts.scheme.partition("+")
        credentials, _, hosts = parts.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        cluster = suffix == "cluster"
        db = parts.path.strip("/") or "0"
        if not db.isdigit() or (cluster and db != "0"):
            raise ValueError(f"expected a database number after the host (0 with a cluster), got {db!r}")
        return Address(
            nodes=tuple(_node(host) for host in hosts.split(",")),
            cluster=cluster,
            username=unquote(username),
            password=unquote(password),
            db=int(db),
            tls=_tls(dict(parse_qsl(parts.query)), kind in ("rediss", "valkeys")),
        )

    def greeting(self) -> list[bytes]:
        """Return what a new connection sends first; each must be answered without an error."""
        commands = []
        if self.password:
            credentials = (self.username, self.password) if self.username else (self.password,)
            commands.append(command("AUTH", *credentials))
        if self.db:
            commands.append(command("SELECT", self.db))
        commands.append(command("PING"))
        return commands

    @staticmethod
    def tracking() -> list[bytes]:
        """Return what a connection sends after its greeting to be told of changes; a server may refuse it."""
        return [command("HELLO", 3), command("CLIENT", "TRACKING", "ON")]

    def ask(self, payload: bytes, timeout_seconds: float) -> object:
        """Send one command on a connection of its own, blocking; follows a cluster's redirections.

        Raises:
            StoreUnavailable: when no node answers within the time, or one answers with an error.
        """
        last = ""
        for node in self.nodes:
            try:
                for _ in range(REDIRECTIONS_MAX):
                    reply = self._exchange(node, payload, timeout_seconds)
                    if not isinstance(reply, hiredis.ReplyError):
                        return reply
                    moved = moved_to(reply, node)
                    if moved is None:
                        raise StoreUnavailable(f"the online store answered: {reply}")
                    node = moved[1]
            except (OSError, hiredis.HiredisError) as error:
                last = str(error)
        raise StoreUnavailable(f"the online store did not answer: {last or 'too many redirections'}")

    def _exchange(self, node: Node, payload: bytes, timeout_seconds: float) -> object:
        with socket.create_connection(node, timeout_seconds) as plain:
            connection = self.tls.wrap_socket(plain, server_hostname=node[0]) if self.tls else plain
            with connection:
                greeting = self.greeting()
                connection.sendall(b"".join(greeting) + payload)
                reader = hiredis.Reader(notEnoughData=_NOT_YET)
                for answers in range(len(greeting) + 1):
                    while (reply := reader.gets()) is _NOT_YET:
                        data = connection.recv(1 << 16)
                        if not data:
                            raise ConnectionResetError("the connection was closed")
                        reader.feed(data)
                    if isinstance(reply, hiredis.ReplyError) and answers < len(greeting):
                        raise StoreUnavailable(f"the online store refused the connection: {reply}")
                return reply


_NOT_YET = object()


def command(*arguments: str | int | bytes) -> bytes:
    """Return a command in Redis' protocol."""
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # its stub knows one argument only
    return packed


def moved_to(error: hiredis.ReplyError, asked: Node) -> tuple[int, Node] | None:
    """Slot and node of a cluster's redirection; None when the error is another one."""
    words = str(error).split()
    if len(words) != 3 or words[0] not in ("MOVED", "ASK"):
        return None
    host, _, port = words[2].rpartition(":")
    return int(words[1]), (host or asked[0], int(port))


def _node(text: str) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise ValueError(f"expected host:port, got {text!r}")
    return host, port or PORT_DEFAULT


def _tls(options: dict[str, str], wanted: bool) -> ssl.SSLContext | None:
    unknown = [name for name in options if name not in _TLS_OPTIONS]
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r} in the URL; known are {', '.join(_TLS_OPTIONS)}")
    if not wanted:
        return None
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    if options.get("ssl_check_hostname", "true").lower() == "false":
        context.check_hostname = False
    if options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
