"""Asking for variants over HTTP: what the routes of experiments and flags say is what decisions do, and asking changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from features.experiments import split_of
from features.workspace import load
from serving.desk import Desk
from serving.enquiry import Enquiry
from serving.journal import Journal
from serving.keys import KeyEntry, Keys
from serving.lane import Lane
from serving.metrics import Metrics
from serving.routes_experiments import ExperimentRoutes
from serving.routes_ofrep import Flags
from serving.routes_v1 import Decisions
from tests.serving import edge_server as edge
from tests.serving.edge_server import ROLE_KEYS
from tests.serving.trial_server import EXPERIMENTS, RUNNING, trial_workspace

CUSTOMERS = [f"436{600_000 + number}" for number in range(80)]
FLAGS = "/ofrep/v1/evaluate/flags"
DECLARED: dict[str, Any] = EXPERIMENTS["experiments"]  # type: ignore[assignment]


class Served(NamedTuple):
    desk: Desk
    journal: Journal
    client: httpx.Client

    def ask(self, method: str, path: str, body: Any = None, role: str = "admin", **headers: str) -> httpx.Response:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"x-api-key": ROLE_KEYS[role]} if role else {}
        fields |= {"content-type": "application/json"} if content is not None else {}
        return self.client.request(method, path, content=content, headers=fields | {k.replace("_", "-"): v for k, v in headers.items()})

    def flag(self, flag: str, customer: str, role: str = "admin", **context: Any) -> httpx.Response:
        return self.ask("POST", f"{FLAGS}/{flag}", {"context": {"targetingKey": customer} | context}, role)

    def kept(self, unit: str) -> dict[str, Any]:
        known = self.desk.ledger.look_now(unit)
        assert known is not None
        return dict(known.recent.kept)

    def lines(self) -> int:
        """How many decisions were recorded."""
        return int(self.ask("GET", "/metrics").text.partition('opportune_journal_lines_total{result="recorded"} ')[2].split("\n")[0])


@pytest.fixture(scope="module")
def served(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Decisions, experiments and flags behind the lane, with keys, over real sockets; the desk in this process."""
    workspace = load(trial_workspace(trained_workspace, tmp_path_factory.mktemp("routes") / "shop"), sources=False)
    desk, metrics, journal = Desk(workspace), Metrics(), Journal.open(workspace.data / "journal")
    decisions = Decisions(desk, workspace, metrics, journal)
    desk.on_build = lambda made: journal.keep(made.lineup)
    enquiry = Enquiry(desk)
    routes = (*decisions.routes(edge.inner), *ExperimentRoutes(enquiry).routes(), *Flags(enquiry, decisions).routes())
    entries = [KeyEntry(f"{role}-key", hashlib.sha256(key.encode()).hexdigest(), role) for role, key in ROLE_KEYS.items()]  # type: ignore[arg-type]
    lane = Lane(routes, Keys(tuple(entries)), metrics=metrics, inner=edge.inner)
    desk.load()
    assert desk.loaded is not None, desk.refusal
    with edge.served(lane) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield Served(desk, journal, client)
    desk.close()
    journal.close()


def test_experiments_are_listed(served: Served) -> None:
    """Every experiment of the file is there with its arms, whose shares are those of the split, and one of which is the control."""
    told = served.ask("GET", "/v1/experiments", role="experiments").json()
    assert [one["key"] for one in told["experiments"]] == list(DECLARED)
    assert (told["holdout"], told["control_groups"]) == (0.1, {"random_eligible": 0.05})
    file = served.desk.workspace.experiments.experiments
    for one in told["experiments"]:
        split = split_of(one["key"], file[one["key"]])
        assert [arm["share"] for arm in one["arms"]] == list(split.shares)
        assert one["covered"] == split.covered
        assert [arm["arm"] for arm in one["arms"] if arm["control"]] == ["right" if one["key"] == "visitor" else one["arms"][0]["arm"]]
        assert (one["status"], one["unit"]) == (DECLARED[one["key"]].get("status", "draft"), DECLARED[one["key"]].get("unit", "customer"))


def test_all_ways_of_asking_agree_with_decisions(served: Served) -> None:
    """One experiment of one unit, a batch, single flags, all flags, and then decisions: the same arms with the same probabilities."""
    requests = [{"customer_id": customer, "context": {"channel": "app"}} for customer in CUSTOMERS]
    batch = served.ask("POST", "/v1/assignments", {"requests": requests}).json()["results"]
    groups = set()
    for customer, said in zip(CUSTOMERS, batch, strict=True):
        by_key = {one["experiment"]: one for one in said["assignments"]}
        groups.add(said["group"])
        assert list(by_key) == list(DECLARED)
        for key in ("headline", "one-or-two", "kept", "rich"):
            one = served.ask("GET", f"/v1/experiments/{key}/assignments/{customer}").json()
            assert one == {"unit": customer, "group": said["group"], "assignment": by_key[key]}
        flags = {
            one["key"]: one for one in served.ask("POST", FLAGS, {"context": {"targetingKey": customer, "channel": "app"}}).json()["flags"]
        }
        for key in RUNNING:
            if DECLARED[key].get("unit") != "anonymous":
                assert flags[f"experiment.{key}"].get("value") == by_key[key]["arm"]
                assert flags[f"experiment.{key}"]["metadata"].get("probability") == by_key[key]["probability"]
        assert served.kept(customer) == {}
        decision = served.ask("POST", "/v1/decisions", {"customer_id": customer, "placement": "home", "context": {"channel": "app"}}).json()
        assert decision["group"] == said["group"]
        arms = [(one["experiment"], one["arm"], one["probability"], one["reason"]) for one in said["assignments"] if one["arm"]]
        assert [(one["key"], one["arm"], one["probability"], one["reason"]) for one in decision["experiments"]] == arms
    assert groups == {None, "holdout", "random_eligible"}


def test_units_of_every_kind(served: Served) -> None:
    """An anonymous id with and without its sign, and an account, are asked for by the experiment's own kind."""
    split = split_of("visitor", served.desk.workspace.experiments.experiments["visitor"])
    for anonymous in ("a1", "b2", "c3"):
        told = served.ask("GET", f"/v1/experiments/visitor/assignments/{anonymous}").json()
        assert told["assignment"] == served.ask("GET", f"/v1/experiments/visitor/assignments/~{anonymous}").json()["assignment"]
        if told["group"] is None:
            assert told["assignment"]["arm"] == ("left", "right")[split(anonymous)[0]]
    tariffs = split_of("tariffs", served.desk.workspace.experiments.experiments["tariffs"])
    for account in ("S", "M", "L"):
        arm = ("x", "y")[tariffs(account)[0]]
        assert served.ask("GET", f"/v1/experiments/tariffs/assignments/{account}").json()["assignment"]["arm"] == arm
        asked = {"requests": [{"account": account, "experiments": ["tariffs", "headline"]}]}
        (said,) = served.ask("POST", "/v1/assignments", asked).json()["results"]
        assert [(one["arm"], one["reason"]) for one in said["assignments"]] == [(None, "no_unit"), (arm, "split")]


BAD: list[tuple[str, str, Any, int, str, str]] = [
    ("GET", "/v1/experiments/nonsense/assignments/1", None, 404, "not-found", ""),
    ("GET", "/v1/experiments/headline/assignments/%7E1", None, 404, "not-found", ""),
    ("GET", "/v1/experiments/headline/assignments/~1", None, 422, "field-format", "/unit"),
    ("GET", "/v1/experiments/headline/assignments/" + "1" * 65, None, 422, "field-format", "/unit"),
    ("POST", "/v1/assignments", {"requests": []}, 422, "too-few-items", "/requests"),
    ("POST", "/v1/assignments", {"requests": [{"customer_id": "1"}] * 501}, 422, "too-many-items", "/requests"),
    ("POST", "/v1/assignments", {"requests": [{}]}, 422, "field-missing", "/requests/0/customer_id"),
    ("POST", "/v1/assignments", {"requests": [{"customer_id": "a b"}]}, 422, "field-format", "/requests/0/customer_id"),
    ("POST", "/v1/assignments", {"requests": [{"customer_id": "1", "x": 1}]}, 422, "field-unknown", "/requests/0"),
    (
        "POST",
        "/v1/assignments",
        {"requests": [{"customer_id": "1", "experiments": ["nonsense"]}]},
        422,
        "field-value",
        "/requests/0/experiments/0",
    ),
    ("POST", "/v1/assignments", {"requests": [{"customer_id": "1", "context": {"moon": 1}}]}, 422, "field-unknown", "/requests/0/context"),
    (
        "POST",
        "/v1/assignments",
        {"requests": [{"customer_id": "1", "context": {"hour": 25}}]},
        422,
        "out-of-range",
        "/requests/0/context/hour",
    ),
    ("POST", "/v1/assignments", b'{"requests":[{"customer_id":"1","customer_id":"2"}]}', 400, "json-duplicate-key", ""),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug", "pointer"), BAD, ids=[f"{row[1][:40]} {row[4]} {row[5]}" for row in BAD]
)
def test_bad_questions(served: Served, method: str, path: str, body: Any, status: int, slug: str, pointer: str) -> None:
    """What does not fit is refused with its problem and its place; an experiment that a unit is not in is no error."""
    answer = served.ask(method, path, body)
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:opportune:problem:{slug}")
    assert [error["pointer"] for error in answer.json().get("errors", [])] == ([pointer] if pointer else [])
    assert "nonsense" not in answer.text and "moon" not in answer.text


def test_roles(served: Served) -> None:
    """Experiments need their role, offers as flags that of decisions; OFREP's refusals of a key have no body."""
    for role, status in (("experiments", 200), ("admin", 200), ("decide", 403), ("events", 403), ("", 401)):
        assert served.ask("GET", "/v1/experiments", role=role).status_code == status
    body = {"context": {"targetingKey": "1"}}
    for role, status in (("experiments", 200), ("decide", 200), ("events", 403), ("", 401)):
        answer = served.ask("POST", f"{FLAGS}/experiment.headline", body, role)
        assert answer.status_code == status
        assert bool(answer.content) == (status == 200)
    assert served.flag("offers.home", "1", "decide").status_code == 200
    hidden = served.flag("offers.home", "1", "experiments")
    assert (hidden.status_code, hidden.json()["errorCode"]) == (404, "FLAG_NOT_FOUND")
    keys = {role: {one["key"] for one in served.ask("POST", FLAGS, body, role).json()["flags"]} for role in ("experiments", "decide")}
    assert keys["experiments"] == {f"experiment.{key}" for key in DECLARED}
    assert keys["decide"] == keys["experiments"] | {"offers.home", "offers.bill"}
    bearer = served.client.post(f"{FLAGS}/experiment.headline", json=body, headers={"authorization": f"Bearer {ROLE_KEYS['experiments']}"})
    assert bearer.status_code == 200


def test_a_single_flag_of_a_sticky_experiment_is_kept(served: Served) -> None:
    """The first evaluation writes the arm down, the second finds it; all flags together and the route of experiments write nothing."""
    customer = next(one for one in map(str, range(100, 200)) if served.flag("experiment.headline", one).json().get("value"))
    served.ask("POST", FLAGS, {"context": {"targetingKey": customer}})
    served.ask("GET", f"/v1/experiments/kept/assignments/{customer}")
    assert served.kept(customer) == {}
    first, second = (served.flag("experiment.kept", customer).json() for _ in range(2))
    assert (first["metadata"]["assignment"], second["metadata"]["assignment"]) == ("split", "sticky")
    assert first["value"] == second["value"]
    assert served.kept(customer)["kept"] == (first["value"], 0, 0.5)


def test_offers_as_a_flag_are_a_decision(served: Served) -> None:
    """A single evaluation is recorded and has its id; all flags together are neither, though they show the same offers."""
    before, customer = served.lines(), CUSTOMERS[3]
    every = {one["key"]: one for one in served.ask("POST", FLAGS, {"context": {"targetingKey": customer, "hour": 8}}).json()["flags"]}
    glimpsed = every["offers.home"]
    assert glimpsed["value"]["decision_id"] is None
    assert served.lines() == before
    told = served.flag("offers.home", customer, hour=8).json()
    assert served.lines() == before + 1
    decided = served.ask("POST", "/v1/decisions", {"customer_id": customer, "placement": "home", "context": {"hour": 8}}).json()
    ids = [[offer["offer_id"] for offer in offers] for offers in (told["value"]["offers"], glimpsed["value"]["offers"], decided["offers"])]
    assert ids[0] == ids[1] == ids[2] != []
    assert told["value"]["decision_id"] == told["metadata"]["decisionId"]
    assert told["reason"] in ("SPLIT", "DISABLED")
    assert all(type(value) in (bool, int, float, str) for one in every.values() for value in one["metadata"].values())


def test_all_flags_have_an_etag(served: Served) -> None:
    """What a client has already is answered with 304 and nothing else; another customer, or another arm, has another ETag."""
    body = {"context": {"targetingKey": CUSTOMERS[5]}}
    first = served.ask("POST", FLAGS + "?flagConfigEtag=x&flagConfigLastModified=1", body, "experiments")
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        same = served.ask("POST", FLAGS, body, "experiments", if_none_match=known)
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        assert not {"content-length", "content-type", "transfer-encoding"} & set(same.headers)
    for known in ('"other"', etag.strip('"')):
        assert served.ask("POST", FLAGS, body, "experiments", if_none_match=known).status_code == 200
    others = {served.ask("POST", FLAGS, {"context": {"targetingKey": one}}, "experiments").headers["etag"] for one in CUSTOMERS[:20]}
    assert len(others) > 5


def test_reasons(served: Served) -> None:
    """A split says so, an arm for everybody does not, and whoever is in no experiment has no value."""
    said = {customer: served.ask("GET", f"/v1/experiments/one-or-two/assignments/{customer}").json() for customer in CUSTOMERS}
    seen = set()
    for customer, one in said.items():
        for flag in ("experiment.one-or-two", "experiment.app-only", "experiment.idea"):
            told = served.flag(flag, customer, channel="app").json()
            reason = told["metadata"]["assignment"]
            seen.add((flag, told["reason"], reason))
            assert ("value" in told) == (reason in ("split", "sticky")) == bool(told["variant"])
            assert told["metadata"].get("holdout", False) == (one["group"] == "holdout")
    assert seen == {
        ("experiment.one-or-two", "SPLIT", "split"),
        ("experiment.one-or-two", "DISABLED", "not_covered"),
        ("experiment.one-or-two", "DISABLED", "holdout"),
        ("experiment.one-or-two", "DISABLED", "control_group"),
        ("experiment.app-only", "TARGETING_MATCH", "split"),
        ("experiment.app-only", "DISABLED", "holdout"),
        ("experiment.app-only", "DISABLED", "control_group"),
        ("experiment.idea", "DISABLED", "draft"),
    }
