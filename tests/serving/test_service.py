"""The whole server as it is run: BentoML's supervisor, two workers, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import msgspec
import psutil
import pytest

from features.common import clock
from features.common.types import Decision, DecisionRequest
from features.validation.load import load
from serving.decision.decide import STAGES
from serving.http.auth import entry_yaml, new_key
from serving.reload.reloader import Reloader
from serving.settings import DRAIN_VARIABLE
from tests.serving.decisions import decide
from tests.serving.live import ROOT, Answer, Live, another_bundle, ask, decision, load_on, serving_copy, wait_for
from tests.stores import free_port
from training.bundle import bundle

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


def problem(answer: Answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer
    return answer.status, answer.json["type"].removeprefix("urn:opportune:problem:")


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


@contextlib.contextmanager
def bentoml_client(live: Live, **named: Any) -> Iterator[Any]:
    """BentoML's client, which leaves its temporary folder behind for the garbage collector to complain of."""
    with bentoml.SyncHTTPClient(f"http://127.0.0.1:{live.port}", **named) as client:
        yield client
    client._temp_dir.cleanup()


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


@pytest.fixture(scope="module")
def keyed(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, dict[str, str]]]:
    """A server with keys, on all addresses, and a key of each role."""
    file, keys, entries = tmp_path_factory.mktemp("keys") / "keys.yaml", {}, []
    for role in ("decide", "events", "experiments", "admin"):
        keys[role], entry = new_key(role, (role,))  # type: ignore[arg-type]
        entries.append(entry_yaml(entry))
    file.write_text("".join(entries))
    file.chmod(0o600)
    command = (
        sys.executable,
        "-m",
        "pipelines.main",
        "serve",
        "-w",
        str(live.workspace),
        "--port",
        "{port}",
        "--host",
        "0.0.0.0",
    )
    server = Live(live.workspace, environment={"OPPORTUNE_KEYS_FILE": str(file)}, command=command).start()
    yield server, keys
    server.stop()


def test_routes_want_their_keys(keyed: tuple[Live, dict[str, str]]) -> None:
    """Every route that has roles answers them alone; without a key, or with a wrong one, 401."""
    live, keys = keyed
    contract = live.ask("GET", "/openapi.json", authorization=f"Bearer {keys['decide']}").json
    seen = 0
    for template, methods in contract["paths"].items():
        if template in OFREP:
            continue
        path = named(template)
        for method, operation in methods.items():
            body = None if method in ("get", "delete") else bodies().get(path, decision())
            allowed = operation.get("x-roles", [])
            if not allowed:
                assert live.ask(method.upper(), path).status == 200
                continue
            for headers in ({}, {"authorization": "Bearer decide.wrong"}, {"x_api_key": "nonsense"}):
                assert problem(live.ask(method.upper(), path, body, **headers)) == (401, "unauthenticated")
            for role, key in keys.items():
                answer = live.ask(method.upper(), path, body, x_api_key=key)
                good = (404,) if template == "/v1/experiments/{key}/assignments/{unit}" else (200, 202)
                assert answer.status in good if role in allowed else problem(answer) == (403, "forbidden"), (path, role)
                seen += 1
    assert seen >= 20


@pytest.mark.parametrize("path", ["/v1/decisions", "/decide", "/decide_many"])
def test_explanations_want_an_admin(keyed: tuple[Live, dict[str, str]], path: str) -> None:
    """An explanation shows a customer's data: a key of the role `decide` gets 403, one of the role `admin` the
    columns.
    """
    live, keys = keyed
    body = {"requests": [decision(), decision(explain=True)]} if path == "/decide_many" else decision(explain=True)
    assert problem(live.ask("POST", path, body, authorization=f"Bearer {keys['decide']}")) == (403, "forbidden")
    answer = live.ask("POST", path, body, authorization=f"Bearer {keys['admin']}")
    assert answer.status == 200 and b'"explanation"' in answer.body


def test_bentoml_client_brings_its_key(keyed: tuple[Live, dict[str, str]]) -> None:
    """BentoML's client sends a key as its token."""
    live, keys = keyed
    with bentoml_client(live, token=keys["decide"]) as client:
        assert client.decide(customer_id="436600000", placement="home")["customer_id"] == "436600000"


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


@pytest.fixture(scope="module")
def changing(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with two workers whose bundles and workers the tests change."""
    folder = serving_copy(trained_workspace, tmp_path_factory.mktemp("changing") / "shop")
    server = Live(folder, workers=2, environment={DRAIN_VARIABLE: "2"}).start()
    yield server
    server.stop()


def bundles(live: Live) -> set[str]:
    """The bundles that answers name now, over both workers."""
    return {live.decide()["model"]["bundle"] for _ in range(20)}


def test_another_bundle_under_load(changing: Live) -> None:
    """A published bundle replaces the old one without a failure; each answer is wholly of one of the two."""
    folder = load(changing.workspace, sources=False).bundles
    (before,) = bundles(changing)
    place = another_bundle(changing.workspace, "2")
    after = bundle.read(place).id
    with load_on(changing.port) as seen:
        wait_for(lambda: len(seen) > 100)
        for turn in range(3):  # there, back, and there again
            target = place if turn != 1 else folder / before.removeprefix("sha256:")[: len(place.name)]
            bundle.switch(folder, target)
            wanted = {after} if turn != 1 else {before}
            wait_for(lambda wanted=wanted: bundles(changing) == wanted, what="the switch")
    assert Counter(answer.status for answer in seen) == {200: len(seen)}, "no request failed"
    stamps = {tuple(sorted(answer.json["model"].items())) for answer in seen}
    assert {dict(stamp)["bundle"] for stamp in stamps} == {before, after}
    assert {(dict(stamp)["bundle"] == after, dict(stamp)["version"]) for stamp in stamps} == {(False, "1"), (True, "2")}
    assert bundles(changing) == {after}
    info = [name for name in changing.metrics() if name.startswith("opportune_bundle_info")]
    assert len(info) == 1 and 'version="2"' in info[0]


def test_each_answer_is_of_one_bundle(changing: Live, desk: Reloader) -> None:
    """Propensities are those of the bundle that the answer names, not of the other."""
    folder = load(changing.workspace, sources=False).bundles
    place = another_bundle(changing.workspace, "3", shift=-0.7)
    state = Reloader(load(changing.workspace, sources=False))
    states = {}
    for name in {place, *(folder / name for name in folder.joinpath("history.log").read_text().split())}:
        bundle_read = bundle.read(name)
        bundle.switch(folder, name)
        state.load()
        assert state.loaded is not None and state.loaded.stamp.bundle == bundle_read.id
        states[bundle_read.id] = state.loaded
    with load_on(changing.port) as seen:
        for name in (place, folder / "x", place):
            if name.exists():
                bundle.switch(folder, name)
            wait_for(lambda: len(bundles(changing)) == 1)
            time.sleep(0.3)
    for answer in seen:
        assert answer.status == 200
        told = answer.json
        loaded = states[told["model"]["bundle"]]
        request = msgspec.convert(decision(told["customer_id"]), DecisionRequest)
        again = decide(
            request,
            loaded,
            asyncio.run(state.stores.customers.row(told["customer_id"])),
            int(told["decision_id"].split("-")[0], 16),
            decision_id=told["decision_id"],
        )
        assert json.loads(msgspec.json.encode(again)) == told
    state.close()
    assert len(seen) > 50


@pytest.mark.parametrize("damage", ["forest.npz", "columns.json", "manifest.json", "calibration.json"])
def test_damaged_bundle_is_refused(changing: Live, damage: str) -> None:
    """A bundle that was damaged is refused and counted, the old one serves on; the next good one is taken."""
    folder = load(changing.workspace, sources=False).bundles
    (before,) = bundles(changing)
    good = bundle.current(folder)
    assert good is not None
    refused = changing.metrics()['opportune_refused_total{what="bundle"}']
    place = another_bundle(changing.workspace, f"damaged-{damage}")
    content = bytearray((place / damage).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (place / damage).write_bytes(content)
    (folder / bundle.CURRENT).write_text(place.name)
    wait_for(
        lambda: changing.metrics()['opportune_refused_total{what="bundle"}'] >= refused + 2,
        what="the refusal of both workers",
    )
    assert bundles(changing) == {before}
    assert changing.ask("GET", "/readyz").status == 200
    log = (changing.workspace / ".opportune" / "logs" / "server.log").read_text()
    assert f"bundle {place.name} is refused, the last good one serves on" in log
    bundle.switch(folder, good)
    wait_for(lambda: bundles(changing) == {before})


def test_a_killed_worker_comes_back(changing: Live) -> None:
    """kill -9 of one worker costs the requests it had; the other serves on, and another takes its place."""
    victim, *_ = before = changing.serving()
    connections = 6
    with load_on(changing.port, connections) as seen:
        wait_for(lambda: len(seen) > 100)
        psutil.Process(victim).send_signal(signal.SIGKILL)
        at = len(seen)
        wait_for(lambda: victim not in changing.serving())
        wait_for(lambda: len(seen) > at + 200, what="answers while one is away")
        wait_for(lambda: len(changing.serving()) == 2, what="another worker")
        wait_for(
            lambda: len({changing.decide()["decision_id"].split("-")[1] for _ in range(20)}) == 2,
            what="answers of both workers",
        )
    failed = [answer for answer in seen if answer.status != 200]
    assert len(failed) <= connections, Counter(answer.body for answer in failed)
    assert len({*changing.serving()} - {*before}) == 1


def test_stop_under_load_drains(changing: Live) -> None:
    """SIGTERM under load: what was taken is answered, readiness goes first, connections are closed with their answer,
    all end.
    """
    assert changing.process is not None
    with load_on(changing.port, 8) as seen:
        wait_for(lambda: len(seen) > 100)
        processes = changing.tree()
        changing.process.send_signal(signal.SIGTERM)
        wait_for(lambda: ask(changing.port, "GET", "/readyz").status in (0, 503))
        during = ask(changing.port, "POST", "/v1/decisions", decision())
        assert changing.process.wait(30) == 0
    assert during.status == 200 and during.headers["connection"] == "close"
    first = next((at for at, answer in enumerate(seen) if answer.status == 0), len(seen))
    assert all(answer.status == 200 for answer in seen[:first])
    assert (
        sum(answer.headers["connection"] == "close" for answer in seen[:first] if "connection" in answer.headers) > 20
    ), "it drained"
    errors = Counter(answer.body.split(b":")[0] for answer in seen if answer.status != 200)
    # Reset: in the listening queue when the last worker had closed its side; broken pipe: the same, seen while the
    # request was still being written. Dropped after being taken would be RemoteDisconnected.
    assert set(errors) <= {b"ConnectionRefusedError", b"ConnectionResetError", b"BrokenPipeError"}, errors
    assert errors[b"ConnectionResetError"] <= 40
    _, alive = psutil.wait_procs(processes, 5)
    assert not alive
