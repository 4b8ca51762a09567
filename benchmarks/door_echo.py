"""Rival (b): what our front door costs. The same fixed answer through the front door, in BentoML, with limits, metrics
and one write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml
from _bentoml_sdk.service.factory import Service

from features.common.types import DecisionRequest
from serving import uvicorn_protocol
from serving.http.app import FrontDoor
from serving.http.auth import Keys
from serving.http.routing import JSON_HEADERS, Answer, Call, Route
from serving.runtime.metrics import Metrics
from serving.runtime.slots_folder import memory_directory

uvicorn_protocol.install()

ANSWER = Path(os.environ["BENCH_ANSWER"])
BODY = ANSWER.read_bytes()


async def _echo(body: bytes, call: Call) -> Answer:
    return 200, JSON_HEADERS, BODY, ()


class EchoService(Service):  # type: ignore[misc]
    """BentoML's service behind a front door that has one route."""

    def to_asgi(self, *arguments: Any, **named: Any) -> Any:
        metrics = Metrics()
        route = Route(
            method="POST",
            path="/v1/decisions",
            name="echo",
            summary="Echo.",
            handler=_echo,
            request=DecisionRequest,
            roles=frozenset(["decide"]),
        )
        door = FrontDoor(
            [route], Keys.from_environment({}), metrics=metrics, inner=super().to_asgi(*arguments, **named)
        )
        metrics.attach(memory_directory(ANSWER.parent))
        return door


@bentoml.service(
    name="door-echo",
    service_class=EchoService,
    workers=int(os.environ.get("BENCH_WORKERS", "1")),
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Echo:
    """Has one method, since a service must."""

    @bentoml.api  # type: ignore[untyped-decorator]
    def ping(self) -> str:
        return "ok"
