"""Forgetting under a running service: every worker knows the customer no more, and nothing that it says or logs ever
named one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from features.validation.load import load
from pipelines.erasure.erase import forget
from tests.serving.live import Live, wait_for
from tests.trained import copy_of

VICTIM, STRANGER = "436600008", "nobody-knows-them"
CANARIES = ("canary-customer-1", "canary-visitor-2", "canary-value-3")
SEEN_SECONDS_MAX = 180.0


@pytest.fixture
def live(trained_workspace: Path, tmp_path: Path) -> Any:
    """Two workers over the embedded store of a copy."""
    made = Live(copy_of(trained_workspace, tmp_path / "shop"), workers=2).start()
    yield made
    made.stop()


def answered(live: Live, customer: str) -> dict[str, Any]:
    """By worker, what it answers for a customer, but for names, moments and the order of ties; asked until both have
    answered.
    """
    found: dict[str, Any] = {}

    def asked() -> bool:
        said = live.decide(customer)
        worker = said["decision_id"].split("-")[1]
        found[worker] = (
            [(offer["score"], offer["propensity"]) for offer in said["offers"]],
            said["considered"],
            said["degraded"],
        )
        return len(found) == live.workers

    wait_for(asked, what="an answer of each worker")
    return found


@pytest.mark.slow
def test_all_workers_forget(live: Live) -> None:
    """Before, both workers know the customer; after the forgetting returns, both answer as for a stranger, within 60
    s.
    """
    strange = next(iter(answered(live, STRANGER).values()))
    assert all(said != strange for said in answered(live, VICTIM).values()), (
        "the customer is as a stranger: the test shows nothing"
    )
    workspace = load(live.workspace)
    done = forget(workspace, VICTIM)
    assert done.places["journal"].found > 0
    assert (done.done, done.proof.plaintext_hits) == (True, 0), done
    seconds = wait_for(lambda: all(said == strange for said in answered(live, VICTIM).values()), SEEN_SECONDS_MAX)
    print(
        f"  forgotten in {done.seconds} s, {done.proof.files} files read; strangers to both workers {seconds:.1f} s"
        " later"
    )
    assert not answered(live, STRANGER)[next(iter(answered(live, STRANGER)))][2], (
        "degraded: the swapped store was not opened"
    )


@pytest.mark.slow
def test_nothing_names_a_customer(live: Live) -> None:
    """Canaries as ids and values, in good requests and bad, with stores whole and broken: no log, metric or problem
    repeats one.
    """
    customer, visitor, value = CANARIES
    data, said = load(live.workspace).data, [b""]
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/v1/decisions", {"customer_id": customer, "placement": "home", "context": {"channel": value}}),
        ("POST", "/v1/decisions", {"customer_id": customer, "placement": "home", "context": {value: 1}}),
        ("POST", "/v1/decisions", {"customer_id": customer + " ", "placement": value}),
        ("POST", "/v1/decisions", {"anonymous_id": visitor, "placement": "home", "exclude": [value]}),
        ("POST", "/v1/decisions", {customer: customer}),
        ("POST", "/v1/decisions", f"{{{customer}".encode()),
        ("POST", "/v1/events", {"events": [{"event_id": visitor, "type": value, "customer_id": customer}]}),
        ("DELETE", f"/v1/customers/{customer},", None),
        ("GET", f"/v1/{customer}", None),
        ("POST", "/decide", {"customer_id": customer, "placement": "home", "context": {"channel": value}}),
    ]

    def ask_all() -> None:
        for _ in range(4):
            for method, path, body in requests:
                answer = live.ask(method, path, body)
                assert answer.status, answer
                if answer.status >= 400:
                    said.append(answer.body)
        said.append(live.ask("GET", "/metrics").body)

    ask_all()
    assert live.ask("POST", "/v1/decisions", {"customer_id": customer, "placement": "home"}).status == 200
    shutil.rmtree(data / "online")
    (data / "ledger" / "data.mdb").unlink(missing_ok=True)
    wait_for(lambda: "features_unavailable" in live.decide(customer)["degraded"])
    ask_all()
    said.append(live.said.encode())
    said += [file.read_bytes() for file in (data / "logs").glob("*")]
    assert sum(map(len, said)) > 5_000, "hardly anything was said: the test shows nothing"
    assert b"urn:opportune:problem:" in b"".join(said)
    for canary in CANARIES:
        assert all(canary.encode() not in one for one in said), canary
