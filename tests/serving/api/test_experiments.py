"""Asking for variants over HTTP: what the routes of experiments say is what decisions do; asking changes nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from features.workspace.experiments import split_of
from tests.serving.edge_server import ROLE_KEYS
from tests.serving.trial_server import EXPERIMENTS, RUNNING
from tests.serving.trials import CUSTOMERS, FLAGS, Served

DECLARED: dict[str, Any] = EXPERIMENTS["experiments"]  # type: ignore[assignment]


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
