"""What the head of a request must say before anything else of it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from serving.http import content_types, problems
from serving.http.auth import Caller, Keys, is_loopback
from serving.http.problems import Headers
from serving.http.routing import BEACON_BYTES_MAX, Route, Scope

REMEMBERED_MAX = 256
REMEMBERED_BYTES_MAX = 256

# Which of two values counts would be a guess, and another reader may guess differently.
_ONCE_ONLY = frozenset(
    {
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"transfer-encoding",
        b"authorization",
        b"x-api-key",
    }
)
_LISTS = frozenset((b"accept", b"if-none-match"))

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """What one request, and one worker, may take."""

    uri_bytes_max: int = 8 * 1024
    header_bytes_max: int = 16 * 1024
    header_fields_max: int = 100
    body_seconds_max: float = 10.0
    in_flight_max: int = 256
    receiving_max: int = 1024
    stranger_bodies_max: int = 256
    """Bodies under way of those who have shown no valid key: beacons, whose key is in the body."""
    stranger_address_bodies_max: int = 128
    """Of these, from one address."""
    stranger_bytes_max: int = 8 * 1024 * 1024
    """Of these, as declared; a body without a declared length counts with the most that it may have."""
    stranger_seconds_max: float = 5.0


NEWCOMERS_MAX = 512
"""Connections of a worker on which no valid key was shown yet, beyond which the oldest are closed."""
NEWCOMER_SECONDS_MIN = 1.0
"""Which each of them has in any case: many callers may come back at once."""
SHOWN = "opportune.shown"
"""Where a scope has what is to be called as soon as its connection has shown a valid key; absent once it has."""


class Newcomers:
    """Connections that have shown nothing yet, in the order in which they came, with what cuts each off."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._waiting: dict[object, tuple[float, Callable[[], object]]] = {}

    def add(self, connection: object, abort: Callable[[], object]) -> None:
        """Take one more, and cut off the oldest if there are too many."""
        now = self._clock()
        self._waiting[connection] = now, abort
        if len(self._waiting) > NEWCOMERS_MAX:
            oldest = next(iter(self._waiting))
            since, end = self._waiting[oldest]
            if now - since > NEWCOMER_SECONDS_MIN:
                del self._waiting[oldest]
                end()

    def discard(self, connection: object) -> None:
        """Forget one that has shown a key, or is closed."""
        self._waiting.pop(connection, None)


class Admission:
    """Refuses by the head alone, in a fixed order; the answers to parsed header values are remembered."""

    def __init__(self, keys: Keys, limits: RequestLimits) -> None:
        self._keys, self._limits = keys, limits
        self._content_types: dict[bytes, bool] = {}
        self._beacons: dict[bytes, bool] = {}
        self._accepts: dict[tuple[bytes, bytes], bool] = {}
        self._local_hosts: dict[bytes, bool] = {}

    def check_form(self, scope: Scope, headers: Headers, fields: dict[bytes, bytes]) -> None:
        """Sizes and framing. `fields` is `dict(headers)`; a list-valued field that came in parts is put together in
        it.
        """
        limits = self._limits
        if len(scope["raw_path"]) + len(scope["query_string"]) > limits.uri_bytes_max:
            raise problems.UriTooLong()
        repeated = len(fields) != len(headers)
        if repeated:
            size = sum(len(name) + len(value) for name, value in headers)
        else:
            size = len(b"".join(fields)) + len(b"".join(fields.values()))
        if size > limits.header_bytes_max or len(headers) > limits.header_fields_max:
            raise problems.HeadersTooLarge()
        if repeated:
            names = [name for name, _ in headers]
            if any(names.count(name) > 1 for name in _ONCE_ONLY.intersection(fields)):
                raise problems.Malformed()
            for listed in _LISTS.intersection(fields):
                fields[listed] = b",".join(value for name, value in headers if name == listed)
        version = scope["http_version"]
        if (version != "1.1" and version != "1.0") or (b"host" not in fields and version != "1.0"):
            raise problems.Malformed()

    def is_beacon(self, route: Route, fields: dict[bytes, bytes]) -> bool:
        """Return whether the body comes as a browser's beacon, to a route that takes those."""
        content_type = fields.get(b"content-type", b"") if route.beacon is not None else b""
        fit = self._beacons.get(content_type)
        return (
            _remember(self._beacons, content_type, content_types.is_beacon(content_type), len(content_type))
            if fit is None
            else fit
        )

    def admit(self, route: Route, scope: Scope, fields: dict[bytes, bytes], *, beacon: bool = False) -> Caller | None:
        """Return who calls; None where the route is open or there are no keys, and for a beacon whose key is in its
        body: see `admit_body`.
        """
        if not self._keys.configured:
            self._require_local(scope, fields)
            if beacon:
                _require_local_page(fields)
            return None
        if not route.roles or (beacon and b"authorization" not in fields and b"x-api-key" not in fields):
            return None
        return _allowed(route, self._keys.caller(fields.get(b"authorization"), fields.get(b"x-api-key")))

    def admit_body(self, route: Route, body: bytes) -> Caller | None:
        """Return who sends a beacon, by the `key` at the top of its body; None where there are no keys."""
        if not self._keys.configured or not route.roles:
            return None
        try:
            key = _carried(body).key.encode()
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            key = b""
        return _allowed(route, self._keys.caller(None, key or None))

    def check_content(
        self, route: Route, media_type: bytes, fields: dict[bytes, bytes], *, beacon: bool = False
    ) -> None:
        """Encoding, type, acceptance and declared length."""
        if route.takes_body:
            if fields.get(b"content-encoding", b"identity").lower() != b"identity":
                raise problems.ContentEncoding()
            content_type = fields.get(b"content-type", b"")
            fit = self._content_types.get(content_type)
            if fit is None:
                fit = _remember(
                    self._content_types, content_type, content_types.is_json(content_type), len(content_type)
                )
            if not fit and not beacon:
                raise problems.MediaType()
        accept = fields.get(b"accept")
        if accept is not None and accept != b"*/*":
            wish = (accept, media_type)
            fit = self._accepts.get(wish)
            if fit is None:
                fit = _remember(self._accepts, wish, content_types.accepts(accept, media_type), len(accept))
            if not fit:
                raise problems.NotAcceptable()
        length = fields.get(b"content-length")
        if length is not None and int(length) > (body_bytes_max(route, beacon) if route.takes_body else 0):
            raise problems.BodyTooLarge()
        if not route.takes_body and b"transfer-encoding" in fields:
            raise problems.BodyTooLarge()

    def _require_local(self, scope: Scope, fields: dict[bytes, bytes]) -> None:
        """Without keys: this machine only, and no web page whose own name was made to point at this machine."""
        server = scope.get("server")
        if server is not None and server[1] is not None and server[0] != "127.0.0.1" and not is_loopback(server[0]):
            raise problems.HostNotLocal()
        host = fields.get(b"host", b"localhost")
        fit = self._local_hosts.get(host)
        if fit is None:
            text = host.decode("latin-1").lower()
            name, colon, port = text.rpartition(":")
            fit = _remember(self._local_hosts, host, is_loopback(name if colon and port.isdigit() else text), len(host))
        if not fit:
            raise problems.HostNotLocal()


def body_bytes_max(route: Route, beacon: bool) -> int:
    """Return how large a body may be."""
    return min(route.body_bytes_max, BEACON_BYTES_MAX) if beacon else route.body_bytes_max


class _Carried(msgspec.Struct):
    key: str = ""


_carried = msgspec.json.Decoder(_Carried).decode


def _allowed(route: Route, caller: Caller) -> Caller:
    if caller.roles.isdisjoint(route.roles):
        raise problems.Forbidden()
    return caller


def _require_local_page(fields: dict[bytes, bytes]) -> None:
    """A page that sends a beacon says whose it is; what says nothing is no browser."""
    origin, site = fields.get(b"origin"), fields.get(b"sec-fetch-site", b"none")
    if origin is None:
        if site not in (b"none", b"same-origin"):
            raise problems.OriginNotLocal()
        return
    try:
        host = urlsplit(origin.decode("latin-1")).hostname or ""
    except ValueError:
        host = ""
    if not is_loopback(host):
        raise problems.OriginNotLocal()


def _remember(memory: dict[K, bool], key: K, fit: bool, size: int) -> bool:
    """Bounded: beyond that the value is read again each time."""
    if size <= REMEMBERED_BYTES_MAX and len(memory) < REMEMBERED_MAX:
        memory[key] = fit
    return fit
