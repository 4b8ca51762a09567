"""Asking for variants over HTTP: what the routes of experiments and flags say is what decisions do, and asking changes
nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import httpx
import pytest

from features.validation.load import load
from features.workspace.experiments import split_of
from serving.api.decisions import Decisions
from serving.api.experiments import ExperimentRoutes
from serving.api.flags import Flags
from serving.api.preview import Enquiry
from serving.http.app import FrontDoor
from serving.http.auth import KeyEntry, Keys
from serving.hub.request_check import UnknownPlacement
from serving.journal.journal import Journal
from serving.reload.reloader import Reloader
from serving.runtime.metrics import Metrics
from tests.serving import edge_server as edge
from tests.serving.edge_server import ROLE_KEYS
from tests.serving.trial_server import EXPERIMENTS, RUNNING, trial_workspace

CUSTOMERS = [f"436{600_000 + number}" for number in range(80)]
FLAGS = "/ofrep/v1/evaluate/flags"
DECLARED: dict[str, Any] = EXPERIMENTS["experiments"]  # type: ignore[assignment]


class Served(NamedTuple):
    desk: Reloader
    journal: Journal
    client: httpx.Client
    port: int

    def ask(self, method: str, path: str, body: Any = None, role: str = "admin", **headers: str) -> httpx.Response:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"x-api-key": ROLE_KEYS[role]} if role else {}
        fields |= {"content-type": "application/json"} if content is not None else {}
        return self.client.request(
            method, path, content=content, headers=fields | {k.replace("_", "-"): v for k, v in headers.items()}
        )

    def flag(self, flag: str, customer: str, role: str = "admin", **context: Any) -> httpx.Response:
        return self.ask("POST", f"{FLAGS}/{flag}", {"context": {"targetingKey": customer} | context}, role)

    def kept(self, unit: str) -> dict[str, Any]:
        known = self.desk.stores.ledger.look_now(unit)
        assert known is not None
        return dict(known.recent.kept)

    def lines(self) -> int:
        """How many decisions were recorded."""
        return int(
            self.ask("GET", "/metrics")
            .text.partition('opportune_journal_lines_total{result="recorded"} ')[2]
            .split("\n")[0]
        )


@pytest.fixture(scope="module")
def served(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Decisions, experiments and flags behind the front door, with keys, over real sockets; the desk in this
    process.
    """
    workspace = load(trial_workspace(trained_workspace, tmp_path_factory.mktemp("routes") / "shop"), sources=False)
    desk, metrics, journal = Reloader(workspace), Metrics(), Journal.open(workspace.data / "journal")
    decisions = Decisions(desk, workspace, metrics, journal)
    desk.on_build = lambda made: journal.keep(made.offer_table)
    enquiry = Enquiry(desk)
    routes = (*decisions.routes(edge.inner), *ExperimentRoutes(enquiry).routes(), *Flags(enquiry, decisions).routes())
    entries = [
        KeyEntry(f"{role}-key", hashlib.sha256(key.encode()).hexdigest(), role) for role, key in ROLE_KEYS.items()
    ]  # type: ignore[arg-type]
    lane = FrontDoor(routes, Keys(tuple(entries)), metrics=metrics, inner=edge.inner)
    desk.load()
    assert desk.loaded is not None, desk.refusal
    with edge.served(lane) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield Served(desk, journal, client, port)
    desk.close()
    journal.close()


def test_experiments_are_listed(served: Served) -> None:
    """Every experiment of the file is there with its arms, whose shares are those of the split, and one of which is the
    control.
    """
    told = served.ask("GET", "/v1/experiments", role="experiments").json()
    assert [one["key"] for one in told["experiments"]] == list(DECLARED)
    assert (told["holdout"], told["control_groups"]) == (0.1, {"random_eligible": 0.05})
    file = served.desk.workspace.experiments.experiments
    for one in told["experiments"]:
        split = split_of(one["key"], file[one["key"]])
        assert [arm["share"] for arm in one["arms"]] == list(split.shares)
        assert one["covered"] == split.covered
        assert [arm["arm"] for arm in one["arms"] if arm["control"]] == [
            "right" if one["key"] == "visitor" else one["arms"][0]["arm"]
        ]
        assert (one["status"], one["unit"]) == (
            DECLARED[one["key"]].get("status", "draft"),
            DECLARED[one["key"]].get("unit", "customer"),
        )


def test_all_ways_of_asking_agree_with_decisions(served: Served) -> None:
    """One experiment of one unit, a batch, single flags, all flags, and then decisions: the same arms with the same
    probabilities.
    """
    requests = [{"customer_id": customer, "context": {"channel": "app"}} for customer in CUSTOMERS]
    batch = served.ask("POST", "/v1/assignments", {"requests": requests}).json()["results"]
    groups = set()
    for customer, said in zip(CUSTOMERS, batch, strict=True):
        by_key = {one["experiment"]: one for one in said["assignments"]}
        groups.add(said["group"])
        assert list(by_key) == list(DECLARED)
        for key in ("headline", "one-or-two", "kept", "rich"):
            one = served.ask("GET", f"/v1/experiments/{key}/assignments/{customer}").json()
            assert one == {"unit": customer, "group": said["group"], "assignment": by_key[key], "degraded": []}
        assert said["degraded"] == []
        flags = {
            one["key"]: one
            for one in served.ask("POST", FLAGS, {"context": {"targetingKey": customer, "channel": "app"}}).json()[
                "flags"
            ]
        }
        for key in RUNNING:
            if DECLARED[key].get("unit") != "anonymous":
                assert flags[f"experiment.{key}"].get("value") == by_key[key]["arm"]
                assert flags[f"experiment.{key}"]["metadata"].get("probability") == by_key[key]["probability"]
        assert served.kept(customer) == {}
        decision = served.ask(
            "POST", "/v1/decisions", {"customer_id": customer, "placement": "home", "context": {"channel": "app"}}
        ).json()
        assert decision["group"] == said["group"]
        arms = [
            (one["experiment"], one["arm"], one["probability"], one["reason"])
            for one in said["assignments"]
            if one["arm"]
        ]
        assert [(one["key"], one["arm"], one["probability"], one["reason"]) for one in decision["experiments"]] == arms
    assert groups == {None, "holdout", "random_eligible"}


def test_units_of_every_kind(served: Served) -> None:
    """An anonymous id with and without its sign, and an account, are asked for by the experiment's own kind."""
    split = split_of("visitor", served.desk.workspace.experiments.experiments["visitor"])
    for anonymous in ("a1", "b2", "c3"):
        told = served.ask("GET", f"/v1/experiments/visitor/assignments/{anonymous}").json()
        assert (
            told["assignment"]
            == served.ask("GET", f"/v1/experiments/visitor/assignments/~{anonymous}").json()["assignment"]
        )
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
    ("GET", "/v1/experiments/headline/assignments/%7E1", None, 422, "field-format", "/unit"),
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
    (
        "POST",
        "/v1/assignments",
        {"requests": [{"customer_id": "1", "context": {"moon": 1}}]},
        422,
        "field-unknown",
        "/requests/0/context",
    ),
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
    ("method", "path", "body", "status", "slug", "pointer"),
    BAD,
    ids=[f"{row[1][:40]} {row[4]} {row[5]}" for row in BAD],
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
    keys = {
        role: {one["key"] for one in served.ask("POST", FLAGS, body, role).json()["flags"]}
        for role in ("experiments", "decide")
    }
    assert keys["experiments"] == {f"experiment.{key}" for key in DECLARED}
    assert keys["decide"] == keys["experiments"] | {"offers.home", "offers.bill"}
    bearer = served.client.post(
        f"{FLAGS}/experiment.headline", json=body, headers={"authorization": f"Bearer {ROLE_KEYS['experiments']}"}
    )
    assert bearer.status_code == 200


def test_a_single_flag_of_a_sticky_experiment_is_kept(served: Served) -> None:
    """The first evaluation writes the arm down, the second finds it; all flags together and the route of experiments
    write nothing.
    """
    customer = next(
        one for one in map(str, range(100, 200)) if served.flag("experiment.headline", one).json().get("value")
    )
    served.ask("POST", FLAGS, {"context": {"targetingKey": customer}})
    served.ask("GET", f"/v1/experiments/kept/assignments/{customer}")
    assert served.kept(customer) == {}
    first, second = (served.flag("experiment.kept", customer).json() for _ in range(2))
    assert (first["metadata"]["assignment"], second["metadata"]["assignment"]) == ("split", "sticky")
    assert first["value"] == second["value"]
    assert served.kept(customer)["kept"] == (first["value"], 0, 0.5)


def test_offers_as_a_flag_are_a_decision(served: Served) -> None:
    """A single evaluation is recorded and has its id; all flags together are neither, though they show the same
    offers.
    """
    before, customer = served.lines(), CUSTOMERS[3]
    every = {
        one["key"]: one
        for one in served.ask("POST", FLAGS, {"context": {"targetingKey": customer, "hour": 8}}).json()["flags"]
    }
    glimpsed = every["offers.home"]
    assert glimpsed["value"]["decision_id"] is None
    assert served.lines() == before
    told = served.flag("offers.home", customer, hour=8).json()
    assert served.lines() == before + 1
    decided = served.ask(
        "POST", "/v1/decisions", {"customer_id": customer, "placement": "home", "context": {"hour": 8}}
    ).json()
    ids = [
        [offer["offer_id"] for offer in offers]
        for offers in (told["value"]["offers"], glimpsed["value"]["offers"], decided["offers"])
    ]
    assert ids[0] == ids[1] == ids[2] != []
    assert told["value"]["decision_id"] == told["metadata"]["decisionId"]
    assert told["reason"] in ("SPLIT", "DISABLED")
    assert all(type(value) in (bool, int, float, str) for one in every.values() for value in one["metadata"].values())


def test_all_flags_have_an_etag(served: Served) -> None:
    """What a client has already is answered with 304 and nothing else; another customer, or another arm, has another
    ETag.
    """
    body = {"context": {"targetingKey": CUSTOMERS[5]}}
    first = served.ask("POST", FLAGS + "?flagConfigEtag=x&flagConfigLastModified=1", body, "experiments")
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        same = served.ask("POST", FLAGS, body, "experiments", if_none_match=known)
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        assert not {"content-length", "content-type", "transfer-encoding"} & set(same.headers)
    for known in ('"other"', etag.strip('"')):
        assert served.ask("POST", FLAGS, body, "experiments", if_none_match=known).status_code == 200
    others = {
        served.ask("POST", FLAGS, {"context": {"targetingKey": one}}, "experiments").headers["etag"]
        for one in CUSTOMERS[:20]
    }
    assert len(others) > 5


def test_reasons(served: Served) -> None:
    """A split says so, an arm for everybody does not, and whoever is in no experiment has no value."""
    said = {
        customer: served.ask("GET", f"/v1/experiments/one-or-two/assignments/{customer}").json()
        for customer in CUSTOMERS
    }
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


KEYS_IN_PATHS = {
    "experiment.headline": 200,
    "experiment%2Eheadline": 200,
    "%65xperiment.head%6cine": 200,
    "experiment.headline/": 404,
    "experiment.headline%2F": 404,
    "experiment.head%20line": 404,
    "experiment.t%C3%A9te": 404,
    "experiment.%zz": 404,
    "experiment.a/b": 404,
    "": 404,
    "experiment.": 404,
    "offers.%2e%2e": 404,
    "x" * 200: 404,
}


@pytest.mark.parametrize(("came", "status"), KEYS_IN_PATHS.items(), ids=[came[:30] for came in KEYS_IN_PATHS])
def test_keys_in_paths(served: Served, came: str, status: int) -> None:
    """Escapes in a key stand for bytes of UTF-8; whatever is no flag is FLAG_NOT_FOUND, with the key that was asked
    for.
    """
    status_line, fields, body = edge.split(edge.raw(served.port, evaluation(f"{FLAGS}/{came}")))
    told = json.loads(body)
    assert (status_line, fields["content-type"]) == (status, "application/json")
    assert told["key"] == unquote(came)
    assert status == 200 or (told["errorCode"], bool(told["errorDetails"])) == ("FLAG_NOT_FOUND", True)


def evaluation(
    path: str, *fields: str, body: bytes = b'{"context":{"targetingKey":"7"}}', role: str = "admin"
) -> bytes:
    """The bytes of an evaluation."""
    key = [f"X-API-Key: {ROLE_KEYS[role]}"] if role else []
    return edge.post(body, *(fields or ("Content-Type: application/json",)), *key, path=path)


OTHER_REQUESTS = {
    "charset": (evaluation(f"{FLAGS}/experiment.idea", 'Content-Type: application/json; charset="UTF-8"'), 200, ""),
    "no type": (evaluation(f"{FLAGS}/experiment.idea", "X-Nothing: 1"), 415, "GENERAL"),
    "text": (evaluation(f"{FLAGS}/experiment.idea", "Content-Type: text/plain"), 415, "GENERAL"),
    "accepts html": (
        evaluation(f"{FLAGS}/experiment.idea", "Content-Type: application/json", "Accept: text/html"),
        406,
        "GENERAL",
    ),
    "array": (evaluation(FLAGS, body=b"[]"), 400, "PARSE_ERROR"),
    "null": (evaluation(FLAGS, body=b"null"), 400, "PARSE_ERROR"),
    "text as JSON": (evaluation(FLAGS, body=b'"x"'), 400, "PARSE_ERROR"),
    "nothing": (evaluation(FLAGS, body=b""), 400, "PARSE_ERROR"),
    "bulk nobody": (evaluation(FLAGS, body=b'{"context":{}}'), 400, "TARGETING_KEY_MISSING"),
    "bulk unfit": (evaluation(FLAGS, body=b'{"context":{"targetingKey":["7"]}}'), 400, "INVALID_CONTEXT"),
}


@pytest.mark.parametrize(("request_bytes", "status", "code"), OTHER_REQUESTS.values(), ids=OTHER_REQUESTS)
def test_other_requests_for_flags(served: Served, request_bytes: bytes, status: int, code: str) -> None:
    """Whatever is wrong with an evaluation is said in OFREP's form, with a code that OFREP knows."""
    answered, fields, body = edge.split(edge.raw(served.port, request_bytes))
    assert (answered, fields["content-type"], json.loads(body).get("errorCode", "")) == (
        status,
        "application/json",
        code,
    )


@pytest.mark.parametrize("path", [FLAGS, f"{FLAGS}/experiment.idea"])
def test_who_may_not_gets_no_body(served: Served, path: str) -> None:
    """401 and 403 have no body, and say no type of it; 401 says how to present a key."""
    for role, status in (("", 401), ("events", 403)):
        answered, fields, body = edge.split(edge.raw(served.port, evaluation(path, role=role)))
        assert (answered, body, fields["content-length"]) == (status, b"", "0")
        assert "content-type" not in fields and ("www-authenticate" in fields) == (status == 401)


def test_other_methods_on_flags(served: Served) -> None:
    """Evaluations are posted: other methods are 405 with the one that is allowed, and HEAD has no body."""
    for method in ("GET", "HEAD", "PUT", "OPTIONS"):
        for path in (FLAGS, f"{FLAGS}/experiment.idea", f"{FLAGS}/a%20b"):
            answered, fields, body = edge.split(
                edge.raw(served.port, evaluation(path, body=b"").replace(b"POST", method.encode(), 1))
            )
            assert (answered, fields["allow"], body == b"") == (405, "POST", method == "HEAD")


def test_if_none_match(served: Served) -> None:
    """A client's list may come in several fields, weak or strong; what looks like the ETag but is none does not
    match.
    """
    plain = served.ask("POST", FLAGS, {"context": {"targetingKey": "7"}}, "experiments")
    etag, fixed = plain.headers["etag"], served.ask("GET", "/ofrep/v1/configuration").headers["etag"]
    assert etag[0] == etag[-1] == '"' and len(etag) > 20
    for given, status in (
        ((etag,), 304),
        ((f"W/{etag}", '"b"'), 304),
        (('"a"', etag, '"b"'), 304),
        ((f'"a",,\t{etag} , "b"',), 304),
        (("*",), 304),
        ((etag[:-1],), 200),
        ((etag.replace('"', "'"),), 200),
        (("",), 200),
    ):
        fields = [f"If-None-Match: {one}" for one in given]
        answered, answer, body = edge.split(
            edge.raw(served.port, evaluation(FLAGS, "Content-Type: application/json", *fields, role="experiments"))
        )
        assert (answered, answer["etag"], body == b"") == (status, etag, status == 304), given
    assert served.ask("GET", "/ofrep/v1/configuration", if_none_match=fixed).status_code == 304
    head = served.ask("HEAD", "/ofrep/v1/configuration")
    assert (head.status_code, head.headers["etag"], head.content) == (200, fixed, b"")


def test_flags_of_files_that_are_gone(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A placement that new files took away while all flags were on their way is not found; the others are answered."""
    glimpse = Enquiry.glimpse

    async def gone(enquiry: Enquiry, request: Any) -> Any:
        if request.placement == "bill":
            raise UnknownPlacement("bill")
        return await glimpse(enquiry, request)

    monkeypatch.setattr(Enquiry, "glimpse", gone)
    flags = {one["key"]: one for one in served.ask("POST", FLAGS, {"context": {"targetingKey": "7"}}).json()["flags"]}
    assert (flags["offers.bill"]["errorCode"], flags["offers.home"]["reason"]) == (
        "FLAG_NOT_FOUND",
        flags["offers.home"]["reason"],
    )


def test_figures_by_arm(served: Served) -> None:
    """What /metrics says by arm and group is what was answered: decisions, exposures of arms that change them, and
    flags.
    """

    def told() -> Counter[str]:
        lines = served.ask("GET", "/metrics").text.splitlines()
        found = (line.rpartition(" ") for line in lines if line.startswith(("opportune_arm_", "opportune_group_")))
        return Counter({name: int(value) for name, _, value in found})

    before, wanted = told(), Counter[str]()
    for customer in CUSTOMERS[:30]:
        for placement in ("home", "bill"):
            decision = served.ask("POST", "/v1/decisions", {"customer_id": customer, "placement": placement}).json()
            for one in decision["experiments"]:
                arm = f'{{experiment="{one["key"]}",arm="{one["arm"]}"}}'
                wanted[f"opportune_arm_decisions_total{arm}"] += 1
                wanted[f"opportune_arm_exposures_total{arm}"] += one["key"] == "one-or-two" and placement == "home"
            if decision["group"]:
                wanted[f'opportune_group_decisions_total{{group="{decision["group"]}"}}'] += 1
        flag = served.flag("experiment.headline", customer).json()
        if "value" in flag:
            wanted[f'opportune_arm_flags_total{{experiment="headline",arm="{flag["value"]}"}}'] += 1
    assert told() - before == +wanted
    assert {name.partition("{")[0] for name in +wanted} >= {
        f"opportune_arm_{what}_total" for what in ("decisions", "exposures", "flags")
    }
    assert not any(customer in name for name in told() for customer in CUSTOMERS)
