"""Tables that do not fit each other are told by name: ids with tails, customers who are hardly one, zones that are
none, outcomes before their decision.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from features.lake import lake
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.doctor.data import customers
from pipelines.doctor.data import data as data_checks
from pipelines.doctor.facts.gather import Facts
from pipelines.doctor.facts.lake import data
from pipelines.importing import table_fit
from pipelines.importing.import_files import import_all
from pipelines.importing.report import notes
from tests.tiny_workspaces import CUSTOMER, DECISION, MOVE, NOW, OUTCOME, bank, one, only, write


def test_ids_with_tails_are_told_by_name(tmp_path: Path) -> None:
    """`9001.0` stays what it is; import and doctor say that no other table knows it, and that others have it without
    the tail.
    """
    write(tmp_path / "w" / "c.csv", [CUSTOMER | {"customer_id": str(9000 + n)} for n in range(30)])
    write(tmp_path / "w" / "m.csv", [MOVE | {"customer_id": f"{9000 + n}.0"} for n in range(30)])
    workspace = bank(tmp_path / "w", {"customers": "c.csv", "streams.moves": "m.csv"})
    report = only(import_all(workspace, NOW), "streams.moves")
    (shared,) = report.ids
    assert (shared.ids, shared.known, shared.unknown_rows, shared.tailed, shared.tailed_known) == (
        30,
        {"customers": 0},
        30,
        30,
        30,
    )
    told = list(notes(report))
    assert "streams.moves: none of its 30 customers is in customers" in told
    assert any(
        "30 customers end in `.0`, as 9000.0, 9001.0, 9002.0, 30 of which other tables have without it" in note
        for note in told
    )
    facts = Facts(workspace, NOW)
    found = [*data_checks.ids_in_common(facts).findings, *data_checks.ids_with_tails(facts).findings]
    assert {(finding.check, finding.severity) for finding in found} == {
        ("ids_in_common", "error"),
        ("ids_with_tails", "warning"),
    }


def test_a_customer_who_is_hardly_one_is_named(tmp_path: Path) -> None:
    """A default id that has a third of all events; with even shares nobody is named."""
    even = [MOVE | {"customer_id": f"c{n % 100}", "amount": str(n)} for n in range(400)]
    workspace, report = one(tmp_path, "streams.moves", even)
    assert not any(shared.absurd for shared in report.ids)
    guest = [MOVE | {"customer_id": "guest", "amount": str(n)} for n in range(200)]
    workspace, report = one(tmp_path / "more", "streams.moves", even + guest)
    assert any("33 % of its rows are of one of 101 customers, `guest`" in note for note in notes(report))
    [finding] = customers.absurd_shares(Facts(workspace, NOW)).findings
    assert "'guest'" in finding.what


def test_tables_that_fit_say_nothing(tmp_path: Path) -> None:
    """Where tables know each other's ids there is no note, and the report says how many they share."""
    write(tmp_path / "w" / "c.csv", [CUSTOMER | {"customer_id": f"c{n}"} for n in range(10)])
    write(
        tmp_path / "w" / "m.csv", [MOVE | {"customer_id": f"c{n}"} for n in range(8)] + [MOVE | {"customer_id": "new"}]
    )
    workspace = bank(tmp_path / "w", {"customers": "c.csv", "streams.moves": "m.csv"})
    reports = import_all(workspace, NOW)
    assert [note for report in reports for note in notes(report)] == []
    (shared,) = only(reports, "streams.moves").ids
    assert (shared.rows, shared.ids, shared.known, shared.unknown_rows) == (9, 9, {"customers": 8}, 1)
    assert only(reports, "customers").ids[0].known == {"streams.moves": 8}
    con = lake.connect(workspace)
    assert not isinstance(data(workspace, con), str)
    con.close()


def quiet_bank(folder: Path, rows: list[dict[str, Any]]) -> Workspace:
    """A bank whose customers have a time zone that quiet hours go by."""
    write(folder / "c.csv", rows)
    bank(folder, {"customers": "c.csv"}, features={"customer": {"attributes": {"zone": {"dtype": "category"}}}})
    hours = {"night": {"begin": "21:00", "end": "08:00", "time_zone": "customer.zone"}}
    (folder / "policies.yaml").write_text(yaml.safe_dump({"quiet_hours": hours}))
    return load(folder)


def test_time_zones_that_are_none_are_counted(tmp_path: Path) -> None:
    """Import and doctor tell which texts of the column that quiet hours look at are no zones, and of how many
    customers.
    """
    zones = ["Europe/Vienna", "asia/tokyo", "+01:00", "Vienna", "Vienna", "W. Europe Standard Time", ""]
    workspace = quiet_bank(
        tmp_path / "w", [CUSTOMER | {"customer_id": f"c{n}", "zone": zone} for n, zone in enumerate(zones)]
    )
    report = only(import_all(workspace, NOW), "customers")
    assert report.zones == {"zone": {"Vienna": 2, "W. Europe Standard Time": 1}}
    [finding] = customers.time_zones(Facts(workspace, NOW)).findings
    assert finding.evidence == {"column": "zone", "customers": 3, "Vienna": 2, "W. Europe Standard Time": 1}


def test_events_follow_the_decision_that_they_name(tmp_path: Path) -> None:
    """Whole seconds, clocks that are behind and dates alone count at the decision's moment, once; hours before are told
    and keep their time.
    """
    moment = "2026-06-01T10:00:05.412Z"
    told = {
        "d1": "2026-06-01T10:00:05Z",
        "d2": "2026-06-01T09:59:30Z",
        "d3": "2026-06-01",
        "d4": "2026-06-01T06:00:01Z",
        "d5": "2026-06-02",
    }
    write(tmp_path / "w" / "d.csv", [DECISION | {"decision_id": name, "time": moment} for name in told])
    write(tmp_path / "w" / "o.csv", [OUTCOME | {"decision_id": name, "time": time} for name, time in told.items()])
    write(tmp_path / "w" / "offers.csv", [{"offer_id": "o1"}])
    workspace = bank(tmp_path / "w", {"offers": "offers.csv", "decisions": "d.csv", "outcomes": "o.csv"})
    report = only(import_all(workspace, NOW), "outcomes")
    assert report.early == table_fit.Early(3, 1)
    told_of = list(notes(report))
    assert "outcomes: 3 rows happened just before the decision that they name, and count as at its moment" in told_of
    assert "outcomes: 1 row happened long before the decision that they name: nothing learns from them" in told_of
    con = lake.connect(workspace)
    times = dict(con.execute("SELECT decision_id, time FROM outcomes").fetchall())
    con.close()
    decided = datetime(2026, 6, 1, 10, 0, 5, 412_000, tzinfo=UTC)
    assert [times[name] == decided for name in told] == [True, True, True, False, False]
    assert times["d5"] == datetime(2026, 6, 2, tzinfo=UTC)
    again = only(import_all(workspace, NOW), "outcomes")
    assert (again.stored, again.early) == (0, report.early)
