"""The BentoML service: supervision, workers, packaging and typed clients are BentoML's; the hot routes go through our front door.

    bentoml serve serving.service:Opportune        # with OPPORTUNE_WORKSPACE naming the workspace

`service_class` lets a subclass of BentoML's service put an ASGI application before BentoML's own stack. What the routes lose by
that (limits, deadlines, metrics, authentication) the lane gives back; what the lane does not name cannot be reached.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from functools import cache
from typing import Any

os.environ["TZ"] = "UTC"
time.tzset()

import bentoml  # noqa: E402
from _bentoml_sdk.service.factory import Service  # noqa: E402

from features.workspace import load  # noqa: E402
from serving import wire  # noqa: E402
from serving.desk import Desk  # noqa: E402
from serving.keys import Keys  # noqa: E402
from serving.lane import Lane  # noqa: E402
from serving.metrics import Metrics, memory_directory  # noqa: E402
from serving.routes import Receive, Scope, Send  # noqa: E402
from serving.routes_v1 import Decisions  # noqa: E402
from serving.settings import Settings  # noqa: E402

SETTINGS = Settings.from_environment()

wire.install()


class _Worker:
    """What one worker process holds."""

    def __init__(self) -> None:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        self.workspace = load(SETTINGS.workspace, sources=False)
        self.metrics = Metrics()
        self.desk = Desk(self.workspace)
        self.decisions = Decisions(self.desk, self.workspace, self.metrics)

    def door(self, inner: Any) -> Any:
        """The front door: before BentoML's own application."""
        lane = Lane(
            self.decisions.routes(),
            Keys.from_environment(),
            metrics=self.metrics,
            ready=self.decisions.ready,
            inner=inner,
            drain_seconds=SETTINGS.drain_seconds,
        )
        self.metrics.attach(memory_directory(self.workspace.data))
        self.desk.load()
        watching: list[asyncio.Task[None]] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                watching.append(asyncio.create_task(self.desk.watch()))
                try:
                    await lane(scope, receive, send)
                finally:
                    watching.pop().cancel()
                    self.desk.close()
                return
            await lane(scope, receive, send)

        return app


@cache
def worker() -> _Worker:
    """This process's worker, made at its first use: importing the service for packaging must not open a store."""
    return _Worker()


class FrontDoor(Service):  # type: ignore[type-arg]
    """BentoML's service with our lane in front."""

    def to_asgi(self, *arguments: Any, **named: Any) -> Any:
        """BentoML's application behind the front door."""
        return worker().door(super().to_asgi(*arguments, **named))


@bentoml.service(
    name="opportune",
    service_class=FrontDoor,
    workers=SETTINGS.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    http={"cors": {"enabled": False}},
)
class Opportune:
    """Which offers, in which order, for this customer, now."""

    @bentoml.api
    async def decide(
        self,
        customer_id: str,
        placement: str,
        limit: int | None = None,
        context: dict[str, Any] = {},  # noqa: B006 (BentoML makes its schema of the default)
        exclude: list[str] = [],  # noqa: B006
    ) -> dict[str, Any]:
        """One decision, as `POST /v1/decisions` gives it."""
        request = {"customer_id": customer_id, "placement": placement, "limit": limit, "context": context, "exclude": exclude}
        return await worker().decisions.plain(request)

    @bentoml.api
    async def decide_many(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several decisions, in order."""
        return [await worker().decisions.plain(request) for request in requests]
