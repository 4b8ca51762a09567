"""The front door: an ASGI application that lets through what the route table names, within limits, and nothing else.

Order of a refusal: length of target and headers, path, method, host, key, role, load, encoding, type, acceptance,
declared length; then the body, counted and timed while it arrives. Handlers see whole bodies only.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import traceback
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter_ns

from serving.http import problems
from serving.http.admission import SHOWN, Admission, RequestLimits, body_bytes_max
from serving.http.auth import Keys
from serving.http.body import BodyReader, Disconnected, StrangerBodies
from serving.http.bound_route import BoundRoute
from serving.http.cors import Origins
from serving.http.health import standard_routes
from serving.http.heartbeat import Heartbeat
from serving.http.passthrough import ask
from serving.http.problems import Headers, Problem
from serving.http.routing import (
    ADMINISTRATORS,
    JSON,
    NO_CONTENT,
    NOT_MODIFIED,
    Answer,
    AsgiApp,
    Call,
    Handler,
    Patterns,
    Receive,
    Route,
    Scope,
    Send,
    check_table,
)
from serving.http.strict_json import StrictDecoder
from serving.runtime.drain import drain_before_stop
from serving.runtime.metrics import Metrics

logger = logging.getLogger("opportune.lane")

UNREAD_BYTES_MAX = 64 * 1024
REQUEST_ID_BYTES_MAX = 64

_CLOSE = (b"connection", b"close")
_OTHER, _PREFLIGHT = "other", "preflight"
_WITHOUT_LENGTH = frozenset((NO_CONTENT, NOT_MODIFIED))
"""Statuses whose length would be that of what is not sent (RFC 9110, 8.6)."""


class FrontDoor:
    """Serves `routes` and the standard ones (/livez, /readyz, /metrics, /openapi.json).

    Declare all metrics before `metrics.attach`, and make the front door before it too: it declares its own.

    Args:
        ready: returns None when this worker may be asked, else a public text that says why not.
        inner: the application that answers routes without a handler.
        drain_seconds: how long SIGTERM drains before the server stops; needs the main thread.
        origins: whose pages may call all routes but those of administrators.
        document: returns the document of a route table, for /openapi.json; without one there is no such route.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        keys: Keys,
        limits: RequestLimits | None = None,
        metrics: Metrics | None = None,
        *,
        ready: Callable[[], str | None] = lambda: None,
        inner: AsgiApp | None = None,
        drain_seconds: float = 0.0,
        origins: Origins | None = None,
        document: Callable[[Sequence[Route]], Awaitable[bytes]] | None = None,
    ) -> None:
        self.origins = origins
        self.keys, self.limits, self.metrics, self.inner = keys, limits or RequestLimits(), metrics or Metrics(), inner
        self.draining, self._drain_seconds = False, drain_seconds
        self.in_flight = 0
        self.routes = (*routes, *standard_routes(routes, self.metrics, ready, lambda: self.draining, document))
        check_table(self.routes)
        self._gate, self._bodies = Admission(keys, self.limits), BodyReader(self.limits.body_seconds_max)
        self._strangers = StrangerBodies(self.limits)
        self._id_prefix, self._id_count = secrets.token_hex(5).encode(), itertools.count(1)
        self._declare_metrics()
        self._heartbeat = Heartbeat(keys, self._lag, self._on_beat)
        self._table: dict[bytes, dict[str, BoundRoute]] = {}
        for route in self.routes:
            handler = route.handler or self._pass_through(route)
            slots = {status: self._requests.slot(route.name, str(status)) for status in self._statuses}
            bound = BoundRoute(
                route, handler, slots, self._seconds, self._stages, None if route.roles == ADMINISTRATORS else origins
            )
            methods = self._table.setdefault(route.path.encode("ascii"), {})
            for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
                methods[method] = bound
        if origins is not None:
            self._permit(origins)
        open_ended = {route.path for route in self.routes if route.open_ended}
        self._patterns = Patterns((route.path for route in self.routes), open_ended)

    def _permit(self, origins: Origins) -> None:
        """Browsers ask before they send what a plain form could not (a preflight): with OPTIONS, and without a key."""
        slots = {status: self._requests.slot(_PREFLIGHT, str(status)) for status in self._statuses}
        for path, methods in self._table.items():
            permitted = [method for method, bound in methods.items() if bound.origins is not None]
            if not permitted:
                continue

            async def handler(_: bytes, call: Call, permitted: list[str] = permitted) -> Answer:
                return NO_CONTENT, origins.permission(permitted, call.fields.get(b"origin")), b"", ()

            route = Route(method="OPTIONS", path=path.decode(), name=_PREFLIGHT, summary="", handler=handler)
            methods["OPTIONS"] = BoundRoute(route, handler, slots, self._seconds, self._stages, origins)

    def _declare_metrics(self) -> None:
        names, metrics = (
            [*(route.name for route in self.routes), *([_PREFLIGHT] if self.origins else []), _OTHER],
            self.metrics,
        )
        known = {kind.status for kind in problems.catalogue().values()} | {200, 201, 202, 204}
        known.update(status for route in self.routes for status in route.statuses or ())
        self._statuses = sorted(known)
        labels = [*map(str, self._statuses), _OTHER]
        self._requests = metrics.counter("opportune_requests_total", "Answered requests.", route=names, status=labels)
        self._problems = metrics.counter("opportune_problems_total", "Answered problems.", slug=problems.catalogue())
        self._left = metrics.counter("opportune_disconnects_total", "Clients that left before their body was complete.")
        self._seconds = metrics.histogram(
            "opportune_request_seconds", "From the head of the request to the answer, successes only.", route=names
        )
        stages = [f"{route.name}:{stage}" for route in self.routes for stage in route.stages]
        self._stages = metrics.histogram(
            "opportune_stage_seconds", "Stages within a request, as route:stage.", stage=stages
        )
        self._lag = metrics.histogram("opportune_loop_lag_seconds", "How late the event loop wakes a timer.")
        self._gauge = metrics.gauge("opportune_in_flight", "Requests being answered now.")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._aside(scope, receive, send)
            return
        started = perf_counter_ns()
        headers: Headers = scope["headers"]
        fields = dict(headers)
        given = fields.get(b"x-request-id")
        if given is not None and len(given) <= REQUEST_ID_BYTES_MAX and given.translate(None, b"-_.").isalnum():
            request_id = given
        else:
            request_id = b"%s-%x" % (self._id_prefix, next(self._id_count))
        bound, unread = None, True
        try:
            self._gate.check_form(scope, headers, fields)
            bound, parameters = self._find(scope)
            route = bound.route
            beacon = route.beacon is not None and self._gate.is_beacon(route, fields)
            call = Call(request_id, self._gate.admit(route, scope, fields, beacon=beacon), fields, scope, beacon=beacon)
            if SHOWN in scope and (call.caller is not None or not self.keys.configured):
                scope[SHOWN]()
            if parameters:
                call.parameters = parameters
            if route.roles:
                self._check_load()
            self._gate.check_content(route, bound.media_type, fields, beacon=beacon)
            if beacon and call.caller is None and self.keys.configured:
                length, size = fields.get(b"content-length"), body_bytes_max(route, beacon)
                body = await self._strangers.read(receive, size, started, scope, length)
                unread = False  # also where the key is refused
                call.caller = self._gate.admit_body(route, body)
                if SHOWN in scope:
                    scope[SHOWN]()
            elif bound.takes_body:
                body = await self._bodies.read(receive, body_bytes_max(route, beacon), started)
            else:
                body = b""
            unread = False
            self.in_flight += 1
            try:
                status, extra, answer, stages = await bound.handler(body, call)
            finally:
                self.in_flight -= 1
        except Problem as problem:
            await self._refuse(problem, bound, request_id, scope, fields, unread, send)
            return
        except Disconnected:
            self._left.add()
            logger.info("client left before its body was complete")
            return
        except Exception as failure:  # noqa: BLE001 (the edge of the process: nothing may pass unanswered)
            _log(failure, request_id)
            await self._refuse(problems.Internal(), bound, request_id, scope, fields, unread, send)
            return
        sent = [*extra, (b"x-request-id", request_id)]
        if bound.origins is not None:
            sent += bound.origins.tails.get(fields.get(b"origin"), bound.origins.otherwise)
        if status not in _WITHOUT_LENGTH:
            sent.append((b"content-length", b"%d" % len(answer)))
        if stages:
            sent.append((b"server-timing", bound.timing % tuple([stage * 1e-6 for stage in stages])))
            for slot, stage in zip(bound.stage_slots, stages, strict=True):
                self._stages.observe(stage, slot)
        if self.draining:
            sent.append(_CLOSE)
        self._seconds.observe(perf_counter_ns() - started, bound.seconds_slot)
        status_slot = bound.status_slots.get(status)
        self._requests.add_at(self._requests.slot(bound.route.name, _OTHER) if status_slot is None else status_slot)
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": answer})

    def _find(self, scope: Scope) -> tuple[BoundRoute, dict[str, str] | None]:
        """Return the route of a request, and the parameters of its path where it has any."""
        methods, parameters = self._table.get(scope["raw_path"]), None
        if methods is None:
            fitting = self._patterns.find(scope["raw_path"])
            if fitting is None:
                raise problems.NotFound()
            methods, parameters = self._table[fitting[0]], fitting[1]
        bound = methods.get(scope["method"])
        if bound is None:
            raise problems.MethodNotAllowed(headers=((b"allow", ", ".join(sorted(methods)).encode()),))
        return bound, parameters

    def _check_load(self) -> None:
        if self.in_flight >= self.limits.in_flight_max or len(self._bodies) >= self.limits.receiving_max:
            raise problems.Overloaded()

    async def _refuse(
        self,
        problem: Problem,
        bound: BoundRoute | None,
        request_id: bytes,
        scope: Scope,
        fields: dict[bytes, bytes],
        unread: bool,
        send: Send,
    ) -> None:
        self._problems.add(problem.slug)
        refusal = None if bound is None else bound.route.refusal
        if refusal is None:
            status, body, media_type = problem.status, problems.document(problem, request_id), problems.MEDIA_TYPE
        else:
            status, body, media_type = refusal.status(type(problem)), refusal.render(problem, scope["raw_path"]), JSON
        self._requests.add(bound.route.name if bound else _OTHER, str(status))
        headers = problems.headers(problem, body, request_id, media_type)
        origins = self.origins if bound is None else bound.origins
        if origins is not None:  # else a page could not tell why
            headers += origins.tails.get(fields.get(b"origin"), origins.otherwise)
        length = fields.get(b"content-length", b"0")
        expecting = unread and (b"transfer-encoding" in fields or length != b"0")
        closes = problem.closes
        if not closes and (
            self.draining or (expecting and (b"transfer-encoding" in fields or int(length) > UNREAD_BYTES_MAX))
        ):
            headers.append(_CLOSE)
            closes = True
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _pass_through(self, route: Route) -> Handler:
        if self.inner is None:
            raise ValueError(f"route {route.name}: expected a handler or an inner application, came neither")
        inner = self.inner
        # The inner application would log what it cannot read, input included, and reads more than JSON allows.
        check: StrictDecoder[object] | None = None if route.request is None else StrictDecoder(route.request)

        async def handler(body: bytes, call: Call) -> Answer:
            if check is not None:
                check(body)
            return await ask(inner, body, call)

        return handler

    async def _aside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lifespan: the beat lives as long as the server. Web sockets: none."""
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        self.start()
        if self._drain_seconds:
            drain_before_stop(self.drain, self._drain_seconds)
        try:
            if self.inner is not None:
                return await self.inner(scope, receive, send)
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
        finally:
            self.stop()
        return None

    def drain(self) -> None:
        """From now on /readyz says no and every answer ends its connection."""
        self.draining = True

    def start(self) -> None:
        """Start the beat on the running loop."""
        self._heartbeat.start()

    def stop(self) -> None:
        """Stop the beat."""
        self._heartbeat.stop()

    def _on_beat(self) -> None:
        self._gauge.set(self.in_flight)
        self._bodies.expire()
        self._strangers.expire()


def _log(failure: Exception, request_id: bytes) -> None:
    """Log where and what kind, never the message: it may quote the request."""
    frames = "".join(traceback.format_tb(failure.__traceback__))
    logger.error("request %s failed: %s\n%s", request_id.decode("ascii"), type(failure).__name__, frames)
