"""Decisions of a running service: the wire forms that frontends use, over one connection, at the real clock."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from features.common.timestamps import now
from features.common.types import Decision, DecisionRequest, Event
from pipelines.world.port import DeciderRefused, Told

T = TypeVar("T")

DECISIONS, EVENTS = "/v1/decisions", "/v1/events"
TIMEOUT_SECONDS = 10.0
TRIES_MAX = 6
"""A call that a busy or restarting service does not take is repeated; events are the same events then."""
WAIT_SECONDS_MAX = 2.0
BUSY = (429, 503)
ANSWER_CHARACTERS_MAX = 300
"""Of an answer that was not expected, so many are shown."""


class _Events(msgspec.Struct, frozen=True):
    events: list[Event]


class _Dead(msgspec.Struct, frozen=True):
    code: str


class _Taken(msgspec.Struct, frozen=True):
    """What the service says of the events of one call."""

    accepted: int
    stored: int
    duplicates: int
    dead: int
    refused: list[_Dead] = []


class HttpPort:
    """Asks a service.

    Args:
        url: where it is: scheme, host, port, and a path before the routes, if there is one.
        key: of the roles decide and events, where the service wants keys.

    Raises:
        DeciderRefused: the address cannot be used.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise DeciderRefused(f"expected an address like http://127.0.0.1:3000, got {url}")
        self.told: Told | None = Told()
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
        self._base = parts.path.rstrip("/")
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def turn(self, moment: int) -> int:
        """The service keeps its own clock: the real one."""
        del moment
        return now()

    def decide(self, request: DecisionRequest) -> Decision:
        body = {name: value for name, value in msgspec.structs.asdict(request).items() if value}
        return self._decoded(DECISIONS, self._asked(DECISIONS, body, 200), Decision)

    def tell(self, events: Sequence[Event]) -> None:
        assert self.told is not None
        self.told.sent += len(events)
        taken = self._decoded(EVENTS, self._asked(EVENTS, _Events(list(events)), 202), _Taken)
        self.told.accepted += taken.accepted
        self.told.stored += taken.stored
        self.told.duplicates += taken.duplicates
        self.told.dead += taken.dead
        for one in taken.refused:
            self.told.reasons[one.code] = self.told.reasons.get(one.code, 0) + 1

    def _asked(self, path: str, body: object, expected: int) -> bytes:
        content = msgspec.json.encode(body)
        said = ""
        for attempt in range(TRIES_MAX):
            wait = min(0.1 * 2**attempt, WAIT_SECONDS_MAX)
            try:
                self._connection.request("POST", self._base + path, content, self._headers)
                answer = self._connection.getresponse()
                found = answer.read()
            except (OSError, http.client.HTTPException) as error:
                said = f"{type(error).__name__}: {error}"
                self._connection.close()
            else:
                if answer.status == expected:
                    return found
                said = f"{answer.status}: {found[:ANSWER_CHARACTERS_MAX].decode(errors='replace')}"
                if answer.status not in BUSY:
                    break
                after = answer.getheader("retry-after", "")
                wait = min(float(after), WAIT_SECONDS_MAX) if after.isdecimal() else wait
            if attempt + 1 < TRIES_MAX:
                time.sleep(wait)
        raise DeciderRefused(f"POST {self.name}{self._base}{path}: expected {expected}, got {said}")

    def _decoded(self, path: str, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.MsgspecError as error:
            raise DeciderRefused(
                f"POST {self.name}{self._base}{path}: expected an answer of this version, got another: {error}"
            ) from error

    def close(self) -> None:
        self._connection.close()
