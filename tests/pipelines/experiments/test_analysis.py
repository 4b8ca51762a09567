"""Reading experiments: what the lake holds becomes the right numbers, broken splits are told with their causes, known
effects are found.
"""

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
from features.config.policies import PoliciesFile
from features.config.schema import FeaturesFile
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
from pipelines.experiments.data import BOT_EXPOSURES, NUMBERS, read
from pipelines.experiments.output.plots import write_plots
from pipelines.experiments.output.tables import headlines, print_report
from pipelines.experiments.report import ExperimentReport, ReportSettings, Subject
from pipelines.experiments.verdicts import report_of
from tests.pipelines.experiment_lakes import ARMS, DAY, KEY, NOW, START, Rows, exposure, lake_of, made, question
from tests.workspaces import make_workspace
from training.bundle.registry import connect, record_report

SUBJECT = Subject(status="running", shares=(0.5, 0.5))


def report(rows: Rows, asked: Question | None = None, subject: Subject = SUBJECT, **settings: Any) -> ExperimentReport:
    """Of rows in a made-up lake."""
    asked = asked or question()
    return report_of(read(lake_of(rows), asked), asked, subject, ReportSettings(**settings))


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


def hash_of(who: str) -> int:
    """Any split that is the same in every process."""
    return int(who[1:])


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


def test_an_effect_is_found_and_said() -> None:
    """A lift of 40 % shows as higher, by sequential intervals that hold it; the course of days ends with the total."""
    found = report(made(1, rates=(0.1, 0.14)))
    assert not found.split.alarm and found.split.causes == ()
    first = found.goals[0]
    assert (first.metric, first.arm, first.verdict) == ("conversion", "louder", "higher")
    low, high = first.sequential
    assert low is not None and high is not None and first.fixed[0] is not None and low < first.fixed[0]
    assert 0 < low < 0.4 < high
    assert first.kept is not None and 0.5 < first.kept < 1
    assert [course.lift[-1] for course in found.courses] == [goal.lift for goal in found.goals]
    assert found.courses[0].sequential[-1] == first.sequential
    assert found.cumulative[-1] == tuple(arm.counted for arm in found.arms)
    assert {one.verdict for one in found.guardrails if one.metric == "dismissals per unit"} == {"no harm shown"}
    assert "slow part of decisions" in found.not_recorded and "clicks per impression" in found.not_recorded


def test_equal_arms_show_nothing_and_say_how_long() -> None:
    """Equal arms show no difference; a smaller lift takes longer to see, a sequential one longer than a fixed look;
    CUPED helps.
    """
    rows = made(2)
    found, fixed, plain = report(rows), report(rows, sequential=False), report(rows, cuped=False)
    small = report(rows, detect=0.02)
    assert {goal.verdict for goal in found.goals} == {"no difference shown"}
    days = [one.goals[0].days for one in (fixed, found, small)]
    assert None not in days and days == sorted(days, key=float) and days[0] != days[1] != days[2]
    assert plain.goals[0].kept == 1 and found.goals[0].detectable < plain.goals[0].detectable  # type: ignore[operator]
    assert all(goal.p_corrected >= goal.p for goal in found.goals)  # type: ignore[operator]


def test_few_units_are_told_no_interval() -> None:
    """With less than a hundred units an arm, or few conversions, no interval and no P is given."""
    found = report(made(3, units=150, rates=(0.5, 0.5)))
    assert {goal.verdict for goal in found.goals} == {"too few yet"}
    assert found.goals[0].fixed == (None, None) and found.goals[0].p is None
    rare = report(made(3, units=1_500, rates=(0.01, 0.01)))
    assert {goal.verdict for goal in rare.goals} == {"too few yet"}


def test_harm_is_told() -> None:
    """Twice as many dismissals are harm; half as many are not."""
    for rates, verdict in (((0.05, 0.1), "harm"), ((0.1, 0.05), "no harm shown")):
        found = report(made(4, dismissals=rates))
        assert [one.verdict for one in found.guardrails if one.metric == "dismissals per unit"] == [verdict]


def test_slow_and_degraded_decisions_are_guarded() -> None:
    """An arm whose decisions take longer, or are degraded, does harm."""
    rows, rng = made(5), np.random.default_rng(5)
    for row in rows["exposures"]:
        row["took_us"] = int(rng.integers(300, 500) * (1.3 if row["arm"] == "louder" else 1))
        row["degraded"] = ["features_stale"] if rng.random() < (0.1 if row["arm"] == "louder" else 0.02) else []
    verdicts = {one.metric: one.verdict for one in report(rows).guardrails}
    assert verdicts["slow part of decisions"] == verdicts["degraded part of decisions"] == "harm"


def lossy(rows: Rows, lost: Any) -> Rows:
    """Without the exposures that were lost on the way."""
    return rows | {"exposures": [row for row in rows["exposures"] if not lost(row)]}


def only_in_the_shop(row: dict[str, Any]) -> bool:
    """Half of one arm in one channel."""
    return row["arm"] == "louder" and row["channel"] == "shop" and hash_of(row["customer_id"]) % 2 == 0


def everywhere(row: dict[str, Any]) -> bool:
    """A seventh of one arm."""
    return row["arm"] == "louder" and hash_of(row["customer_id"]) % 7 == 0


def on_some_days(row: dict[str, Any]) -> bool:
    """All of one arm on five days."""
    return row["arm"] == "louder" and START + 9 * DAY <= row["time"] < START + 14 * DAY


@pytest.mark.parametrize(
    ("lost", "cause"),
    [
        (only_in_the_shop, "only channel shop ("),
        (everywhere, "exposures of louder are missing: -"),
        (on_some_days, "only day 2026-10-10 ("),
    ],
)
def test_a_broken_split_alarms_with_its_cause(lost: Any, cause: str) -> None:
    """Exposures that are lost in one arm raise the alarm, and the cause says where."""
    assert not report(made(6)).split.alarm
    found = report(lossy(made(6), lost))
    assert found.split.alarm and found.split.p < 0.001
    assert any(cause in one for one in found.split.causes), found.split.causes
    assert "does not fit" in next(iter(headlines(found)))


def test_bots_and_lost_events_are_causes() -> None:
    """Units that are exposed hundreds of times, and arms of which nothing is heard, are told as causes."""
    rows = made(7, units=800)
    for number in range(120):
        rows["exposures"] += [
            exposure(f"c{number + 10_000}", START + number * 1000 + again, "louder")
            for again in range(BOT_EXPOSURES + 1)
        ]
    assert any("bots" in cause for cause in report(rows).split.causes)
    lost = lossy(made(7), everywhere)
    lost["impressions"] = [row for row in lost["impressions"] if hash_of(row["customer_id"]) % 3]
    silent = {
        row["customer_id"] for row in lost["exposures"] if row["arm"] == "louder" and hash_of(row["customer_id"]) % 2
    }
    for name in ("impressions", "outcomes"):
        lost[name] = [row for row in lost[name] if row["customer_id"] not in silent]
    assert any("lost events in one arm" in cause for cause in report(lost).split.causes)


def test_a_split_that_changed_is_no_mismatch() -> None:
    """Units are held against the split of their day; that it changed is told, and the day of the change is not
    tested.
    """
    before, after = made(8, units=3_000, shares=(0.9, 0.1), days=10), made(9, units=3_000, days=20)
    moved = [
        row | {"customer_id": f"c{hash_of(row['customer_id']) + 100_000}", "time": row["time"] + 9 * DAY}
        for row in after["exposures"]
    ]
    found = report(before | {"exposures": before["exposures"] + moved})
    assert found.split.changed and not found.split.alarm
    assert any("the split changed over time; 1 days" in warning for warning in found.split.warnings)
    blind = [row | {"probability": None} for row in (*before["exposures"], *moved)]
    assert report(before | {"exposures": blind}).split.alarm


def test_units_in_two_arms_are_left_out_and_told() -> None:
    """Who was seen in both arms is in no figure; the share is said, loudly beyond one in a hundred."""
    rows = made(10)
    switched = rows["exposures"][::50]
    other = {ARMS[0]: ARMS[1], ARMS[1]: ARMS[0]}
    rows["exposures"] = rows["exposures"] + [
        row | {"time": row["time"] + DAY, "arm": other[row["arm"]]} for row in switched
    ]
    found = report(rows)
    assert found.split.several == len(switched) == 120
    assert sum(arm.units for arm in found.arms) == 6_000 - 120
    assert any(
        "120 units (2.00%) were seen in two arms" in warning and "more than" in warning
        for warning in found.split.warnings
    )


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
