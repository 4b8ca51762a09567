"""A route, bound to its handler and to its metrics."""

from __future__ import annotations

from serving.http.cors import Origins
from serving.http.routing import Handler, Route
from serving.runtime.metric_families import Histogram


class BoundRoute:
    """A route with everything that does not change from request to request."""

    __slots__ = (
        "handler",
        "media_type",
        "origins",
        "route",
        "seconds_slot",
        "stage_slots",
        "status_slots",
        "takes_body",
        "timing",
    )

    def __init__(
        self,
        route: Route,
        handler: Handler,
        status_slots: dict[int, int],
        seconds: Histogram,
        stages: Histogram,
        origins: Origins | None = None,
    ) -> None:
        self.route, self.handler, self.status_slots = route, handler, status_slots
        self.origins = origins
        """None where pages of other origins may not read the answers."""
        self.media_type, self.takes_body = route.media_type.encode(), route.takes_body
        self.seconds_slot = seconds.slot(route.name)
        self.stage_slots = [stages.slot(f"{route.name}:{stage}") for stage in route.stages]
        self.timing = b", ".join(b"%s;dur=%%.3f" % stage.encode() for stage in route.stages)
