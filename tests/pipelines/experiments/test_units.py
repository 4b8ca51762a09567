"""Units of experiments in a lake that journals and events filled: anonymous ids that log in, accounts, and lakes of an
older form.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from features.common.timestamps import MICROSECONDS, to_microseconds
from features.common.types import Event
from features.lake import lake
from features.lake.files import counting
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.experiments.analysis import ReportQuery, experiments_in, find, listed, report_on
from pipelines.experiments.cohort import so_far
from pipelines.experiments.export import write_exposures
from pipelines.experiments.report import ExperimentReport, ReportSettings
from pipelines.ramps import ramp
from pipelines.ramps.steps import Step
from pipelines.shipping.ship import ship
from tests.pipelines.loops import START, line, log_events, workspace_in, write_lines

BEGIN = to_microseconds(START)
HOUR = 3_600 * MICROSECONDS
ARMS = {"a": {}, "b": {}}
NEW = ("unit", "channel", "placement", "degraded", "took_us")


def exposed(number: int, customer: str, unit: str, experiment: str, arm: str, hours: float) -> object:
    """A decision that exposed a unit, so many hours after the start."""
    at = BEGIN + int(hours * HOUR)
    given = ((experiment, arm, 0.5, 1.0, "split", True),)
    own = unit == customer
    more = {"context": {"channel": "app"}, "took_us": 100 + number, "units": () if own else (unit,)}
    return line(number, decision_id=f"d{number}", at=at, customer_id=customer, experiments=given, **more)


def told(number: int, kind: str, hours: float, **fields: object) -> Event:
    return Event(f"e{number}", kind, START + timedelta(hours=hours), **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two browsers and two customers of one account, who are shown things, log in and accept; shipped."""
    folder = workspace_in(tmp_path_factory.mktemp("units") / "w").folder
    entries = {"web": "anonymous", "firm": "account", "people": "customer"}
    file = {
        "account": "customer.tariff",
        "experiments": {key: {"unit": unit, "status": "running", "arms": ARMS} for key, unit in entries.items()},
    }
    (folder / "experiments.yaml").write_text(yaml.safe_dump(file))
    made = load(folder)
    shown = [
        exposed(1, "~a1", "~a1", "web", "a", 0),
        exposed(2, "c1", "~a1", "web", "a", 3),
        exposed(3, "~a2", "~a2", "web", "b", 5),
        exposed(4, "c1", "@acme", "firm", "b", 0),
        exposed(5, "c2", "@acme", "firm", "b", 1),
        exposed(6, "c1", "c1", "people", "a", 4),
    ]
    write_lines(made, "a", shown)  # type: ignore[arg-type]
    accepted = {"offer_id": "offer-01", "value": 1.0}
    log_events(
        made,
        [
            told(1, "accepted", 0.5, anonymous_id="a1", **(accepted | {"value": 10.0})),
            told(2, "identify", 1, anonymous_id="a1", customer_id="c1"),
            told(3, "accepted", 2, customer_id="c1", **(accepted | {"value": 100.0})),
            told(4, "accepted", 6, customer_id="c2", **(accepted | {"value": 1_000.0})),
            told(5, "identify", 7, anonymous_id="a2", customer_id="c1"),
            told(
                6,
                "exposure",
                8,
                anonymous_id="a1",
                customer_id="c1",
                experiment="web",
                arm="a",
                channel="web",
                placement="home",
            ),
        ],
    )
    ship(made)
    return made


def report(workspace: Workspace, key: str) -> ExperimentReport:
    experiment = find(experiments_in(workspace), key)
    return report_on(workspace, experiment, ReportQuery(window="1d"), ReportSettings(), BEGIN + 100 * HOUR)


def counted(found: ExperimentReport) -> list[tuple[int, int, int, float]]:
    return [(arm.units, arm.exposures, arm.conversions, arm.value) for arm in found.arms]


def test_anonymous_units_stay_units_after_log_in(workspace: Workspace) -> None:
    """Two browsers of one customer are two units, in an arm each; what was accepted before and after the log-in counts
    for them.
    """
    found = report(workspace, "web")
    assert found.split.several == 0
    # The second browser was shown something after the customer's acceptances, and is linked to the customer: nothing
    # counts for it.
    assert counted(found) == [(1, 3, 1, 110.0), (1, 1, 0, 0.0)]


def test_what_customers_of_an_account_do_counts_for_it(workspace: Workspace) -> None:
    """An account is one unit, whoever of it was answered; acceptances of all who were exposed count."""
    assert counted(report(workspace, "firm")) == [(0, 0, 0, 0.0), (1, 2, 1, 1_110.0)]


def test_customers_are_those_that_ids_were_linked_to(workspace: Workspace) -> None:
    """A customer's report counts the customer from the first exposure on, not what came before."""
    assert counted(report(workspace, "people")) == [(1, 1, 0, 0.0), (0, 0, 0, 0.0)]


def test_exposures_say_where_and_how_fast(workspace: Workspace) -> None:
    """Rows of decisions have channel, placement, flags and duration; those of clients what the client told."""
    with lake.connect(workspace) as con:
        rows = con.execute(
            "SELECT event_id, unit, channel, placement, degraded, took_us FROM exposures WHERE experiment = 'web' ORDER"
            " BY time"
        ).fetchall()
        assert so_far(con) == {"web": (4, 2), "firm": (2, 1), "people": (1, 1)}
    assert rows == [
        ("d1", None, "app", "home", [], 101),
        ("d2", "~a1", "app", "home", [], 102),
        ("d3", None, "app", "home", [], 103),
        ("e6", "~a1", "web", "home", None, None),
    ]


def test_exports_name_units(workspace: Workspace, tmp_path: Path) -> None:
    """A warehouse gets the units that were randomized."""
    for key, units in (("web", ["~a1", "~a1", "~a2", "~a1"]), ("firm", ["@acme", "@acme"])):
        file = tmp_path / f"{key}.ndjson"
        write_exposures(workspace, key, "ndjson", file, lambda _: None)
        assert [msgspec.json.decode(row)["unit"] for row in file.read_bytes().splitlines()] == units


def test_lakes_of_an_older_form_still_read(workspace: Workspace) -> None:
    """Files without the newer columns, whose customer is the unit, count beside files that have them."""
    before = counted(report(workspace, "web"))
    file = next(one for one in counting(workspace.lake / "exposures") if "2026-11-21" in str(one))
    kept, rows = file.read_bytes(), pq.read_table(file)
    units = [
        unit or customer
        for unit, customer in zip(*(rows[name].to_pylist() for name in ("unit", "customer_id")), strict=True)
    ]
    older = rows.drop_columns(list(NEW)).set_column(0, "customer_id", pa.array(units))
    try:
        pq.write_table(older, file)
        assert rows.column_names[0] == "customer_id" and "@acme" in units and "~a2" in units
        assert counted(report(workspace, "web")) == before
        with lake.connect(workspace) as con:
            assert so_far(con)["firm"] == (2, 1)
    finally:
        file.write_bytes(kept)


def test_what_clients_tell_after_a_roll_back(tmp_path: Path) -> None:
    """Exposures that come when a ramp was rolled back have no probability, rather than none at all: the report tests
    the split by halves.
    """
    folder = workspace_in(tmp_path / "w").folder
    ramped = {"status": "running", "arms": ARMS, "ramp": {"arm": "b"}}
    (folder / "experiments.yaml").write_text(yaml.safe_dump({"experiments": {"web": ramped}}))
    made = load(folder)
    for step in (Step("start", 0.25, "started", ""), Step("roll_back", 0.0, "by_hand", "")):
        ramp.write(made, find(experiments_in(made), "web"), step, BEGIN, "command")
    units = [("a", number) for number in range(30)] + [("b", number) for number in range(30, 62)]
    log_events(
        made,
        [told(number, "exposure", 1, customer_id=f"c{number}", experiment="web", arm=arm) for arm, number in units],
    )
    ship(made)
    found = report_on(
        made, find(experiments_in(made), "web"), ReportQuery(open_windows=True), ReportSettings(), BEGIN + 2 * HOUR
    )
    assert (found.split.units, found.split.expected, found.split.alarm) == (
        (30, 32),
        (31.0, 31.0),
        False,
    ) and found.split.p > 0.5


def test_the_list_counts_the_units_of_the_report(tmp_path: Path) -> None:
    """Two browsers of one customer are two units of the list too, though the lake shows both as the customer; and one
    that is asked again is one.
    """
    folder = workspace_in(tmp_path / "w").folder
    entries = {"web": "anonymous", "people": "customer"}
    file = {"experiments": {key: {"unit": unit, "status": "running", "arms": ARMS} for key, unit in entries.items()}}
    (folder / "experiments.yaml").write_text(yaml.safe_dump(file))
    made = load(folder)
    shown = [
        exposed(at, unit, unit, key, "a", at)
        for at, (unit, key) in enumerate((one, key) for one in ("~a1", "~a2") for key in entries)
    ]
    write_lines(made, "a", shown)  # type: ignore[arg-type]
    log_events(made, [told(at, "identify", 9, anonymous_id=f"a{at}", customer_id="c1") for at in (1, 2)])
    ship(made)
    units = {one.experiment: one.units for one in listed(made, experiments_in(made).experiments, BEGIN + 100 * HOUR)}
    assert (
        units == {key: sum(arm.units for arm in report(made, key).arms) for key in entries} == {"web": 2, "people": 1}
    )
