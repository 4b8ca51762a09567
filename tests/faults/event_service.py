"""A running service, and what a customer calls it for while something fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from features.common.timestamps import from_microseconds, now
from features.common.types import EVENTS_MAX
from tests.faults.loss_accounting import (
    loaded_again,
    log_of,
)
from tests.serving.live import Answer, Live

RECOVERED_SECONDS_MAX = 180.0


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Live]:
    live = Live(folder).start()
    try:
        yield live
    finally:
        if live.process is not None and live.process.poll() is None:
            live.stop()


class Calls:
    """Calls of a customer, one an event, each acknowledged or not."""

    def __init__(self, live: Live, customer: str = "k1") -> None:
        self.live, self.customer, self.acknowledged = live, customer, list[str]()
        self.sent: list[dict[str, Any]] = []

    def post(self) -> Answer:
        """One more."""
        moment = from_microseconds(now()).isoformat(timespec="microseconds")
        name = f"{self.customer}-{len(self.sent)}"
        event = {
            "event_id": name,
            "type": "calls",
            "customer_id": self.customer,
            "occurred_at": moment,
            "fields": {"minutes": 1},
        }
        self.sent.append(event)
        answer = self.live.ask("POST", "/v1/events", {"events": [event]})
        if answer.status == 202:
            assert answer.json["stored"] == 1, answer
            self.acknowledged.append(name)
        return answer

    def post_again(self) -> None:
        """All that were sent, whatever came of them: then each is there once."""
        for begin in range(0, len(self.sent), EVENTS_MAX):
            part = self.sent[begin : begin + EVENTS_MAX]
            told = self.live.ask("POST", "/v1/events", {"events": part}).json
            assert told["stored"] + told["duplicates"] == len(part), told
        found = [row.event.event_id for row in log_of(loaded_again(self.live.workspace))]
        assert sorted(found) == sorted(event["event_id"] for event in self.sent)


def refused(answer: Answer) -> bool:
    """Whether it is the refusal that says when to come again; any other than that and 202 is a failure."""
    if answer.status == 202:
        return False
    assert answer.status == 503 and answer.json["type"].endswith(":events-unavailable"), answer
    assert int(answer.headers["retry-after"]) >= 1
    return True
