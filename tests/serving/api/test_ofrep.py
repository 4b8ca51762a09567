"""OFREP as far as it needs no stores: what a context may be, how problems are answered, how many requests are let
through.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.config.features_file import ContextColumn
from serving.api.flags import Flags
from serving.api.ofrep import (
    REFUSAL,
    EvaluationFailure,
    FlagNotFound,
    FlagQuery,
    InvalidContext,
    TargetingKeyMissing,
    read_evaluation,
)
from serving.api.preview import Enquiry
from serving.api.rate_limit import Rate
from serving.assignment.assignment import Units
from serving.http import problems
from serving.http.app import FrontDoor
from serving.http.auth import Keys
from serving.http.problems import Problem, RateLimited
from serving.openapi import document as openapi_document
from tests.serving import edge_server as edge

COLUMNS = {
    "channel": ContextColumn(dtype="category", values=["app", "web"]),
    "page": ContextColumn(dtype="category"),
    "hour": ContextColumn(dtype="number", minimum=0, maximum=24),
    "member": ContextColumn(dtype="boolean"),
    "offers_considered": ContextColumn(dtype="number"),
}
FLAG = b"/ofrep/v1/evaluate/flags/experiment.x"

FITS: list[tuple[dict[str, Any], FlagQuery]] = [
    ({"targetingKey": "7"}, FlagQuery(Units("7", "7"), {})),
    ({"targetingKey": "7", "anonymous_id": "a"}, FlagQuery(Units("7", "a"), {})),
    ({"targetingKey": "~a"}, FlagQuery(Units("", "a"), {})),
    (
        {"targetingKey": "7", "channel": "app", "hour": 18, "member": None},
        FlagQuery(Units("7", "7"), {"channel": "app", "hour": 18, "member": None}),
    ),
    (
        {"targetingKey": "7", "user agent": "a\nb", "deep": {"er": [1, {}]}, "offers_considered": "x"},
        FlagQuery(Units("7", "7"), {}),
    ),
]
DO_NOT: list[tuple[bytes, type[Problem], str]] = [
    (b"", problems.BodyEmpty, "PARSE_ERROR"),
    (b"{", problems.JsonInvalid, "PARSE_ERROR"),
    (b"[]", problems.NotAnObject, "PARSE_ERROR"),
    (b'{"context":{"targetingKey":"7","targetingKey":"8"}}', problems.JsonDuplicateKey, "PARSE_ERROR"),
    (b'{"context":' + b"[" * 16 + b"]" * 16 + b"}", problems.JsonTooDeep, "PARSE_ERROR"),
    (b'{"context":{"targetingKey":"7","x":1e999}}', problems.NumberNotFinite, "PARSE_ERROR"),
    (b"{}", TargetingKeyMissing, "TARGETING_KEY_MISSING"),
    (b'{"context":null}', TargetingKeyMissing, "TARGETING_KEY_MISSING"),
    (b'{"context":{"channel":"app"}}', TargetingKeyMissing, "TARGETING_KEY_MISSING"),
    (b'{"context":{"targetingKey":""}}', TargetingKeyMissing, "TARGETING_KEY_MISSING"),
    (b'{"context":"7"}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":7}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"a b"}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"7\\n"}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"~~7"}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"%s"}}' % (b"7" * 65), InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"7","anonymous_id":4}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"7","channel":"moon"}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"7","channel":["app"]}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"7","page":"a\\u0007"}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"7","page":"%s"}}' % (b"x" * 257), InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"7","hour":"18"}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"7","hour":9007199254740993}}', InvalidContext, "INVALID_CONTEXT"),
    (b'{"context":{"targetingKey":"7","member":1}}', InvalidContext, "INVALID_CONTEXT"),
]


@pytest.mark.parametrize(("context", "asked"), FITS, ids=[str(row[0]) for row in FITS])
def test_context_is_read(context: dict[str, Any], asked: FlagQuery) -> None:
    """Known columns are taken, others ignored, and the targeting key is whom it is about."""
    assert read_evaluation(json.dumps({"context": context, "flags": 3}).encode(), COLUMNS) == asked


@pytest.mark.parametrize(("body", "kind", "code"), DO_NOT, ids=[str(row[0][:60]) for row in DO_NOT])
def test_context_is_refused(body: bytes, kind: type[Problem], code: str) -> None:
    """What does not fit has OFREP's code, status 400, the flag, and a text that repeats nothing of what came."""
    with pytest.raises(Problem) as raised:
        read_evaluation(body, COLUMNS)
    assert type(raised.value) is kind
    assert REFUSAL.status(kind) == 400
    told = json.loads(REFUSAL.render(raised.value, FLAG))
    assert (told["key"], told["errorCode"]) == ("experiment.x", code)
    assert "Expected" in told["errorDetails"]
    assert "moon" not in told["errorDetails"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*COLUMNS, "targetingKey", "context", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(context=JSON)
def test_any_context_is_read_or_refused(context: Any) -> None:
    """Whatever a context holds, it is read as something that fits, or refused as a problem."""
    try:
        asked = read_evaluation(json.dumps({"context": context}).encode(), COLUMNS)
    except Problem as problem:
        assert REFUSAL.status(type(problem)) == 400
        return
    assert set(asked.context) <= set(COLUMNS) - {"offers_considered"}
    assert asked.units.customer or asked.units.anonymous


@pytest.mark.parametrize("kind", problems.catalogue().values(), ids=lambda kind: kind.slug)
def test_every_problem_has_a_form(kind: type[Problem]) -> None:
    """OFREP knows no 422, wants no body with 401 and 403, and the flag and a code with every other refusal of a
    client's fault.
    """
    status, body = REFUSAL.status(kind), REFUSAL.render(kind(), FLAG)
    assert status == (400 if kind.status == 422 else kind.status)
    if status in (401, 403):
        assert body == b""
        return
    told = msgspec.json.decode(body, type=EvaluationFailure)
    assert told.errorDetails
    if status < 500:
        assert (told.key, bool(told.errorCode)) == ("experiment.x", True)
        assert (
            msgspec.json.decode(REFUSAL.render(kind(), FLAG.rpartition(b"/")[0]), type=EvaluationFailure).key
            is msgspec.UNSET
        )


@given(st.text(max_size=12))
def test_any_key_is_repeated_as_it_was_asked(key: str) -> None:
    """However a client escapes a key, the answer has that key, unless it is no printable text: then it is empty."""
    try:
        given = key.encode()
    except UnicodeEncodeError:  # a lone surrogate has no bytes
        return
    for path in (quote(given, safe=""), quote(given), "".join(f"%{byte:02x}" for byte in given)):
        told = json.loads(REFUSAL.render(FlagNotFound(), f"/ofrep/v1/evaluate/flags/{path}".encode()))
        assert told["key"] == (key if key.isprintable() else "")


def test_a_key_that_is_no_text_is_not_repeated() -> None:
    """What is no UTF-8, and what is longer than any flag may be, is answered with an empty key."""
    for path in (FLAG + b"\xff", FLAG + b"%ff", FLAG + b"x" * 300, FLAG + b"%0a", FLAG + b"%e2%80%ae"):
        assert json.loads(REFUSAL.render(FlagNotFound(), path))["key"] == ""


@given(
    per_second=st.integers(1, 5),
    pauses=st.lists(st.floats(0, 3, allow_subnormal=False), max_size=60),
)
def test_rate(per_second: int, pauses: list[float]) -> None:
    """Between any two moments no more pass than the rate allows, one more than a bucket's worth; after a second
    somebody always passes.
    """
    now, passed = 0.0, list[float]()
    rate = Rate(per_second, lambda: now)
    for pause in pauses:
        now += pause
        try:
            rate.take("a")
            passed.append(now)
        except RateLimited:
            assert pause < 1
    for at, begin in enumerate(passed):
        for count, end in enumerate(passed[at:], 1):
            assert count <= per_second + (end - begin) * per_second + 1e-6


def test_rates_are_of_each_key() -> None:
    """One that has used up its rate does not keep another waiting."""
    rate = Rate(1, lambda: 0.0)
    rate.take("a")
    rate.take("b")
    with pytest.raises(RateLimited) as raised:
        rate.take("a")
    assert raised.value.headers == ((b"retry-after", b"1"),)


def test_unready_and_limited_over_http() -> None:
    """Nothing serves: 503 in OFREP's form; the second request of the second: 429 with Retry-After; a bad type and a
    large body likewise.
    """
    desk: Any = SimpleNamespace(loaded=None, refusal="nothing was published")
    decisions: Any = None
    made = FrontDoor(Flags(Enquiry(desk), decisions, 1).routes(), Keys())
    with edge.served(made) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        unready = client.post("/ofrep/v1/evaluate/flags/experiment.x", json={"context": {"targetingKey": "7"}})
        assert (unready.status_code, unready.json()) == (503, {"errorDetails": "nothing was published"})
        limited = client.post("/ofrep/v1/evaluate/flags?flagConfigEtag=x", json={"context": {"targetingKey": "7"}})
        assert (limited.status_code, limited.headers["retry-after"], limited.json()["errorCode"]) == (
            429,
            "1",
            "GENERAL",
        )
        typed = client.post(
            "/ofrep/v1/evaluate/flags/experiment.x", content=b"{}", headers={"content-type": "text/plain"}
        )
        large = client.post("/ofrep/v1/evaluate/flags/experiment.x", json={"x": "x" * 70_000})
        assert [(one.status_code, one.headers["content-type"]) for one in (typed, large)] == [
            (415, "application/json"),
            (413, "application/json"),
        ]
        assert typed.json()["key"] == large.json()["key"] == "experiment.x"
        assert client.get("/ofrep/v1/configuration").json()["name"] == "Opportune"


def test_contract() -> None:
    """The contract has OFREP's form for every refusal, none for a 304 and for what a key may not do, and no 422."""
    unused: Any = None
    flags = Flags(Enquiry(unused), unused)
    document = openapi_document.document(flags.routes())
    for route in flags.routes():
        answers = document["paths"][route.path][route.method.lower()]["responses"]
        assert "422" not in answers
        for status, answer in answers.items():
            if status in ("304", "401", "403"):
                assert "content" not in answer
            elif status != "200":
                assert answer["content"] == {
                    "application/json": {"schema": {"$ref": "#/components/schemas/EvaluationFailure"}}
                }
        assert ("404" in answers) == ("{key}" in route.path)
        assert ("304" in answers) == (route.name != "ofrep_flag")
