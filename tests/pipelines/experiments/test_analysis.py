"""Reading experiments: what the lake holds becomes the right numbers, in reports, verbs and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from features.common.timestamps import MICROSECONDS
from features.config.experiments import ExperimentsFile
from features.config.features_file import FeaturesFile
from features.config.policies import PoliciesFile
from features.validation.load import load
from features.workspace.experiments import Experiments, read_experiments
from features.workspace.rulebook import read_rules
from pipelines.cli.experiments import experiment
from pipelines.experiments.analysis import (
    ReportQuery,
    UnknownExperiment,
    find,
    listed,
    metrics_of,
    question_of,
    report_on,
    status_at,
)
from pipelines.experiments.cohort import NoExposures, Question, so_far
from pipelines.experiments.data import NUMBERS, read
from pipelines.experiments.output.plots import write_plots
from pipelines.experiments.output.tables import print_report
from pipelines.experiments.report import ExperimentReport, ReportSettings
from tests.pipelines.experiment_lakes import ARMS, DAY, KEY, NOW, START, Rows, exposure, lake_of, made, question
from tests.pipelines.experiment_reports import everywhere, hash_of, lossy, report
from tests.workspaces import make_workspace
from training.bundle.registry import connect, record_report


def by_hand(rows: Rows, asked: Question) -> dict[str, dict[str, float]]:
    """The numbers of every unit that counts, by a loop over all rows."""
    found: dict[str, dict[str, float]] = {}
    own = [row for row in rows["exposures"] if row["experiment"] == asked.experiment and row["time"] <= asked.now]
    for unit in {row["customer_id"] for row in own}:
        mine = [row for row in own if row["customer_id"] == unit]
        first, length = min(row["time"] for row in mine), asked.window_seconds * MICROSECONDS
        if (
            len({row["arm"] for row in mine}) > 1
            or mine[0]["arm"] not in asked.arms
            or (first + length > asked.now and not asked.open_windows)
        ):
            continue
        if (asked.since is not None and first < asked.since) or (asked.until is not None and first >= asked.until):
            continue

        def after(
            name: str, begin: int = first, end: int = min(first + length - 1, asked.now), who: str = unit
        ) -> list[dict[str, Any]]:
            return [row for row in rows[name] if row["customer_id"] == who and begin <= row["time"] <= end]

        bought = [row for row in after("outcomes") if row["type"] == asked.outcome]
        before = [row for row in after("outcomes", first - length, first - 1) if row["type"] == asked.outcome]
        decided = [row for row in after("exposures") if row["experiment"] == asked.experiment]
        found[unit] = dict.fromkeys(NUMBERS, 0.0) | {
            "converted": float(bool(bought)),
            "conversions": len(bought),
            "value": sum(row["value"] or 0 for row in bought),
            "decisions": len({row["decision_id"] for row in decided}),
            "clicks": sum(row["type"] == "click" for row in after("outcomes")),
            "impressions": len(after("impressions")),
            "dismissals": sum(row["type"] == "dismissal" for row in after("outcomes")),
            "withdrawn": float(any(not row["allowed"] for row in after("consents"))),
            "degraded": len({row["decision_id"] for row in decided if row["degraded"]}),
            "before_conversions": len(before),
            "before_value": sum(row["value"] or 0 for row in before),
        }
    return found


def busy(seed: int) -> Rows:
    """A few units that do much, at moments that often meet the ends of windows."""
    rng, rows = np.random.default_rng(seed), Rows(exposures=[], outcomes=[], impressions=[], consents=[])

    def moment() -> int:
        return int(START + rng.integers(0, 50) * DAY + rng.integers(-1, 2) * int(rng.integers(0, 2)))

    for number in range(900):
        who, time = f"c{rng.integers(0, 60)}", moment()
        arm = ARMS[hash_of(who) % 2] if rng.random() < 0.97 else ["louder", "gone"][number % 2]
        kind = rng.integers(0, 4)
        if kind == 0:
            more = {
                "degraded": ["features_unavailable"] if rng.random() < 0.3 else [],
                "decision_id": f"d{number // 2 * 2}-{who}",
            }
            rows["exposures"].append(
                exposure(who, time, arm, **more) | ({"experiment": "other"} if rng.random() < 0.1 else {})
            )
        elif kind == 1:
            rows["impressions"].append({"customer_id": who, "time": time})
        elif kind == 2:
            value = None if rng.random() < 0.3 else float(rng.integers(1, 50))
            rows["outcomes"].append(
                {
                    "customer_id": who,
                    "type": str(rng.choice(["conversion", "click", "dismissal"])),
                    "time": time,
                    "value": value,
                }
            )
        else:
            rows["consents"].append(
                {"customer_id": who, "time": time, "purpose": "marketing", "allowed": bool(rng.random() < 0.5)}
            )
    return rows


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"open_windows": True},
        {"since": START + 5 * DAY, "until": START + 20 * DAY},
        {"window_seconds": 3600, "outcome": "click"},
    ],
    ids=["closed", "open", "bounds", "hour of clicks"],
)
def test_numbers_are_those_of_a_loop(seed: int, changes: dict[str, Any]) -> None:
    """Units, sums of all numbers and of their products are what a loop over the rows finds, whatever meets at the ends
    of windows.
    """
    rows, asked = busy(seed), question(**changes)
    units = by_hand(rows, asked)
    arms = {
        row["customer_id"]: row["arm"] for row in rows["exposures"] if row["experiment"] == KEY and row["time"] <= NOW
    }
    found = read(lake_of(rows), asked)
    assert len(units) > 5
    for at, arm in enumerate(ARMS):
        wanted = np.array(
            [[units[who][name] for name in NUMBERS] for who in sorted(units) if arms[who] == arm]
        ).reshape(-1, len(NUMBERS))
        daily = [day[at] for day in found.daily]
        assert sum(float(one.units) for one in daily) == len(wanted)
        np.testing.assert_allclose(sum(one.means * one.units for one in daily), wanted.sum(0), atol=1e-9)
        products = sum(one.scatter + one.units * np.outer(one.means, one.means) for one in daily)
        np.testing.assert_allclose(products, wanted.T @ wanted, rtol=1e-9, atol=1e-9)
    assert found.several > 0


def test_accounts_are_units_of_their_customers() -> None:
    """Where another unit was hashed, what any of its customers did is the unit's."""
    con = lake_of(
        {
            "outcomes": [
                {"customer_id": f"c{number}", "type": "conversion", "time": START + 5, "value": 2.0}
                for number in range(4)
            ]
        }
    )
    rows = ", ".join(
        f"('c{number}', '{KEY}', '{ARMS[number // 2]}', make_timestamptz({START + number}), 'a{number // 2}')"
        for number in range(4)
    )
    con.unregister("exposures")
    con.execute(
        f"CREATE TABLE exposures AS SELECT * FROM (VALUES {rows}) AS given(customer_id, experiment, arm, time, unit)"
    )
    found = read(con, question())
    assert found.units == (1, 1) and found.exposures == (2, 2)
    assert [[float(arm.means[NUMBERS.index(name)]) for arm in found.daily[0]] for name in ("converted", "value")] == [
        [1, 1],
        [4, 4],
    ]
    assert so_far(con) == {KEY: (4, 2)}


def test_nothing_to_read_is_said() -> None:
    """A lake without the table, without its columns, or without the experiment says so."""
    con = duckdb.connect()
    with pytest.raises(NoExposures, match="expected a table `exposures`"):
        read(con, question())
    assert so_far(con) == {}
    con.execute("CREATE TABLE exposures (customer_id VARCHAR)")
    with pytest.raises(NoExposures, match="none called experiment, arm, time"):
        read(con, question())
    with pytest.raises(NoExposures, match="exposures of the experiment other in the lake, got none"):
        read(lake_of(made(1, units=10)), question(experiment="other"))


def test_the_report_is_printed_drawn_and_encoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables open with the alarm, pictures of the same report are the same bytes, JSON has no NaN and gives the
    report back.
    """
    found = report(lossy(made(11, rates=(0.1, 0.13)), everywhere))
    print_report(found)
    printed = capsys.readouterr().out
    assert printed.lstrip().startswith("SAMPLE-RATIO MISMATCH")
    assert "as_it_is (control)" in printed and "any number of looks (decides)" in printed and "holm" in printed
    files = write_plots(found, tmp_path / "one")
    assert [file.name for file in files][:2] == ["units.png", "lift_conversion.png"]
    again = write_plots(found, tmp_path / "two")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    assert msgspec.json.decode(msgspec.json.encode(found), type=ExperimentReport) == found
    assert "split_p" in metrics_of(found) and all(np.isfinite(list(metrics_of(found).values())))


def experiments() -> Experiments:
    """One that runs, and a draft."""
    arms = {"as_it_is": {}, "louder": {}}
    running = {"status": "running", "start": "2026-10-01", "end": "2026-12-01", "arms": arms}
    file = msgspec.convert({"experiments": {KEY: running, "later": {"arms": arms}}}, ExperimentsFile)
    return read_experiments(file, read_rules(PoliciesFile(), FeaturesFile(), "EUR"))


def test_experiments_of_a_workspace(tmp_path: Path) -> None:
    """The list knows status and split before anything was exposed; window and outcome are the label's; unknown keys are
    told the known ones.
    """
    workspace, known = load(make_workspace(tmp_path, customers=4, decisions=1)), experiments()
    running, draft = listed(workspace, known.experiments, NOW)
    assert (running.status, running.split, running.exposures, running.since) == (
        "running",
        (0.5, 0.5),
        0,
        "2026-10-01T00:00:00Z",
    )
    assert draft.status == "draft"
    assert [status_at(known.experiments[0], at) for at in (START - 1, START + 70 * DAY)] == ["not started", "ended"]
    asked = question_of(workspace, find(known, KEY), ReportQuery(), NOW)
    assert (asked.outcome, asked.window_seconds, asked.control) == ("accepted", 7 * 86_400, "as_it_is")
    with pytest.raises(UnknownExperiment, match="there are: louder, later"):
        find(known, "quieter")
    with pytest.raises(NoExposures):
        report_on(workspace, find(known, KEY), ReportQuery(), ReportSettings(), NOW)


def test_verbs_refuse_what_they_do_not_understand(tmp_path: Path) -> None:
    """The verbs list nothing where nothing is declared, and name what they expected."""
    app = typer.Typer()
    experiment.register(app)
    folder, runner = str(make_workspace(tmp_path, customers=4, decisions=1)), CliRunner()
    assert runner.invoke(app, ["experiment", "list", "-w", folder, "--json"]).output.strip() == "[]"
    for words, expected in (
        (["--window", "1y"], "expected a duration like"),
        (["--since", "yesterday"], "expected a date like"),
        (["--correction", "magic"], "expected one of holm, benjamini-hochberg"),
    ):
        told = runner.invoke(app, ["experiment", "report", "-w", folder, KEY, *words])
        assert told.exit_code == 2 and expected.split()[1] in told.output
    assert isinstance(runner.invoke(app, ["experiment", "report", "-w", folder, KEY]).exception, UnknownExperiment)


@pytest.mark.slow
def test_a_report_is_a_run_in_mlflow(tmp_path: Path) -> None:
    """Metrics, tags, pictures and the whole report are kept as a run."""
    workspace, found = load(make_workspace(tmp_path, customers=4, decisions=1)), report(made(12, units=2_000))
    run = record_report(
        workspace, "experiment louder", metrics_of(found), {"opportune.experiment": KEY}, {}, {"report.json": "{}"}
    )
    client = connect(workspace)
    kept = client.get_run(run)
    assert kept.data.tags["opportune.experiment"] == KEY
    assert kept.data.metrics == pytest.approx(metrics_of(found))
    assert [file.path for file in client.list_artifacts(run)] == ["report.json"]
