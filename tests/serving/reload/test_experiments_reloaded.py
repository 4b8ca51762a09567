"""Sticky assignments through a desk: read with the row, written once, found again under every id of the unit, and given
up honestly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from features.columns.rows import StoreUnavailable
from features.common.timestamps import MICROSECONDS
from features.common.types import Decision, DecisionRequest
from features.ledger.recent import Heard
from features.validation.load import load
from serving.assignment.assignment import NOBODY
from serving.decision.case import DecisionInputs
from serving.decision.decide import deciding
from serving.reload.reloader import Reloader
from tests.serving.live import serving_copy

CUSTOMER = "436600000"
ARMS = {"a": {"weight": 1.0}, "b": {"weight": 0.0}}
TURNED = {"a": {"weight": 0.0}, "b": {"weight": 1.0}}


def file(arms: dict[str, Any]) -> dict[str, Any]:
    """A sticky experiment for each kind of unit."""
    kinds = ("customer", "anonymous", "account")
    experiments = {kind: {"status": "running", "sticky": True, "unit": kind, "arms": arms} for kind in kinds}
    return {"account": "customer.tariff", "experiments": experiments}


@pytest.fixture
def folder(trained_workspace: Path, tmp_path: Path) -> Path:
    return serving_copy(trained_workspace, tmp_path / "shop")


@pytest.fixture
def desks(folder: Path) -> Iterator[list[Reloader]]:
    """One before and one after the split has turned round; they share the ledger."""
    made = []
    for arms in (ARMS, TURNED):
        (folder / "experiments.yaml").write_text(yaml.safe_dump(file(arms), sort_keys=False))
        desk = Reloader(load(folder, sources=False))
        desk.load()
        assert desk.loaded is not None, desk.refusal
        made.append(desk)
    yield made
    for desk in made:
        desk.close()


def decided(desk: Reloader, **who: str) -> Decision:
    """As the server does it."""
    request = msgspec.convert({"placement": "home", **who}, DecisionRequest)

    async def work() -> Decision:
        loaded, now = desk.loaded, desk.clock()
        assert loaded is not None
        customer = await desk.stores.customers.known(request.unit, loaded, now, request)
        steps = deciding(DecisionInputs(request, loaded, customer, now))
        try:
            asked = next(steps)
            while True:
                asked = steps.send(await desk.stores.effects.run(asked, customer.contacts))
        except StopIteration as done:
            found: Decision = done.value
            return found

    return asyncio.run(work())


def arms(decision: Decision) -> dict[str, tuple[str, str]]:
    assert decision.experiments is not msgspec.UNSET
    return {one.key: (one.arm, one.reason) for one in decision.experiments}


def test_each_unit_keeps_its_own(desks: list[Reloader]) -> None:
    """Customer, anonymous id and account each keep their arm, whichever request names them, and others are drawn
    anew.
    """
    before, after = desks
    both = {"customer_id": CUSTOMER, "anonymous_id": "web-1"}
    assert set(arms(decided(before, **both)).values()) == {("a", "split")}
    assert arms(decided(after, **both)) == dict.fromkeys(("customer", "anonymous", "account"), ("a", "sticky"))
    alone = arms(decided(after, anonymous_id="web-1"))
    assert alone["anonymous"] == ("a", "sticky") and "customer" not in alone
    assert arms(decided(after, customer_id=CUSTOMER))["account"] == ("a", "sticky")
    assert arms(decided(after, customer_id="somebody", anonymous_id="web-2")) == {
        "customer": ("b", "split"),
        "anonymous": ("b", "split"),
    }


def test_a_link_brings_the_arms_of_the_anonymous_id(desks: list[Reloader]) -> None:
    """After `identify` the anonymous id keeps its arm, as the customer's, and the customer's own are what they were."""
    before, after = desks
    assert arms(decided(before, anonymous_id="web-3")) == {"anonymous": ("a", "split")}
    assert after.loaded is not None
    now = after.clock()
    heard = [Heard("~web-3", identify=CUSTOMER, received=now)]
    asyncio.run(after.stores.ledger.hear(heard, after.loaded.hub.contacting.policy, now / MICROSECONDS))
    for who in ({"anonymous_id": "web-3"}, {"customer_id": CUSTOMER, "anonymous_id": "web-3"}):
        found = arms(decided(after, **who))
        assert found["anonymous"] == ("a", "sticky") and found["customer"][0] == "b"


def test_without_its_ledger_a_desk_goes_by_the_hash(desks: list[Reloader]) -> None:
    """The ledger away: the arm of the hash, degraded, nothing written; back again, what was kept before holds."""
    before, after = desks
    decided(before, customer_id=CUSTOMER)
    ledger = after.stores.ledger

    class Away:
        def __getattr__(self, name: str) -> Any:
            raise StoreUnavailable("away")

    after.stores.ledger = Away()  # type: ignore[assignment]
    found = decided(after, customer_id=CUSTOMER)
    assert arms(found)["customer"] == ("b", "split") and "contacts_unavailable" in found.degraded
    after.stores.ledger = ledger
    again = decided(after, customer_id=CUSTOMER)
    assert arms(again)["customer"] == ("a", "sticky") and again.degraded == ()


def test_who_is_not_asked_keeps_nothing(desks: list[Reloader]) -> None:
    """Without a request, or without sticky experiments, nothing more is read."""
    desk = desks[0]
    assert desk.loaded is not None
    assert asyncio.run(desk.stores.customers.known(CUSTOMER, desk.loaded)).sticky == NOBODY
