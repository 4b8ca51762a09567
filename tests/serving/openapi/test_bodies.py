"""The schemas of requests say what the readers of requests take, no more and no less: the readers are the oracle, in
two workspaces.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from features.common.types import DecisionRequest, Event
from features.events.semantics import NUMBER_MAX
from features.validation.load import load
from features.workspace.workspace import Workspace
from serving.api.decisions import _decoder
from serving.api.experiment_views import AssignmentRequest
from serving.api.experiments import _check
from serving.api.ofrep import EvaluationRequest, Evaluations, read_evaluation
from serving.events import events as event_routes
from serving.http.problems import Problem, ProblemDocument
from serving.http.strict_json import REFUSED_CATEGORIES, StrictDecoder
from serving.hub.request_check import BadContext, BadRequest, UnknownPlacement, check_request
from serving.openapi import document as openapi_document
from serving.openapi.bodies import body_schemas, text_pattern
from serving.openapi.workspace import narrow
from tests.serving.bodies import NUMBERS, TEXTS, events, objects
from tests.serving.trial_server import EXPERIMENTS
from tests.workspaces import make_workspace

ROOT = Path(__file__).parents[3]
KINDS = (DecisionRequest, AssignmentRequest, EvaluationRequest, Event)


@cache
def shop(name: str) -> Workspace:
    """One of two workspaces: a small one with experiments, and the example, whose placements exist in some channels
    only.
    """
    if name == "grocery":
        return load(ROOT / "examples" / "grocery", sources=False)
    import tempfile

    folder = make_workspace(Path(tempfile.mkdtemp()) / "shop", seed=1, customers=5, decisions=1)
    (folder / "experiments.yaml").write_text(yaml.safe_dump(EXPERIMENTS))
    return load(folder, sources=False)


@cache
def validator(name: str, kind: type) -> Any:
    """Of one kind of body in one workspace."""
    schema_of, components = body_schemas(KINDS, (ProblemDocument, Evaluations))
    narrow(components, shop(name))
    document = json.loads(json.dumps(schema_of[kind] | {"components": {"schemas": components}}))
    return jsonschema_rs.Draft202012Validator(document, validate_formats=True)


def takes(read: Callable[[bytes], object], value: Any) -> bool:
    """Whether a reader of the service takes a body."""
    try:
        read(json.dumps(value).encode())
    except (Problem, UnknownPlacement, BadContext, BadRequest):
        return False
    return True


def contexts(workspace: Workspace) -> st.SearchStrategy[dict[str, Any]]:
    """Contexts of declared columns, mostly with values that they take."""
    columns = workspace.features.context
    values = {name: st.sampled_from(column.values) if column.values else NUMBERS for name, column in columns.items()}
    return objects(values)


def lists(values: list[str]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), st.lists(st.sampled_from([*values, "nowhere"]), max_size=3))


@pytest.mark.parametrize("name", ["small", "grocery"])
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_decisions(name: str, data: st.DataObject) -> None:
    """A request for a decision is valid where it is taken, and only there."""
    workspace = shop(name)
    placements = list(workspace.offers.placements)
    fields = {
        "customer_id": TEXTS,
        "anonymous_id": st.none() | TEXTS,
        "placement": st.sampled_from([None, *placements, "nowhere"]),
        "placements": lists(placements),
        "limit": st.none() | NUMBERS,
        "context": contexts(workspace),
        "exclude": st.lists(TEXTS, max_size=2),
        "explain": st.booleans(),
        "purposes": lists(["service", "p" * 40, "p" * 41]),
    }
    value = data.draw(objects(fields))
    if data.draw(st.booleans()):
        value |= {"customer_id": "7", "placement": placements[0]}
    decode = _decoder(workspace)
    assert validator(name, DecisionRequest).is_valid(value) == takes(
        lambda body: check_request(workspace, decode(body)), value
    ), value


@pytest.mark.parametrize("name", ["small", "grocery"])
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_assignments(name: str, data: st.DataObject) -> None:
    """A question about a unit is valid where it is taken, and only there."""
    workspace = shop(name)
    experiments = list(workspace.experiments.experiments)
    ids = {"customer_id": TEXTS, "anonymous_id": st.none() | TEXTS, "account": st.none() | TEXTS}
    value = data.draw(objects(ids | {"context": contexts(workspace), "experiments": lists(experiments)}))
    decode = StrictDecoder(AssignmentRequest)
    assert validator(name, AssignmentRequest).is_valid(value) == takes(
        lambda body: _check(workspace, decode(body), ""), value
    ), value


@pytest.mark.parametrize("name", ["small", "grocery"])
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_evaluations(name: str, data: st.DataObject) -> None:
    """A question for flags is valid where it is taken, and only there; what the workspace does not know is ignored."""
    columns = shop(name).features.context
    context = objects({"targetingKey": TEXTS, "anonymous_id": st.none() | TEXTS})
    value = data.draw(objects({"context": st.builds(lambda one, two: one | two, contexts(shop(name)), context)}))
    assert validator(name, EvaluationRequest).is_valid(value) == takes(
        lambda body: read_evaluation(body, columns), value
    ), value


@given(value=events())
@settings(max_examples=200, deadline=None)
def test_events(value: dict[str, Any]) -> None:
    """An event is valid where it can be read and has what its type needs, and only there; what a workspace knows is
    left to the answer.
    """
    assert validator("small", Event).is_valid(value) == (takes(StrictDecoder(Event), value) and fits(value)), value


def fits(event: dict[str, Any]) -> bool:
    """Whether an event has what its type needs, and numbers within bounds: what holds in every workspace."""
    needed = {"identify": ["customer_id", "anonymous_id"], "consent": ["purposes"], "exposure": ["experiment", "arm"]}
    needed |= {"impression": ["offer_id"], "click": ["offer_id"]}
    whose = event.get("customer_id") or event.get("anonymous_id")
    numbers = [one for one in (event.get("value"), *event.get("fields", {}).values()) if type(one) in (int, float)]
    return (
        bool(whose)
        and all(event.get(name) for name in needed.get(event["type"], ()))
        and all(abs(one) <= NUMBER_MAX for one in numbers)
    )


def test_texts() -> None:
    """The pattern of texts refuses exactly the characters that the readers refuse."""
    pattern = jsonschema_rs.Draft202012Validator({"pattern": text_pattern()})
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        refused = unicodedata.category(chr(code)) in REFUSED_CATEGORIES
        if refused or code % 97 == 0:
            assert pattern.is_valid(chr(code)) is not refused, hex(code)


def test_answers_name_what_they_always_have() -> None:
    """No schema has a default; a request needs what has none, and an answer has all that is always written."""
    _, components = body_schemas(KINDS, (ProblemDocument, Evaluations, event_routes.EventsAnswer))
    assert '"default"' not in json.dumps(components)
    assert "required" not in components["DecisionRequest"]
    assert components["Event"]["required"] == ["event_id", "type", "occurred_at"]
    assert components["EventsAnswer"]["required"] == ["accepted", "stored", "duplicates", "dead", "refused", "degraded"]
    assert components["ProblemDocument"]["required"] == ["type", "title", "status", "detail", "instance"]
    with pytest.raises(ValueError, match="of requests or of responses"):
        body_schemas([Event], [Event])
    assert msgspec.json.decode(openapi_document.render([]))["paths"] == {}
