"""The doctor on data: customers who are none, ids written in two ways, time zones that nobody understands, tables that
stopped, clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.common.timestamps import DAY_SECONDS, MICROSECONDS, from_microseconds
from features.common.timestamps import now as clock
from features.common.types import Event
from features.events.log import EventLog, event_folder
from features.events.rows import event_item
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.doctor.data import customers as customers_checks
from pipelines.doctor.data import data as data_checks
from pipelines.doctor.data import offers, streams
from pipelines.doctor.facts.check import CannotSay, Finding
from pipelines.doctor.facts.gather import Facts
from pipelines.materialize import steps
from pipelines.shipping.ship import ship
from tests.tiny_workspaces import bank, write

DAY = DAY_SECONDS * MICROSECONDS


def told(check: Any, workspace: Workspace, now: int | None = None) -> Sequence[Finding]:
    facts = Facts(workspace, now or clock())
    try:
        found: Sequence[Finding] = check(facts).findings
        return found
    finally:
        facts.close()


def logged(workspace: Workspace, event: Event, at: int) -> None:
    """Put an event into the log as received at a moment."""
    log = EventLog(event_folder(workspace.data), clock=lambda: at)
    log.append([event_item(event, at)])
    log.close()


def moves(folder: Path, ids: Sequence[str], customers: Sequence[str] = (), **source: Any) -> Workspace:
    """Import a bank with one payment for each of these ids, and these customers; `source` says more about the payments'
    file.
    """
    rows = [
        {"customer_id": who, "time": f"2026-06-01T10:{at % 60:02}:{at // 60 % 60:02}Z", "amount": at, "kind": "card"}
        for at, who in enumerate(ids)
    ]
    sources: dict[str, Any] = {"streams.moves": {"path": write(folder / "moves.csv", rows), **source}}
    if customers:
        sources["customers"] = write(
            folder / "customers.csv", [{"customer_id": who, "valid_from": "2026-01-01"} for who in customers]
        )
    workspace = bank(folder, sources)
    steps.import_tables(workspace, clock())
    return workspace


def test_a_customer_with_an_absurd_share_is_named(tmp_path: Path) -> None:
    """Forty payments of one id among a hundred of fifty customers are told with the id; two or six times as many as
    others are not (D7).
    """
    ids = [f"c{at % 50}" for at in range(100)]
    (finding,) = told(customers_checks.absurd_shares, moves(tmp_path / "odd", [*ids, *["guest"] * 40]))
    assert "'guest'" in finding.what and finding.evidence["rows"] == 40 and finding.evidence["table"] == "streams.moves"
    assert not told(customers_checks.absurd_shares, moves(tmp_path / "even", [*ids, *["c1"] * 10]))


def test_ids_that_programs_write_for_nothing(tmp_path: Path) -> None:
    """One row of `undefined`, where the workspace takes such words as they are, is told; noone is an id like others
    (D7).
    """
    found = told(
        customers_checks.ids_that_are_none, moves(tmp_path / "w", ["c1", "undefined", "90.5", "noone"], missing=[])
    )
    assert [(one.evidence["such"], one.evidence["id"]) for one in found] == [(1, "undefined")]
    assert not told(customers_checks.ids_that_are_none, moves(tmp_path / "fine", ["90.5", "noone", "c1"]))


def test_ids_that_programs_write_with_a_point(tmp_path: Path) -> None:
    """Ids like 9001.0 are told by name; 90.5 is an id like others (D6)."""
    (finding,) = told(data_checks.ids_with_tails, moves(tmp_path / "w", ["c1", "9001.0", "9002.0", "90.5"]))
    assert finding.evidence["such"] == 2 and "9001.0" in finding.what


def test_tables_that_do_not_know_each_other(tmp_path: Path) -> None:
    """Payments of `9001.0` beside customers `9001` are an error; payments of half of the customers are none (D6)."""
    ids = [str(9_000 + at) for at in range(120)]
    found = told(data_checks.ids_in_common, moves(tmp_path / "odd", [f"{one}.0" for one in ids], ids))
    assert {one.severity for one in found} == {"error"} and max(one.evidence["rows_of_unknown"] for one in found) == 120
    assert not told(data_checks.ids_in_common, moves(tmp_path / "even", ids, ids[:60]))


def test_time_zones_that_nobody_understands(tmp_path: Path) -> None:
    """Zones of customers that quiet hours go by are counted where they are none; those that are understood are not
    (D9).
    """
    folder = tmp_path / "w"
    zones = ["Europe/Berlin"] * 5 + ["Mars/Olympus"] * 3 + ["+25:00"] + [""]
    rows = [{"customer_id": f"c{at}", "valid_from": "2026-01-01", "city": zone} for at, zone in enumerate(zones)]
    bank(folder, {"customers": write(folder / "customers.csv", rows)})
    quiet = {"night": {"begin": "22:00", "end": "06:00", "time_zone": "customer.city"}}
    (folder / "policies.yaml").write_text(yaml.safe_dump({"quiet_hours": quiet}))
    workspace = load(folder)
    steps.import_tables(workspace, clock())
    (finding,) = told(customers_checks.time_zones, workspace)
    assert finding.evidence["customers"] == 4 and finding.evidence["Mars/Olympus"] == 3


def test_a_stream_that_stopped(tmp_path: Path) -> None:
    """Events came each hour, and none for two days: told, with the last hour; a night without any is not."""
    workspace = bank(tmp_path / "w", {})
    begun = clock() - 30 * 3_600 * MICROSECONDS
    for hour in range(8):
        at = begun + hour * 3_600 * MICROSECONDS
        event = Event(f"e{hour}", "moves", from_microseconds(at), f"c{hour}", fields={"amount": 1.0, "kind": "card"})
        logged(workspace, event, at)
    ship(workspace)
    last = begun + 7 * 3_600 * MICROSECONDS
    assert not told(streams.streams_stopped, workspace, last + 9 * 3_600 * MICROSECONDS)
    (finding,) = told(streams.streams_stopped, workspace, last + 2 * DAY)
    assert "streams.moves" in finding.what and 46 < float(finding.evidence["hours_without"]) < 50


def test_a_clock_that_went_back(tmp_path: Path) -> None:
    """Records of an hour ahead are an error with the seconds; before anything is recorded nobody can say."""
    workspace = bank(tmp_path / "w", {})
    with pytest.raises(CannotSay):
        told(streams.clock_behind, workspace)
    event = Event("e1", "moves", from_microseconds(clock()), "c1", fields={"amount": 1.0, "kind": "card"})
    logged(workspace, event, clock())
    assert not told(streams.clock_behind, workspace)
    (finding,) = told(streams.clock_behind, workspace, clock() - 3_600 * MICROSECONDS)
    assert finding.severity == "error" and 3_500 < float(finding.evidence["seconds"]) < 3_700


def test_outcomes_of_offers_that_nobody_has(tmp_path: Path) -> None:
    """Sixty outcomes of an offer that the catalogue has not are told with its name."""
    folder = tmp_path / "w"
    rows = [
        {"customer_id": f"c{at}", "offer_id": "gone" if at % 2 else "by-hand", "type": "yes", "time": "2026-06-02"}
        for at in range(120)
    ]
    workspace = bank(folder, {"outcomes": write(folder / "outcomes.csv", rows)})
    steps.import_tables(workspace, clock())
    (finding,) = told(offers.offers_unknown, workspace)
    assert "gone" in finding.what and finding.evidence["of_unknown_offers"] == 60
