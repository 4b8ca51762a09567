"""The doctor on experiments, in lakes that journals and events filled: mismatches, exposures, arms, ramps, ends,
groups.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from features.common.timestamps import DAY_SECONDS, MICROSECONDS, from_microseconds, rfc3339
from features.common.timestamps import now as clock
from features.common.types import Event
from features.events.log import event_folder
from features.validation.load import load
from features.workspace.ramps import RECORD
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.gather import Facts
from pipelines.doctor.facts.server import _metrics
from pipelines.doctor.service import arms as arms_checks
from pipelines.doctor.service import experiments, ramps
from pipelines.experiments.analysis import experiments_in, find
from pipelines.materialize import steps
from pipelines.ramps import ramp as ramping
from pipelines.shipping.ship import ship
from serving.hub.hub import digest_of
from tests.pipelines.loops import line, log_events, write_lines
from tests.tiny_workspaces import bank, write

DAY = DAY_SECONDS * MICROSECONDS
ARMS: dict[str, Any] = {"a": {}, "b": {"changes": {"arbitration": {"formula": "propensity"}}}}
TWO = {key: {"status": "running", "arms": ARMS} for key in ("first", "second")}


def shop(folder: Path, file: dict[str, Any]) -> Workspace:
    """A tiny workspace with these experiments, imported."""
    bank(folder, {})
    (folder / "experiments.yaml").write_text(yaml.safe_dump(file))
    made = load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.import_tables(made, clock())
    return made


def exposed(workspace: Workspace, units: dict[str, tuple[int, int]], at: int, first: int = 0) -> None:
    """Clients tell that so many customers saw the arms `a` and `b` of experiments."""
    events = []
    for key, counts in units.items():
        for arm, count in zip("ab", counts, strict=True):
            for number in range(count):
                name = f"{key}-{arm}-{first + number}"
                who = f"c-{arm}{first + number}"
                events.append(Event(name, "exposure", from_microseconds(at), who, experiment=key, arm=arm))
    log_events(workspace, events)


def ask(check: Any, workspace: Workspace, later: int = 0) -> Seen:
    facts = Facts(workspace, clock() + later)
    try:
        seen: Seen = check(facts)
        return seen
    finally:
        facts.close()


def told(check: Any, workspace: Workspace, later: int = 0) -> Sequence[Finding]:
    return ask(check, workspace, later).findings


def test_a_mismatch_of_two_running_experiments(tmp_path: Path) -> None:
    """461 : 211 of an even split is told, shipped or not; 231 : 211 of another is none (case E3)."""
    workspace = shop(tmp_path / "w", {"experiments": TWO})
    now = clock() - 3_600 * MICROSECONDS
    exposed(workspace, {"first": (200, 100), "second": (100, 100)}, now)
    ship(workspace)
    exposed(workspace, {"first": (261, 111), "second": (131, 111)}, now, 1_000)
    seen = ask(experiments.split_mismatch, workspace)
    (finding,) = seen.findings
    assert finding.severity == "error" and "first" in finding.what
    assert finding.evidence["units"] == "461 : 211" and finding.evidence["expected"] == "336 : 336"
    assert float(finding.evidence["p"]) < 1e-9
    assert "1,114 units of 2" in seen.what


def test_units_of_before_the_start_are_of_another_run(tmp_path: Path) -> None:
    """What was exposed before the start that the file names is not held against the split."""
    start = clock() - DAY
    workspace = shop(tmp_path / "w", {"experiments": {"first": TWO["first"] | {"start": rfc3339(start)}}})
    exposed(workspace, {"first": (400, 100)}, start - DAY)
    with pytest.raises(CannotSay, match="no unit"):
        ask(experiments.split_mismatch, workspace)
    exposed(workspace, {"first": (60, 62)}, start + 3_600 * MICROSECONDS, 5_000)
    assert not told(experiments.split_mismatch, workspace)


def test_decisions_without_exposures(tmp_path: Path) -> None:
    """An experiment for everybody whose decisions expose nobody is an error; decisions by other files say nothing."""
    workspace = shop(tmp_path / "w", {"experiments": TWO})
    at = clock() - 3_600 * MICROSECONDS
    recorded = [line(n, decision_id=f"o{n}", at=at, customer_id=f"c{n}", config="of-other-files") for n in range(40)]
    write_lines(workspace, "20261120T230000.000000Z-00000001", recorded)
    ship(workspace)
    with pytest.raises(CannotSay, match="fewer than 20"):
        ask(experiments.exposures_missing, workspace)
    made = [line(n, decision_id=f"d{n}", at=at, customer_id=f"c{n}", config=digest_of(workspace)) for n in range(40)]
    write_lines(workspace, "20261120T230001.000000Z-00000002", made)
    exposed(workspace, {"second": (20, 20)}, at + 1)
    ship(workspace)
    (finding,) = told(experiments.exposures_missing, workspace)
    assert (
        finding.severity == "error"
        and finding.evidence["experiment"] == "first"
        and finding.evidence["customers"] == 40
    )


def test_arms_that_serve_far_more_than_they_expose() -> None:
    """The metrics of a server are added up by experiment, and its bundles are told apart."""
    text = (
        'opportune_arm_decisions_total{experiment="first",arm="a"}'
        ' 100\nopportune_arm_decisions_total{experiment="first",arm="b"}'
        ' 50\nopportune_arm_exposures_total{experiment="first",arm="b"}'
        ' 3\nopportune_bundle_info{name="m",version="1",bundle="sha256:ab",config="c"}'
        ' 1\nopportune_bundle_info{name="m",version="2",bundle="sha256:cd",config="c"} 1\n'
    )
    assert _metrics(text) == (("sha256:ab", "sha256:cd"), {"first": (150.0, 3.0)})


def test_experiments_of_nobody_and_those_that_are_over(tmp_path: Path) -> None:
    """No coverage, an arm without a share, and an end that is two days past are warnings; nothing of them fails."""
    past = rfc3339(clock() - 2 * DAY)
    file = {
        "none": TWO["first"] | {"coverage": 0.0},
        "lone": {"status": "running", "arms": {"a": {"weight": 1.0}, "b": {"weight": 0.0}}},
        "over": TWO["first"] | {"end": past},
        "just": TWO["first"] | {"end": rfc3339(clock() - DAY // 2)},
        "fine": TWO["first"],
    }
    workspace = shop(tmp_path / "w", {"experiments": file})
    nobody = told(experiments.experiment_of_nobody, workspace)
    assert {one.evidence["experiment"] for one in nobody} == {"none", "lone"}
    (over,) = told(experiments.experiments_over, workspace)
    assert over.evidence["experiment"] == "over" and over.since == past and over.severity == "warning"


@pytest.mark.parametrize(("share", "small"), [(0.002, True), (0.2, False)])
def test_a_holdout_that_can_show_nothing(tmp_path: Path, share: float, small: bool) -> None:
    """Of 600 customers of whom a tenth convert, a fifth held out can show something, and one customer cannot."""
    made = [
        {"decision_id": f"d{n}", "customer_id": f"c{n}", "time": "2026-06-01T10:00:00Z", "offer_id": "by-hand"}
        for n in range(600)
    ]
    done = [{"customer_id": f"c{n}", "offer_id": "by-hand", "type": "yes", "time": "2026-06-02"} for n in range(60)]
    folder = tmp_path / "w"
    bank(folder, {"decisions": write(folder / "decisions.csv", made), "outcomes": write(folder / "outcomes.csv", done)})
    (folder / "experiments.yaml").write_text(yaml.safe_dump({"holdout": {"share": share}}))
    workspace = load(folder)
    steps.import_tables(workspace, clock())
    found = told(experiments.groups_too_small, workspace)
    assert [one.check for one in found] == (["groups_too_small"] if small else [])


def test_arms_whose_model_or_offers_are_not_there(tmp_path: Path) -> None:
    """An arm that names a model that nobody published is an error, one that names an offer that is gone a warning."""
    arms = {"a": {}, "b": {"changes": {"model": "challenger"}}}
    levers = {"a": {}, "b": {"changes": {"arbitration": {"offers": {"gone": 2.0}}}}}
    folder = tmp_path / "w"
    bank(folder, {"offers": write(folder / "offers.csv", [{"offer_id": "o1"}])})
    file = {"experiments": {"m": {"status": "running", "arms": arms}, "o": {"status": "running", "arms": levers}}}
    (folder / "experiments.yaml").write_text(yaml.safe_dump(file))
    workspace = load(folder)
    steps.import_tables(workspace, clock())
    (finding,) = told(arms_checks.arms_without_model, workspace)
    assert (
        finding.severity == "error"
        and finding.evidence["arms"] == "m/b"
        and "no bundle" in str(finding.evidence["why"])
    )
    place = workspace.bundles / "aliases" / "challenger"
    place.parent.mkdir(parents=True)
    place.write_text("0123456789abcdef")
    assert "manifest" in str(told(arms_checks.arms_without_model, workspace)[0].evidence["why"])
    (lacks,) = told(arms_checks.arms_of_unknown_offers, workspace)
    assert lacks.severity == "warning" and lacks.evidence["unknown"] == "gone"


def test_ramps_that_wait(tmp_path: Path) -> None:
    """A ramp is told of that was not started, waits for data past its time, has a damaged record, or was rolled
    back.
    """
    ramp = {"arm": "b", "hold": "1d", "window": "1h", "units": 50}
    workspace = shop(tmp_path / "w", {"experiments": {"up": TWO["first"] | {"ramp": ramp}}})
    (finding,) = told(ramps.ramps_wait, workspace)
    assert finding.severity == "warning" and "never started" in finding.what
    begun = clock() - 3 * DAY

    def now_of(found: Workspace) -> Workspace:
        return load(found.folder)

    experiment = find(experiments_in(workspace), "up")
    ramping.write(workspace, experiment, ramping.start(experiment, "", begun), begun, "command")
    workspace = now_of(workspace)
    (finding,) = told(ramps.ramps_wait, workspace)
    assert "waits" in finding.what and finding.since == rfc3339(begun + DAY) and finding.severity == "warning"
    assert not told(ramps.ramps_wait, workspace, later=-int(2.5 * DAY)), "a step lasts as long as it is said to"
    (over,) = told(ramps.ramps_wait, workspace, later=20 * DAY)
    assert over.severity == "error" and "to be rolled back" in over.what, (
        "its patience is over, and no worker took it back"
    )
    record = workspace.data / RECORD
    whole = record.read_bytes()
    record.write_bytes(whole + b"{torn}\n")
    assert "cannot be read" in told(ramps.ramps_wait, now_of(workspace))[0].what
    (damaged,) = told(ramps.ramps_record, now_of(workspace))
    assert damaged.evidence == {"lines": 2, "damaged": 1}
    record.write_bytes(whole)
    experiment = find(experiments_in(now_of(workspace)), "up")
    ramping.write(
        workspace, experiment, ramping.by_hand(experiment, 0.0, "too many complaints", clock()), clock(), "command"
    )
    (back,) = told(ramps.ramps_wait, now_of(workspace))
    assert "rolled back: too many complaints" in back.what
    assert msgspec.json.encode(back)
    assert not event_folder(workspace.data).joinpath("events.db").exists()
