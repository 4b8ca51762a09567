"""What the tests of the whole server ask it, and how they read its refusals."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import bentoml

from features.common import clock
from tests.serving.live import Answer, Live, decision


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer
    return answer.status, answer.json["type"].removeprefix("urn:opportune:problem:")


def bodies() -> dict[str, Any]:
    """What is sent to routes that take something else than a decision."""
    click = {
        "event_id": "e1",
        "type": "click",
        "customer_id": "nobody",
        "offer_id": "offer-01",
        "occurred_at": clock.now().isoformat(),
    }
    asked = {"requests": [{"customer_id": "nobody"}]}
    return {"/decide_many": {"requests": [decision()]}, "/v1/events": {"events": [click]}, "/v1/assignments": asked}


OFREP = ("/ofrep/v1/configuration", "/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/{key}")
"""Have a form of their own, and tests of their own: `test_openfeature.py`, `test_ofrep.py`."""


def named(template: str) -> str:
    """A path with ids in it; no experiment has that name."""
    for part in ("{id}", "{key}", "{unit}"):
        template = template.replace(part, "nobody")
    return template


@contextlib.contextmanager
def bentoml_client(live: Live, **named: Any) -> Iterator[Any]:
    """BentoML's client, which leaves its temporary folder behind for the garbage collector to complain of."""
    with bentoml.SyncHTTPClient(f"http://127.0.0.1:{live.port}", **named) as client:
        yield client
    client._temp_dir.cleanup()
