"""What events cost: how many a second, how soon one is known, and what decisions feel of them.

The stream is what a shop's pages send: impressions, clicks and dismissals of offers, and rows of the stream `visits`.
Every event is new; all are accepted, or the phase fails.
"""

from __future__ import annotations

import http.client
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import load, synthetic
from benchmarks.servers import Server
from features.workspace.workspace import Workspace

BATCH = 100
PATH = "/v1/events"
CUSTOMERS = 5_000
FOLLOWED = 300
"""Events that are followed to the next decision, one after the other."""


class EventsFailed(RuntimeError):
    """Events were refused, or a decision did not know of one: nothing was measured."""


def emptied(workspace: Workspace) -> Workspace:
    """Without events and contacts of an earlier run."""
    for name in ("events", "ledger", "journal"):
        shutil.rmtree(workspace.data / name, ignore_errors=True)
    return workspace


def bodies(file: Path, batches: int, batch: int, offers: int, seed: int) -> Path:
    """A file with one body a line; ids are new with every seed and moment."""
    random = np.random.default_rng(seed)
    run = f"{time.time_ns():x}"
    at = datetime.now(UTC).isoformat()
    total = batches * batch
    kinds = random.integers(0, 10, total).tolist()
    customers = random.integers(0, CUSTOMERS, total).tolist()
    shown = random.integers(0, offers, total).tolist()
    lines = []
    for number in range(batches):
        events = [
            _event(f"{run}-{at_}", kinds[at_], customers[at_], shown[at_], at)
            for at_ in range(number * batch, (number + 1) * batch)
        ]
        lines.append(msgspec.json.encode({"events": events}).decode())
    file.write_text("\n".join(lines))
    return file


def _event(event_id: str, kind: int, customer: int, offer: int, at: str) -> dict[str, object]:
    said: dict[str, object] = {"event_id": event_id, "occurred_at": at, "customer_id": f"c{customer}"}
    if kind < 6:
        return said | {"type": "impression", "offer_id": f"offer-{offer:05d}", "placement": synthetic.PLACEMENT}
    if kind < 8:
        return said | {"type": "click" if kind == 6 else "dismissal", "offer_id": f"offer-{offer:05d}"}
    return said | {
        "type": "visits",
        "fields": {f"measure_{n}": n + kind / 10 for n in range(synthetic.MEASURES)} | {"topic": "topic-1"},
    }


def peak(
    server: Server, file: Path, seconds: float, connections: int, batch: int = BATCH
) -> tuple[float, load.Outcome]:
    """Events a second that were accepted, as fast as answers come."""
    outcome = load.run(load.Plan(server.port, str(file), connections, seconds, path=PATH))
    if outcome.refused or min(outcome.latencies, default=-1) < 0:
        raise EventsFailed(f"expected every batch to be accepted, got {outcome.refused} refused of {outcome.sent}")
    return batch * outcome.per_second, outcome


def followed(server: Server) -> list[float]:
    """Milliseconds from sending an event to the answer that knows of it: a dismissed offer is gone from the very next
    decision.

    Raises:
        EventsFailed: a decision showed the offer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)

    def ask(path: str, body: object) -> dict[str, object]:
        connection.request("POST", path, msgspec.json.encode(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status not in (200, 202):
            raise EventsFailed(f"expected an answer from {path}, got {answer.status}: {content[:200]!r}")
        return msgspec.json.decode(content, type=dict[str, object])

    found = []
    for number in range(synthetic.CUSTOMERS - CUSTOMERS):
        asked = {"customer_id": f"c{synthetic.CUSTOMERS - 1 - number}", "placement": synthetic.PLACEMENT}
        offers = ask("/v1/decisions", asked)["offers"]
        assert isinstance(offers, list)
        if not offers:  # the rules let some customers have none
            continue
        unwanted = offers[0]["offer_id"]
        at = datetime.now(UTC).isoformat()
        event = {
            "event_id": f"f-{time.time_ns():x}",
            "type": "dismissal",
            "occurred_at": at,
            "customer_id": asked["customer_id"],
        }
        began = time.perf_counter()
        ask(PATH, {"events": [event | {"offer_id": unwanted}]})
        after = ask("/v1/decisions", asked)["offers"]
        found.append((time.perf_counter() - began) * 1e3)
        assert isinstance(after, list)
        if any(offer["offer_id"] == unwanted for offer in after):
            raise EventsFailed("expected a dismissed offer to be gone from the next decision, it was there")
        if len(found) == FOLLOWED:
            return found
    raise EventsFailed(f"expected {FOLLOWED} customers with offers, got {len(found)}")
