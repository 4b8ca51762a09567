"""The route table: every path that can be reached, who may call it, what it takes and what it answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_to_bytes

from serving.http.auth import Caller, Role
from serving.http.problems import Headers, Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_BYTES_MAX = 64 * 1024
EVENTS_BODY_BYTES_MAX = 1024 * 1024
BEACON_BYTES_MAX = 64 * 1024
"""What browsers let a page send with `navigator.sendBeacon`."""

JSON, TEXT = "application/json", "text/plain"
NO_CONTENT, NOT_MODIFIED = 204, 304
JSON_HEADERS: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
"""The header fields of an ordinary answer, made once."""


METHODS = ("GET", "POST", "DELETE", "OPTIONS")
"""Of routes. OPTIONS are the front door's own: see `serving/http/cors.py`."""
ADMINISTRATORS: frozenset[Role] = frozenset(("admin",))
"""The roles of what no web page calls."""

NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
_PARAMETER = re.compile(r"\{([a-z_]+)\}")


class Call:
    """What a handler may know of a request besides its body."""

    __slots__ = ("beacon", "caller", "fields", "parameters", "request_id", "scope")

    def __init__(
        self,
        request_id: bytes,
        caller: Caller | None,
        fields: Mapping[bytes, bytes],
        scope: Scope,
        *,
        beacon: bool = False,
    ) -> None:
        self.request_id, self.beacon = request_id, beacon
        self.caller = caller
        """None where the route is open or no keys are configured."""
        self.fields = fields
        """Header fields by name in lower case."""
        self.scope = scope
        """The ASGI scope, for what is rarely needed."""
        self.parameters: Mapping[str, str] = NO_PARAMETERS
        """What stands in the path in place of `{name}`, as it came: the handler checks it."""


Answer = tuple[int, Headers, bytes, Sequence[int]]
"""Status; header fields without content-length and x-request-id; body; nanoseconds of each of the route's stages."""

Handler = Callable[[bytes, Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """How the problems of a route are answered where a protocol of others has a form of its own for them."""

    form: type
    """The struct of the body, for the contract."""
    status: Callable[[type[Problem]], int]
    render: Callable[[Problem, bytes], bytes]
    """The body, of the problem and the request's path, as JSON; empty: none."""
    empty: frozenset[int] = frozenset()
    """Statuses without a body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path. Without a handler the inner application answers, behind the same limits."""

    method: str
    path: str
    name: str
    """The metrics' label and the operation's id."""
    summary: str
    roles: frozenset[Role] = frozenset()
    """A caller needs one of them; an open route has none."""
    handler: Handler | None = None
    request: type | None = None
    """The struct that the body is decoded as, for the contract; None where there is no body."""
    response: type | None = None
    media_type: str = JSON
    body_bytes_max: int = BODY_BYTES_MAX
    open_ended: bool = False
    """Whether the last parameter takes all that is left of the path, slashes and percent-escapes included, as it came.
    """
    beacon: type | None = None
    """The struct of a body that may also come as text/plain, with the key in it: browsers send that unasked when a page
    is left.
    """
    stages: tuple[str, ...] = ()
    """Names of the durations that the handler returns, for Server-Timing and the metrics."""
    statuses: Mapping[int, str] | None = None
    """Successful statuses and what they say; 200 by default."""
    problems: tuple[type[Problem], ...] = ()
    """What the handler itself may raise, beyond what the front door and the decoder raise anywhere."""
    refusal: Refusal | None = None
    """None: problems are answered as RFC 9457 says."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or self.path != self.path.strip() or "%" in self.path or "?" in self.path:
            raise ValueError(
                f"route {self.name}: expected an absolute path without escapes and query, came {self.path!r}"
            )
        if self.method not in METHODS:
            raise ValueError(f"route {self.name}: expected DELETE, GET or POST, came {self.method!r}")

    @property
    def takes_body(self) -> bool:
        return self.method == "POST"

    @property
    def parameters(self) -> list[str]:
        """Return the names of the segments `{name}` of the path, each any one segment."""
        return _PARAMETER.findall(self.path)


class Patterns:
    """Paths with parameters, compared segment by segment; most requests never come here.

    Args:
        open_ended: those of the paths whose last parameter takes all that is left.
    """

    def __init__(self, paths: Iterable[str], open_ended: Container[str] = ()) -> None:
        self._paths = [
            (path.encode(), [self._segment(one) for one in path.split("/")], path in open_ended)
            for path in paths
            if _PARAMETER.search(path)
        ]

    @staticmethod
    def _segment(text: str) -> tuple[bytes, str]:
        """Return what a segment must be, or the name of the parameter that it is."""
        found = _PARAMETER.fullmatch(text)
        return (b"", found[1]) if found else (text.encode("ascii"), "")

    def find(self, path: bytes) -> tuple[bytes, dict[str, str]] | None:
        """Return the path of the table that a request's path fits, and its parameters, or None where it fits none.

        What the table names is compared byte by byte. In a parameter percent-escapes stand for bytes, as clients write
        `a@b` as `a%40b`; the last one of an open-ended path is left as it came.
        """
        split = path.split(b"/")
        for whole, segments, open_ended in self._paths:
            last = len(segments) - 1
            came = [*split[:last], b"/".join(split[last:])] if open_ended and len(split) > last else split
            if len(segments) == len(came) and all(
                one or open_ended if name else one == wanted for (wanted, name), one in zip(segments, came, strict=True)
            ):
                return whole, _named(
                    segments, came if open_ended or b"%" not in path else [unquote_to_bytes(one) for one in came]
                )
        return None


def _named(segments: list[tuple[bytes, str]], came: list[bytes]) -> dict[str, str]:
    return {name: one.decode("latin-1") for (_, name), one in zip(segments, came, strict=True) if name}


def check_table(routes: Sequence[Route]) -> None:
    """Refuses a table in which a name or a method on a path occurs twice."""
    for what in ("name", "method and path"):
        seen = [route.name if what == "name" else f"{route.method} {route.path}" for route in routes]
        if twice := {one for one in seen if seen.count(one) > 1}:
            raise ValueError(f"route table: expected each {what} once, came {sorted(twice)} twice")
