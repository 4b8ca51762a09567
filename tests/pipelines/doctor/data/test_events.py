"""The doctor on what comes in: decisions, impressions and events that are late, missing, or do not fit each other."""

from __future__ import annotations

import pytest

from features.common.timestamps import MICROSECONDS, from_microseconds
from features.common.types import Event
from features.events.rows import dead_item, event_item
from features.events.semantics import time_of
from pipelines.shipping.ship import ship
from tests.pipelines.checks import DAY, found, happened, healthy, looked
from tests.pipelines.workspace_life import CUSTOMERS, Life

pytestmark = pytest.mark.slow


def test_decisions_without_impressions(lived: Life) -> None:
    """Many decisions and not one impression is an error, with the moment of the first decision."""
    healthy(lived, 40, events=False)
    ship(lived.workspace)
    finding = found(looked(lived.workspace, "no_impressions"), "no_impressions")
    assert finding.severity == "error" and finding.evidence["decisions"] == 40 and finding.evidence["impressions"] == 0
    assert finding.since.startswith("20")


def test_events_that_do_not_fit_their_decisions(lived: Life) -> None:
    """Outcomes of decisions that nobody knows, outcomes before their decision, events of yesterday and of tomorrow are
    told apart.
    """
    healthy(lived, 60)
    name, customer, offer = lived.shown[0]
    for number in range(30):
        happened(lived, f"unknown-{number}", customer, offer, "accepted")
    for name, customer, offer in lived.shown[-30:]:
        happened(lived, name, customer, offer, "click", lived.now - DAY // 10 * 9)
    for _ in range(40):
        happened(lived, name, customer, offer, "click", lived.now + 200 * MICROSECONDS)
    ship(lived.workspace)
    report = looked(lived.workspace, "outcomes_without_decisions", "outcomes_before_decisions", "clocks_of_clients")
    assert found(report, "outcomes_without_decisions").evidence["unknown"] == 30
    assert found(report, "outcomes_before_decisions").evidence["outcomes_before"] >= 25
    assert "future" in found(report, "clocks_of_clients").what
    assert report.failed


def test_events_a_day_late(lived: Life) -> None:
    """Events that come a day after they happened are a warning."""
    lived.now += int(0.8 * DAY)
    for number in range(60):
        event = happened(
            lived, "", CUSTOMERS[number % 20], "offer-01", "click", lived.now - 2 * DAY if number % 3 else None
        )
        assert event.type == "click"
    lived.decide(CUSTOMERS[0])
    ship(lived.workspace)
    finding = found(looked(lived.workspace, "clocks_of_clients"), "clocks_of_clients")
    assert "late" in finding.what and finding.evidence["such"] == 40 and finding.severity == "warning"


def test_dead_letters_and_duplicates(lived: Life) -> None:
    """Dead letters are counted by their reason, and events that are sent again and again are told of."""
    event = happened(lived, "", CUSTOMERS[0], "offer-01", "click")
    for _ in range(30):
        lived.log.append([event_item(event, time_of(event))])
    lived.log.append([dead_item("offer-unknown", CUSTOMERS[0], b"{}")] * 20)
    report = looked(lived.workspace, "dead_letters", "duplicates")
    finding = found(report, "dead_letters")
    assert (
        finding.severity == "error"
        and finding.evidence["of_offer-unknown"] == 20
        and finding.evidence["accepted"] == 51
    )
    assert found(report, "duplicates").evidence["duplicates"] == 30


def test_nobody_ships(lived: Life) -> None:
    """Journals that nobody brings into the lake, journals that went before they were shipped, events that no table
    takes.
    """
    healthy(lived, 5)
    finding = found(looked(lived.workspace, "shipper", later=3_600 * MICROSECONDS), "shipper")
    assert finding.severity == "error" and float(finding.evidence["oldest_seconds"]) > 3_000
    ship(lived.workspace)
    assert "shipper" in looked(lived.workspace, "shipper", later=3_600 * MICROSECONDS).fine
    healthy(lived, 5)
    looked(lived.workspace, "shipper")
    event = Event("s1", "no_such_stream", from_microseconds(lived.now), CUSTOMERS[0])
    lived.log.append([event_item(event, time_of(event))])
    ship(lived.workspace)
    assert "no table" in found(looked(lived.workspace, "shipper"), "shipper").what


def test_days_that_are_missing(lived: Life) -> None:
    """Days without a decision between two days with some are named."""
    lived.now -= 5 * DAY
    healthy(lived, 5)
    lived.now += 3 * DAY
    healthy(lived, 5)
    ship(lived.workspace)
    assert float(found(looked(lived.workspace, "lake_days"), "lake_days").evidence["days"]) >= 1
