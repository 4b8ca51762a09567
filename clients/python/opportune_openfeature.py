"""OpenFeature's stock OFREP provider with `track`, which OFREP lacks: what is tracked becomes an event of Opportune.

    provider = TrackingProvider("http://127.0.0.1:3000", headers_factory=lambda: {"X-API-Key": key}, timeout=0.5)
    openfeature.api.set_provider(provider)
    openfeature.api.add_hooks([ExposureHook(provider)])

Needs `openfeature-sdk` and `openfeature-provider-ofrep`. A key needs the roles `experiments` (or `decide`) and
`events`. Copy this file: it is all there is.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import requests
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails
from openfeature.hook import Hook, HookContext
from openfeature.track import TrackingEventDetails

BATCH_MAX, WAITING_MAX, TRIES_MAX = 500, 10_000, 5
OWN = ("event_id", "decision_id", "offer_id", "placement", "channel", "experiment", "arm")
"""Attributes that are fields of an event; others are the fields of a stream."""


class TrackingProvider(OFREPProvider):
    """Evaluates as the stock provider does. Tracked events are sent in the background, each at least once, and counted
    once.
    """

    def __init__(
        self, base_url: str, *, headers_factory: Callable[[], dict[str, str]] | None = None, timeout: float = 0.5
    ) -> None:
        super().__init__(base_url, headers_factory=headers_factory, timeout=timeout)
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING_MAX)
        self._sender = threading.Thread(target=self._send, name="opportune-events", daemon=True)
        self._sender.start()
        self.lost = 0
        """Events that were given up: too many were waiting, or the service refused them or could not be reached."""

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """The name is the event's type: `click`, `conversion`, `exposure`, the name of a stream. Returns at once."""
        try:
            self._waiting.put_nowait(event_of(tracking_event_name, evaluation_context, tracking_event_details))
        except queue.Full:
            self.lost += 1

    def shutdown(self) -> None:
        """Send what waits, and end."""
        self._waiting.put(None)
        self._sender.join()

    def _send(self) -> None:
        ended = False
        while not ended:
            events = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(events) < BATCH_MAX:
                    events.append(self._waiting.get_nowait())
            ended = None in events
            if batch := [event for event in events if event is not None]:
                self.lost += self._post(batch)

    def _post(self, events: list[dict[str, Any]]) -> int:
        """How many were lost. The same ids go out again: what was kept before is recognised."""
        for attempt in range(TRIES_MAX):
            time.sleep(0 if attempt == 0 else 0.1 * 2**attempt)
            headers = self.headers_factory() if self.headers_factory else None
            try:
                answer = requests.post(
                    f"{self.base_url.rstrip('/')}/v1/events", json={"events": events}, headers=headers, timeout=10
                )
            except requests.RequestException:
                continue
            if answer.status_code == 202:
                return int(answer.json()["dead"])
            if answer.status_code not in (429, 503):
                break
        return len(events)


class ExposureHook(Hook):
    """Tells of an exposure whenever the application reads the variant of an experiment."""

    def __init__(self, provider: TrackingProvider) -> None:
        self._provider = provider

    def after(self, hook_context: HookContext, details: FlagEvaluationDetails[Any], hints: Any) -> None:
        """A unit that is not in the experiment has no variant, and no exposure."""
        kind, _, experiment = hook_context.flag_key.partition(".")
        if kind == "experiment" and details.variant:
            told = TrackingEventDetails(attributes={"experiment": experiment, "arm": details.variant})
            self._provider.track("exposure", hook_context.evaluation_context, told)


def event_of(name: str, context: EvaluationContext | None, details: TrackingEventDetails | None) -> dict[str, Any]:
    """The event that a tracked action is."""
    attributes = dict(details.attributes) if details else {}
    key = (context.targeting_key if context else None) or ""
    anonymous = context.attributes.get("anonymous_id") if context else None
    event: dict[str, Any] = {"event_id": str(uuid.uuid4()), "type": name, "occurred_at": datetime.now(UTC).isoformat()}
    event |= {field: attributes.pop(field) for field in OWN if field in attributes}
    if not key.startswith("~"):
        event["customer_id"] = key
    if anonymous or key.startswith("~"):
        event["anonymous_id"] = anonymous or key[1:]
    if details and details.value is not None:
        event["value"] = details.value
    if attributes:
        event["fields"] = attributes
    return event
