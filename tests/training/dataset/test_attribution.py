"""What followed from recorded decisions: successes, offers that were seen, and decisions that say nothing yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features.common.timestamps import to_microseconds
from features.common.types import Event
from features.events.journal import Line
from features.lake.recorded_bundles import keep_bundle
from pipelines.shipping.ship import ship
from tests.pipelines.loops import line, log_events, workspace_in, write_lines
from training.dataset import recorded
from training.dataset.examples import Examples, NoExamples
from training.dataset.recorded import recorded_of

DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
MONDAY = datetime(2026, 9, 7, 12, tzinfo=UTC)
NOW = to_microseconds(MONDAY + 20 * DAY)
BUNDLE = "sha256:" + "b" * 64
OFFERS = ("summer-data", "say-nothing")


class Shop:
    """A workspace whose decisions and events are told one by one; the window is seven days."""

    def __init__(self, folder: Path) -> None:
        self.workspace = workspace_in(folder)
        contract = self.workspace.contract
        self.widths = [len(contract.of_kind(kind)) for kind in ("customer", "context", "offer", "pair")]
        keep_bundle(
            self.workspace, BUNDLE, contract, {c.name: ["x"] for c in contract.columns if c.dtype == "category"}
        )
        self.lines: list[Line] = []
        self.events: list[Event] = []

    def decide(
        self, name: str, at: datetime, customer: str = "c1", offers: tuple[str, ...] = OFFERS, bundle: str = BUNDLE
    ) -> None:
        customers, context, offer, pair = self.widths
        shown = len(offers)
        made = line(
            len(self.lines) + 1,
            shown=shown,
            decision_id=name,
            at=to_microseconds(at),
            customer_id=customer,
            offer_ids=list(offers),
            degraded=(),
            context={},
            shared=np.zeros(customers + context).tobytes(),
            offers=np.zeros((shown, offer)).tobytes(),
            pairs=np.zeros((shown, pair)).tobytes(),
        )
        self.lines.append(msgspec.structs.replace(made, versions=msgspec.structs.replace(made.versions, bundle=bundle)))

    def tell(
        self,
        kind: str,
        at: datetime,
        offer: str = OFFERS[0],
        customer: str = "c1",
        decision: str | None = None,
        **more: Any,
    ) -> None:
        fields = {
            "event_id": f"e{len(self.events)}",
            "type": kind,
            "occurred_at": at,
            "offer_id": offer,
            "decision_id": decision,
        }
        self.events.append(Event(**(fields | {"customer_id": customer} | more)))

    def examples(self, now: int = NOW) -> Examples:
        write_lines(self.workspace, "a", self.lines)
        log_events(self.workspace, self.events)
        ship(self.workspace)
        return recorded_of(self.workspace, now)


def rows(examples: Examples) -> dict[tuple[str, str], float]:
    """(decision, offer) of every row, with its label; copies of strangers are left out."""
    known = ~examples.strangers[examples.decision]
    return {
        (examples.ids[examples.decision[at]], examples.offer_ids[examples.offer[at]]): float(examples.labels[at])
        for at in np.flatnonzero(known)
    }


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "w")


def test_an_outcome_belongs_to_the_decision_that_it_names(shop: Shop) -> None:
    """Whoever reports it and however often; one that names none to the latest decision of the same customer that showed
    the offer.
    """
    shop.decide("named", MONDAY)
    shop.decide("later", MONDAY + DAY)
    shop.decide("early", MONDAY, "c2")
    shop.decide("late", MONDAY + DAY, "c2")
    shop.decide("other", MONDAY + 2 * DAY, "c2", offers=OFFERS[1:])
    for _ in range(2):
        shop.tell("accepted", MONDAY + DAY + TICK, customer="c1", decision="named")
        shop.tell("accepted", MONDAY + 3 * DAY, customer="c2")
    shop.tell("accepted", MONDAY + DAY, offer=OFFERS[1], customer="c9", decision="later")
    shop.tell("accepted", MONDAY + DAY, customer="c2", decision="nobody's")
    successes = {key for key, label in rows(shop.examples()).items() if label}
    assert successes == {("named", OFFERS[0]), ("later", OFFERS[1]), ("late", OFFERS[0])}


def test_the_window_decides(shop: Shop) -> None:
    """From the decision's moment to just before the end, whose clock may be behind; an open window says nothing yet,
    nor an unknown bundle.
    """
    times = {
        "at": MONDAY,
        "last": MONDAY + 7 * DAY - TICK,
        "end": MONDAY + 7 * DAY,
        "skew": MONDAY - TICK,
        "before": MONDAY - DAY / 4,
    }
    for name, moment in times.items():
        shop.decide(name, MONDAY, name)
        shop.tell("accepted", moment, customer=name, decision=name)
    shop.decide("open", MONDAY + 13 * DAY + TICK)
    shop.decide("closed", MONDAY + 13 * DAY)
    shop.decide("unknown", MONDAY, bundle="sha256:ff")
    shop.decide("foreign", MONDAY, offers=("not-in-the-catalogue",))
    found = rows(shop.examples())
    assert {key[0] for key in found} == {"at", "last", "end", "skew", "before", "closed"}
    assert {key[0] for key, label in found.items() if label} == {"at", "last", "skew"}
    assert recorded.count(shop.workspace, NOW) == recorded.RecordedCounts(6, 3)
    assert {key[0] for key in rows(recorded_of(shop.workspace, NOW + 1_000_000))} == {
        "at",
        "last",
        "end",
        "skew",
        "before",
        "closed",
        "open",
    }


def test_offers_that_nobody_saw_are_no_failures(shop: Shop) -> None:
    """On days that report impressions an offer counts when it was seen or answered; on other days every offer that was
    shown does.
    """
    shop.decide("silent", MONDAY)  # its day has no impressions at all
    shop.tell("accepted", MONDAY + DAY, decision="silent")
    tuesday = MONDAY + DAY
    for name in ("seen", "answered", "unseen", "unnamed", "too-late"):
        shop.decide(name, tuesday, name)
    shop.tell("impression", tuesday, customer="seen", decision="seen")
    shop.tell("impression", tuesday, customer="seen", decision="seen")
    shop.tell("dismissal", tuesday, OFFERS[1], customer="answered", decision="answered")
    shop.tell("impression", tuesday + timedelta(hours=23), OFFERS[1], customer="unnamed")
    shop.tell("impression", tuesday + DAY, customer="too-late")
    assert rows(shop.examples()) == {
        ("silent", OFFERS[0]): 1.0,
        ("silent", OFFERS[1]): 0.0,
        ("seen", OFFERS[0]): 0.0,
        ("answered", OFFERS[1]): 0.0,
        ("unnamed", OFFERS[1]): 0.0,
    }


def test_linked_units_are_one_customer(shop: Shop) -> None:
    """An acceptance after log-in that names no decision is of what was shown before, under the anonymous id."""
    shop.decide("before", MONDAY, "~x")
    shop.tell("identify", MONDAY + DAY, customer="c1", anonymous_id="x", offer_id=None)
    shop.tell("accepted", MONDAY + 2 * DAY, customer="c1")
    assert rows(shop.examples())["before", OFFERS[0]] == 1.0


def test_there_is_nothing_to_learn_from(shop: Shop) -> None:
    """No decisions, and none with a success: each is said with its remedy."""
    with pytest.raises(
        NoExamples, match="expected recorded decisions with a closed attribution window to learn from, got none"
    ):
        shop.examples()
    shop.decide("one", MONDAY)
    with pytest.raises(
        NoExamples, match=r"expected outcomes of type `accepted` within 7d of a decision, got none for 1 recorded"
    ):
        shop.examples()


def test_copies_of_strangers_know_nothing_of_the_customer(tmp_path: Path) -> None:
    """Some decisions come twice: the copy has the same offers and labels, and no value that is of the customer."""
    shop = Shop(tmp_path / "w")
    for number in range(60):
        shop.decide(f"d{number}", MONDAY + number * timedelta(hours=1), f"c{number}")
        if number % 2:
            shop.tell("accepted", MONDAY + number * timedelta(hours=1), customer=f"c{number}", decision=f"d{number}")
    examples = shop.examples()
    copies = np.flatnonzero(examples.strangers)
    assert 0 < len(copies) < 20 and len(examples.ids) == 60 + len(copies)
    kinds = {column.name: column for column in examples.contract.columns}
    missing = {
        name
        for name, column in kinds.items()
        if column.source.split(".")[0] in ("customer", "calls", "payments", "outcomes", "decisions")
    }
    for at in copies:
        copy, known = (examples.where(np.arange(len(examples.ids)) == number) for number in (at, at - 1))
        assert copy.ids == known.ids and (copy.labels == known.labels).all() and (copy.offer == known.offer).all()
        assert not np.isnan(known.values).any()
        names = {examples.contract.names[column] for column in np.flatnonzero(np.isnan(copy.values).all(axis=0))}
        assert names == {name for name in missing if kinds[name].kind in ("customer", "pair")}
