"""The BentoML service: supervision, workers, packaging and typed clients are BentoML's; the hot routes go through our
front door.

    bentoml serve serving.service:Opportune        # with OPPORTUNE_WORKSPACE naming the workspace

`service_class` lets a subclass of BentoML's service put an ASGI application before BentoML's own stack. What the routes
lose by that (limits, deadlines, metrics, authentication) the front door gives back; what the front door does not name
cannot be reached. BentoML's supervisor imports this module too, and only to read the service's definition: what answers
requests is imported late.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any

os.environ["TZ"] = "UTC"
time.tzset()

import bentoml  # noqa: E402
from _bentoml_sdk.service.factory import Service  # noqa: E402

from features.common import cache_folders  # noqa: E402
from features.common.files import keep_private  # noqa: E402
from features.validation.load import data_of  # noqa: E402
from serving import uvicorn_protocol  # noqa: E402
from serving.kernel import compile_cache  # noqa: E402
from serving.runtime import memory, parent_watch  # noqa: E402
from serving.settings import Settings  # noqa: E402

if TYPE_CHECKING:
    from serving.worker import Worker

SETTINGS = Settings.from_environment()

cache_folders.settle(data_of(SETTINGS.workspace))
uvicorn_protocol.install(SETTINGS.keep_alive_seconds)
parent_watch.end_with_starter()


@cache
def worker() -> Worker:
    """This process's worker, made at its first use: importing the service for packaging must not open a store."""
    keep_private()
    compile_cache.unpack()
    with memory.without_unused():
        from serving.worker import Worker

    return Worker(SETTINGS)


class FrontDoor(Service):
    """BentoML's service with our front door in front."""

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
        customer_id: str | None = None,
        placement: str | None = None,
        limit: int | None = None,
        context: dict[str, Any] = {},  # noqa: B006 (BentoML makes its schema of the default)
        exclude: list[str] = [],  # noqa: B006
        explain: bool = False,
        placements: list[str] | None = None,
        purposes: list[str] | None = None,
        anonymous_id: str | None = None,
    ) -> dict[str, Any]:
        """Return one decision, as `POST /v1/decisions` gives it."""
        request: dict[str, Any] = {} if customer_id is None else {"customer_id": customer_id}
        request |= {"placement": placement, "limit": limit, "context": context, "exclude": exclude, "explain": explain}
        request |= {"placements": placements, "purposes": purposes, "anonymous_id": anonymous_id}
        return await worker().decisions.plain(request)

    @bentoml.api
    async def decide_many(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several decisions, in order."""
        return await worker().decisions.many(requests)
