"""The whole server as it is run: BentoML's supervisor, two workers, real sockets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features.common.types import Decision, DecisionRequest
from features.validation.load import load
from serving.decision.decide import STAGES
from serving.reload.reloader import Reloader
from tests.serving.decisions import decide
from tests.serving.live import ROOT, Live, decision, serving_copy
from tests.serving.service_calls import OFREP, bentoml_client, bodies, named, problem
from tests.stores import free_port

pytestmark = pytest.mark.slow

CUSTOMERS = [f"436{600_000 + number}" for number in range(300)]


@pytest.fixture(scope="module")
def live(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with two workers that no test changes."""
    server = Live(serving_copy(trained_workspace, tmp_path_factory.mktemp("live") / "shop"), workers=2).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def desk(live: Live) -> Iterator[Reloader]:
    """The same state in this process: the oracle."""
    made = Reloader(load(live.workspace, sources=False))
    made.load()
    assert made.loaded is not None, made.refusal
    yield made
    made.close()


def expected(desk: Reloader, answer: dict[str, Any], **fields: Any) -> Decision:
    """What this process decides at the moment that the answer's id tells."""
    request = msgspec.convert(decision(answer["customer_id"], **fields), DecisionRequest)
    assert desk.loaded is not None
    return decide(
        request,
        desk.loaded,
        desk.stores.engine.read_now(request.customer_id),
        int(answer["decision_id"].split("-")[0], 16),
        decision_id=answer["decision_id"],
    )


def test_a_decision(live: Live, desk: Reloader) -> None:
    """The README's request is answered in the documented shape, with what this process decides, and the stages'
    times.
    """
    answer = live.ask("POST", "/v1/decisions", decision(limit=3))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    told = msgspec.json.decode(answer.body, type=Decision)
    assert told == expected(desk, answer.json, limit=3)
    members = "decision_id customer_id placement offers model degraded considered expires_at config withheld notes"
    assert set(answer.json) == set(members.split())
    assert set(answer.json["offers"][0]) == {"rank", "offer_id", "score", "propensity", "treatment", "reasons"}
    assert (told.customer_id, told.placement, told.degraded, len(told.offers)) == ("436600000", "home", (), 3)
    assert told.model.version == "1" and told.model.bundle.startswith("sha256:")
    stages = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert tuple(stages) == STAGES
    assert all(float(value) >= 0 for value in stages.values())


def test_a_stranger_gets_the_same_shape(live: Live) -> None:
    """An unknown customer is answered with 200 and the same members, not degraded."""
    known, unknown = live.decide(), live.decide("who-is-this")
    assert set(known) == set(unknown)
    assert unknown["degraded"] == [] and len(unknown["offers"]) == 3


@pytest.mark.parametrize(
    "path",
    ["/", "/docs.json", "/static_content/index.css", "/healthz", "/assets/x", "/v1/decisions/", "/decide/submit"],
)
def test_pages_of_bentoml_are_not_there(live: Live, path: str) -> None:
    """What the route table does not name does not exist, as a problem document."""
    for method in ("GET", "POST"):
        assert problem(live.ask(method, path, {} if method == "POST" else None)) == (404, "not-found")


@pytest.mark.parametrize("path", ["/v1/decisions", "/decide"])
@pytest.mark.parametrize(
    ("body", "status", "slug", "pointer"),
    [
        (b"", 400, "body-empty", None),
        (b"{", 400, "json-invalid", None),
        (b'{"customer_id":"1","customer_id":"2","placement":"home"}', 400, "json-duplicate-key", None),
        (b'{"customer_id":NaN,"placement":"home"}', 400, "json-invalid", None),
        (b"[]", 422, "not-an-object", ""),
        ({"placement": "home"}, 422, "field-missing", "/customer_id"),
        (decision(surprise=1), 422, "field-unknown", ""),
        (decision("a b"), 422, "field-format", "/customer_id"),
        (decision(limit=51), 422, "out-of-range", "/limit"),
        (decision(limit="3"), 422, "field-type", "/limit"),
        (decision(placement="nowhere"), 422, "field-value", "/placement"),
        (decision(context={"channel": "fax"}), 422, "field-value", "/context/channel"),
        (decision(context={"hour": 25}), 422, "out-of-range", "/context/hour"),
        (decision(context={"mood": "good"}), 422, "field-unknown", "/context"),
        (decision(context={"offers_considered": 3}), 422, "field-unknown", "/context"),
        (decision(exclude=["x"] * 201), 422, "too-many-items", "/exclude"),
    ],
)
def test_bad_requests(live: Live, path: str, body: Any, status: int, slug: str, pointer: str | None) -> None:
    """What is malformed gets its status and slug, on the typed route as well, and nothing of it is repeated."""
    answer = live.ask("POST", path, body)
    assert problem(answer) == (status, slug)
    if pointer is not None:
        assert answer.json["errors"][0]["pointer"] == pointer
    assert not any(word in answer.body for word in (b"nowhere", b"fax", b"mood", b"surprise"))


def test_bad_requests_among_many(live: Live) -> None:
    """One bad request among many refuses the call, and its place is told."""
    answer = live.ask("POST", "/decide_many", {"requests": [decision(), decision(placement="nowhere")]})
    assert problem(answer) == (422, "field-value")
    assert answer.json["errors"][0]["pointer"] == "/requests/1/placement"
    answer = live.ask("POST", "/decide_many", {"requests": [decision(context={"mood": 1})]})
    assert (problem(answer), b"mood" in answer.body) == ((422, "field-unknown"), False)
    assert problem(live.ask("POST", "/decide_many", {"requests": []})) == (422, "too-few-items")
    assert problem(live.ask("POST", "/decide_many", {"requests": [decision()] * 501})) == (422, "too-many-items")


def test_metrics_count_both_workers(live: Live) -> None:
    """Any worker tells the sum over all of them, in Prometheus' format, and it grows by what was asked."""
    before = live.metrics()
    for _ in range(40):
        live.decide(limit=2)  # a new connection each: both workers get some
    live.ask("POST", "/v1/decisions", decision(limit=0))
    after = live.metrics()
    grown = {name: after[name] - before[name] for name in after}
    assert grown['opportune_decisions_total{placement="home"}'] == 40
    assert grown["opportune_offers_shown_total"] == 80
    assert grown['opportune_requests_total{route="decisions",status="200"}'] == 40
    assert grown['opportune_requests_total{route="decisions",status="422"}'] == 1
    assert grown['opportune_request_seconds_count{route="decisions"}'] == 40
    for stage in STAGES:
        assert grown[f'opportune_stage_seconds_count{{stage="decisions:{stage}"}}'] == 40
    assert after['opportune_degraded_total{reason="features_unavailable"}'] == 0
    info = [name for name in after if name.startswith("opportune_bundle_info")]
    assert len(info) == 1 and 'version="1"' in info[0]


def test_openapi_is_true(live: Live) -> None:
    """Every documented path answers, with a documented status, and the decision is documented as it is."""
    contract = live.ask("GET", "/openapi.json").json
    assert set(contract["paths"]) == {
        "/v1/decisions",
        "/v1/events",
        "/v1/customers/{id}",
        "/v1/experiments",
        "/v1/experiments/{key}/assignments/{unit}",
        "/v1/assignments",
        *OFREP,
        "/decide",
        "/decide_many",
        "/schema.json",
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
    }
    for template, methods in contract["paths"].items():
        if template in OFREP:
            continue
        path = named(template)
        for method, operation in methods.items():
            good = live.ask(method.upper(), path, bodies().get(path, decision()) if method == "post" else None)
            expected = {"/v1/events": 202, named("/v1/experiments/{key}/assignments/{unit}"): 404}.get(path, 200)
            assert good.status == expected and str(good.status) in operation["responses"], good
            bad = live.ask("PUT", path)
            assert problem(bad) == (405, "method") and bad.headers["allow"]
    schema = contract["components"]["schemas"]
    assert set(schema["Decision"]["properties"]) == set(Decision.__struct_fields__)
    assert set(schema["DecisionRequest"]["properties"]) == set(
        live.ask("GET", "/schema.json").json["routes"][0]["input"]["properties"]
    )


def test_bentoml_client_gets_the_same(live: Live) -> None:
    """BentoML's own client, which knows nothing but the address, gets the offers that the HTTP route gives."""
    fields: dict[str, Any] = {
        "placement": "home",
        "limit": 3,
        "context": {"channel": "app", "hour": 18},
        "exclude": ["say-nothing"],
    }
    with bentoml_client(live) as client:
        for customer in CUSTOMERS[:5]:
            typed = client.decide(customer_id=customer, **fields)
            plain = live.decide(customer, **fields)
            assert (typed["offers"], typed["model"]) == (plain["offers"], plain["model"])
        many = client.decide_many(requests=[decision(customer, **fields) for customer in CUSTOMERS[:20]])
        assert [answer["customer_id"] for answer in many] == CUSTOMERS[:20]
        assert [answer["offers"] for answer in many[:3]] == [
            live.decide(customer, **fields)["offers"] for customer in CUSTOMERS[:3]
        ]
        assert (
            client.decide(anonymous_id="a1", **fields)["offers"]
            == live.ask("POST", "/v1/decisions", {"anonymous_id": "a1"} | fields).json["offers"]
        )
        explained = client.decide(customer_id=CUSTOMERS[0], placement="home", explain=True)
        assert explained["explanation"]["placements"]["home"]["funnel"]["placement"] == explained["considered"]


def test_customers_do_not_mix(live: Live, desk: Reloader) -> None:
    """20,000 requests over 64 connections, each with its own marker: every answer is the caller's, and what this
    process decides for them.
    """

    async def caller(queue: asyncio.Queue[str], answers: list[tuple[str, dict[str, Any]]]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        while not queue.empty():
            customer, marker = queue.get_nowait(), f"marker-{queue.qsize()}"
            body = json.dumps(decision(customer, limit=5)).encode()
            fields = (
                f"host: localhost\r\ncontent-type: application/json\r\nx-request-id: {marker}\r\ncontent-length:"
                f" {len(body)}"
            )
            writer.write(f"POST /v1/decisions HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body)
            told = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert told.startswith("http/1.1 200") and f"\r\nx-request-id: {marker}\r\n" in told, told
            length = next(int(line.split(":")[1]) for line in told.splitlines() if line.startswith("content-length"))
            answers.append((customer, json.loads(await reader.readexactly(length))))
        writer.close()
        await writer.wait_closed()

    async def all_callers() -> list[tuple[str, dict[str, Any]]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        for number in range(20_000):
            queue.put_nowait(CUSTOMERS[number * 7 % 300] if number % 10 else f"stranger-{number}")
        answers: list[tuple[str, dict[str, Any]]] = []
        await asyncio.gather(*(caller(queue, answers) for _ in range(64)))
        return answers

    answers = asyncio.run(all_callers())
    assert len(answers) == 20_000
    for customer, answer in answers:
        assert answer["customer_id"] == customer
        assert answer == json.loads(msgspec.json.encode(expected(desk, answer, limit=5)))
    assert len({str(answer["offers"]) for _, answer in answers}) > 200
    workers = {answer["decision_id"].split("-")[1] for _, answer in answers}
    assert len(workers) == 2, "both workers answered"


def test_other_addresses_want_keys(live: Live) -> None:
    """Without keys, an address that others can reach is refused with the remedy, before anything starts."""
    for verb in ("serve", "up"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pipelines.main",
                verb,
                "-w",
                str(live.workspace),
                "--host",
                "0.0.0.0",
                "--port",
                str(free_port()),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1 and "opportune key new" in done.stderr and "Traceback" not in done.stderr
