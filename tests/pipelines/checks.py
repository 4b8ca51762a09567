"""What the doctor finds in a workspace, and a good day in which it should find nothing."""

from __future__ import annotations

import warnings

import msgspec

from features.common.timestamps import MICROSECONDS, from_microseconds
from features.common.timestamps import now as clock
from features.common.types import Event
from features.events.rows import event_item
from features.events.semantics import time_of
from features.workspace.workspace import Workspace
from pipelines.doctor.doctor import DoctorReport, examine
from pipelines.doctor.facts.check import Finding
from tests.pipelines.workspace_life import CUSTOMERS, Life

DAY = 86_400 * MICROSECONDS


def healthy(life: Life, decisions: int, events: bool = True) -> None:
    """Customers ask, see what is shown, and sometimes take it."""
    gap = int(life.days * DAY) // (decisions + 10)
    for number in range(decisions):
        life.now += gap
        decision = life.decide(f"436{600_000 + number}", hour=life.random.random() * 24, roaming_now=number % 3 == 0)
        for offer in decision.offers if events else []:
            happened(life, decision.decision_id, decision.customer_id, offer.offer_id, "impression")
            if life.random.random() < 0.2:
                happened(life, decision.decision_id, decision.customer_id, offer.offer_id, "accepted", life.now + 1)


def happened(
    life: Life, decision: str, customer: str, offer: str, kind: str, at: int | None = None, name: str = ""
) -> Event:
    """Tell of an outcome or an impression."""
    event = Event(
        name or f"h{next(life.count)}",
        kind,
        from_microseconds(at or life.now),
        customer,
        decision_id=decision or None,
        offer_id=offer,
    )
    life.log.append([event_item(event, time_of(event))])
    return event


def looked(workspace: Workspace, *only: str, later: int = 0, url: str | None = None) -> DoctorReport:
    """Return what these checks find, or all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = examine(workspace, clock() + later, url, only)
    said = msgspec.json.encode([finding for finding in report.findings if finding.check != "absurd_shares"]).decode()
    assert not [customer for customer in CUSTOMERS if customer in said], (
        "no customer is named but one with an absurd share"
    )
    for finding in report.findings:
        assert finding.what and finding.todo, finding
    return report


def found(report: DoctorReport, check: str) -> Finding:
    """The finding of a check, which must be there."""
    here = [finding for finding in report.findings if finding.check == check]
    assert here, (check, report.findings, report.not_checked.get(check))
    return here[0]
