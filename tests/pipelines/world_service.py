"""A stand-in for a service, with which a run of a world talks over HTTP."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from features.common.types import Decision, DecisionRequest, Event, ModelStamp, RankedOffer
from pipelines.world.port import Told
from pipelines.world.settings import PLACEMENT
from serving.events.body import EventsBody
from serving.events.events import EventsAnswer, RefusedEvent


class Service(ThreadingHTTPServer):
    """A stand-in for the service: decides the first offers, takes events as the contract says, and is busy now and
    then.
    """

    daemon_threads = True

    def __init__(self, offers: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.offers, self.calls, self.keys = offers, 0, set[str | None]()
        self.bodies: dict[str, Event] = {}
        self.told, self.decided = Told(), 0
        self.lost_answers = 1

    def take(self, body: bytes) -> EventsAnswer:
        events, stored, duplicates, refused = msgspec.json.decode(body, type=EventsBody).events, 0, 0, []
        for at, event in enumerate(events):
            if event.type == "complaints":
                refused.append(RefusedEvent(at, "type-unknown", f"/events/{at}/type", "another"))
            elif event.event_id in self.bodies:
                assert self.bodies[event.event_id] == event
                duplicates += 1
            else:
                self.bodies[event.event_id] = event
                stored += 1
        return EventsAnswer(len(events), stored, duplicates, len(refused), tuple(refused))


class Handler(BaseHTTPRequestHandler):
    """One call."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write an answer: two would wait for the client's delayed acknowledgement
    server: Service

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        service, body = self.server, self.rfile.read(int(self.headers["content-length"]))
        service.calls += 1
        service.keys.add(self.headers["authorization"])
        if service.calls % 97 == 0:
            return self._answer(503, {"title": "busy"}, retry="0")
        if self.path == "/v1/events":
            answer = service.take(body)
            if service.lost_answers and service.calls > 50:
                service.lost_answers -= 1
                self.close_connection = True
                return None
            return self._answer(202, answer)
        if self.path != "/v1/decisions":
            return self._answer(404, {"title": "nothing here"})
        request = msgspec.json.decode(body, type=DecisionRequest)
        assert (
            request.unit and request.placement == PLACEMENT and set(request.context) == {"channel", "hour", "weekend"}
        )
        service.decided += 1
        offers = [RankedOffer(at + 1, offer, 0.1, 0.1, {}) for at, offer in enumerate(service.offers)]
        return self._answer(
            200,
            Decision(
                f"d-{service.decided}",
                request.customer_id,
                PLACEMENT,
                offers,
                ModelStamp("m", "1", "b"),
                ("slow",),
                4,
                "",
                "",
            ),
        )

    def _answer(self, status: int, content: object, retry: str = "") -> None:
        body = msgspec.json.encode(content)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if retry:
            self.send_header("retry-after", retry)
        self.end_headers()
        self.wfile.write(body)
