"""Whoever reads a history by an id reads it as a decision does: of an anonymous id that was linked, the customer's,
with what is new.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
import yaml

from features.common.timestamps import MICROSECONDS, from_microseconds, now
from features.common.types import Decision, DecisionRequest, Event
from features.lake.offers import read_catalogue
from pipelines.simulation.changed_files import changed
from pipelines.simulation.contact_card import card_of
from pipelines.simulation.simulate import SimulationQuery, simulate
from serving.state.snapshot import Snapshot
from tests.pipelines.in_process_server import Counter
from tests.serving.decisions import decide
from tests.trained import copy_of
from tests.workspaces import POLICIES

CUSTOMER, VISITOR = "436600010", "web-9"
LIMITS = {"limits": {"once": {"max": 1, "window": "30d", "per": "offer", "count": "decisions"}}}


@pytest.fixture(scope="module")
def counter(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Counter:
    """A visitor was decided for, then a customer, then the visitor turned out to be that customer, who withdrew a
    consent and called.
    """
    folder = copy_of(trained_workspace, tmp_path_factory.mktemp("links") / "shop")
    (folder / "policies.yaml").write_text(yaml.safe_dump(POLICIES | LIMITS))
    made = Counter(folder, {})
    moment = from_microseconds(now() - 1_000)

    async def live() -> None:
        await made.decide(anonymous_id=VISITOR)
        await made.decide(customer_id=CUSTOMER)
        await made.identify(VISITOR, CUSTOMER)
        calls = [
            Event(f"call-{n}", "calls", moment, CUSTOMER, fields={"minutes": 90.0, "topic": "roaming"})
            for n in range(9)
        ]
        await made.tell(Event("no", "consent", moment, CUSTOMER, purposes={"personalization": False}), *calls)

    asyncio.run(live())
    made.close()
    return made


def test_a_simulation_decides_as_the_service_would(counter: Counter, tmp_path: Path) -> None:
    """Of a visitor's and their customer's decisions, both sides are what desk and decision say of the customer, not of
    a stranger.
    """
    other = tmp_path / "other"
    other.mkdir()
    (other / "policies.yaml").write_text(
        yaml.safe_dump(POLICIES | LIMITS | {"arbitration": {"offers": {"offer-07": 50.0, "offer-03": 40.0}}})
    )
    at = now() // MICROSECONDS * MICROSECONDS
    found = simulate(counter.workspace, SimulationQuery(other, 2, 1, at))
    assert (found.source, found.result.customers, found.unknown_customers) == ("journal", 1, 0)
    again = Counter(counter.workspace.folder, {}, lambda: at)
    changes, _ = changed(again.workspace, other)
    after = Snapshot(
        changes,
        again.loaded.bundle,
        read_catalogue(changes),
        again.loaded.everyone,
        again.desk.stores.engine.words,
        at / MICROSECONDS,
    )
    request = msgspec.convert({"placement": "home", "anonymous_id": VISITOR}, DecisionRequest)

    def shown(loaded: Snapshot) -> Decision:
        person = asyncio.run(again.desk.stores.customers.known(request.unit, loaded, at, request))
        assert person.unit == CUSTOMER and person.consent and person.contacts
        return decide(
            request, loaded, person.row, at, contacts=person.contacts, unit=person.unit, consent=person.consent
        )

    slates = [tuple(offer.offer_id for offer in shown(loaded).offers) for loaded in (again.loaded, after)]
    stranger = decide(request, again.loaded, again.loaded.layout.plan.nobody(), at)
    again.close()
    assert [(one.customer_id, one.before, one.after) for one in found.result.changes] == [(CUSTOMER, *slates)] * 2
    assert slates[0] != tuple(offer.offer_id for offer in stranger.offers), "else a stranger would do"


def test_the_card_of_a_visitor_is_the_customers(counter: Counter) -> None:
    """Asked for the anonymous id, the card names the customer and holds what both were shown."""
    card = card_of(counter.workspace, f"~{VISITOR}", now())
    assert card["customer_id"] == CUSTOMER and len(card["entries"]) == 6
    assert card["entries"] == card_of(counter.workspace, CUSTOMER, now())["entries"]
