"""The routes that every worker has: /livez, /readyz, /metrics, /openapi.json."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import msgspec

from serving.http import problems
from serving.http.auth import Role
from serving.http.problems import Headers
from serving.http.routing import JSON_HEADERS, Answer, Call, Route
from serving.runtime import exposition
from serving.runtime.metrics import Metrics

TEXT = "text/plain"
_METRICS_HEADERS: Headers = [(b"content-type", exposition.CONTENT_TYPE.encode()), (b"cache-control", b"no-store")]
_ALIVE: Answer = (200, JSON_HEADERS, b'{"status":"alive"}', ())
_READY: Answer = (200, JSON_HEADERS, b'{"status":"ready"}', ())


class Status(msgspec.Struct, frozen=True):
    """That a process runs, or may be asked."""

    status: Literal["alive", "ready"]


def standard_routes(
    routes: Sequence[Route],
    metrics: Metrics,
    ready: Callable[[], str | None],
    draining: Callable[[], bool],
    render: Callable[[Sequence[Route]], Awaitable[bytes]] | None,
) -> tuple[Route, ...]:
    """Return the standard routes.

    Args:
        routes: those that the document describes besides.
        ready: returns None when this worker may be asked, else a public text that says why not.
        render: returns the document of a route table, for /openapi.json; None leaves that route out.
    """

    async def livez(_: bytes, __: Call) -> Answer:
        return _ALIVE

    async def readyz(_: bytes, __: Call) -> Answer:
        if draining():
            raise problems.Draining()
        if (reason := ready()) is not None:
            raise problems.NotReady(reason)
        return _READY

    async def numbers(_: bytes, __: Call) -> Answer:
        return 200, _METRICS_HEADERS, metrics.exposition(), ()

    standard: tuple[Route, ...] = (
        Route(
            method="GET",
            path="/livez",
            name="livez",
            summary="Whether the process runs.",
            handler=livez,
            response=Status,
        ),
        Route(
            method="GET",
            path="/readyz",
            name="readyz",
            summary="Whether this worker may be asked: a bundle is loaded and its golden requests were replayed.",
            handler=readyz,
            response=Status,
            problems=(problems.Draining, problems.NotReady),
        ),
        Route(
            method="GET",
            path="/metrics",
            name="metrics",
            summary="Counters and histograms of all workers, as Prometheus text.",
            handler=numbers,
            media_type=TEXT,
            roles=frozenset({"admin"}),
        ),
    )
    if render is not None:

        async def document(_: bytes, __: Call) -> Answer:
            return 200, JSON_HEADERS, await render((*routes, *standard)), ()

        roles: Final = frozenset[Role](("decide", "events", "experiments", "admin"))
        standard += (
            Route(
                method="GET",
                path="/openapi.json",
                name="openapi",
                summary="This document.",
                handler=document,
                roles=roles,
            ),
        )
    return standard
