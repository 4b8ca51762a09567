"""A client that has nothing but types generated from /openapi.json: `python ask.py ADDRESS CUSTOMER` prints what it got
as JSON.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import TypeVar

from models import (
    AssignmentRequest,
    AssignmentRequests,
    AssignmentsAnswer,
    Decision,
    DecisionRequest,
    EvaluationContext,
    EvaluationFailure,
    EvaluationRequest,
    Evaluations,
    Event,
    EventsAnswer,
    EventsBody,
    ExperimentsAnswer,
    Placement,
    ProblemDocument,
)
from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)


def ask(address: str, kind: type[Model], body: BaseModel | bytes | None = None) -> Model:
    """Return an answer as its type says, whatever its status is."""
    content = body.model_dump_json(exclude_unset=True).encode() if isinstance(body, BaseModel) else body
    request = urllib.request.Request(address, content, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            return kind.model_validate_json(answer.read())
    except urllib.error.HTTPError as refusal:
        with refusal:
            return kind.model_validate_json(refusal.read())


def main(address: str, customer: str) -> None:
    """Ask each route once, with the fields alone that it needs."""
    decision = ask(f"{address}/v1/decisions", Decision, DecisionRequest(customer_id=customer, placement=Placement.home))
    several = DecisionRequest(customer_id=customer, placements=[Placement.home], limit=2, explain=False)
    many = ask(f"{address}/v1/decisions", Decision, several)
    event = Event(
        event_id="typed-python",
        type="impression",
        occurred_at=datetime.now(UTC),
        customer_id=customer,
        offer_id=decision.offers[0].offer_id,
    )
    told = ask(f"{address}/v1/events", EventsAnswer, EventsBody(events=[event]))
    assigned = ask(
        f"{address}/v1/assignments",
        AssignmentsAnswer,
        AssignmentRequests(requests=[AssignmentRequest(customer_id=customer)]),
    )
    experiments = ask(f"{address}/v1/experiments", ExperimentsAnswer)
    asked = EvaluationRequest(context=EvaluationContext(targetingKey=customer))
    flags = ask(f"{address}/ofrep/v1/evaluate/flags", Evaluations, asked)
    problem = ask(f"{address}/v1/decisions", ProblemDocument, b'{"customer_id":"7","limit":"many"}')
    score: float = decision.offers[0].score
    notes: list[str] = decision.notes
    refused: int = len(told.refused)
    failed: list[EvaluationFailure] = [one for one in flags.flags if isinstance(one, EvaluationFailure)]
    print(
        json.dumps(
            {
                "offers": [offer.offer_id for offer in decision.offers],
                "placement": [str(offer.placement) for offer in many.offers],
                "score": score,
                "notes": notes,
                "stored": told.stored,
                "refused": refused,
                "assigned": [one.experiment for one in assigned.results[0].assignments],
                "experiments": [one.key for one in experiments.experiments],
                "flags": [one.key for one in flags.flags],
                "failed": [one.errorCode for one in failed],
                "problem": [problem.status, problem.errors[0].pointer if problem.errors else ""],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
