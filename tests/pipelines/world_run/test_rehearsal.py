"""Experiments held against a simulated world: through journal, event log and lake, reports find the truth, and what is
broken.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import typer
from scipy.stats import binom
from typer.testing import CliRunner

from features.bucketing.hashing import growthbook_v2
from features.config.documents import BadWorkspace
from features.lake import lake
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.cli import world as world_verbs
from pipelines.cli.experiments import experiment
from pipelines.experiments.cohort import Question
from pipelines.experiments.data import read
from pipelines.experiments.report import ExperimentReport, ReportSettings, Subject
from pipelines.experiments.verdicts import report_of
from pipelines.world.experiments import BROKEN, EFFECT, EQUAL, LOST_ARM, write_experiments
from pipelines.world.outcomes import AT_ONCE, DELAY_DAYS, follow, late_by
from pipelines.world.settings import DAY, WINDOW_DAYS, WorldSettings
from pipelines.world.world import World
from pipelines.world_run.driver import Driven, live_visits
from pipelines.world_run.rehearsal import Rehearsal, Rehearsed, judged
from pipelines.world_run.steps import shift, world_in
from pipelines.world_run.truth import driven_in, everybody_in, expected_of, first_exposures
from tests.pipelines.experiment_lakes import Rows, lake_of

CUSTOMERS, OFFERS, DECISIONS, SEED = 400, 20, 1_600, 5
SPLITS = 40
app = typer.Typer()
world_verbs.register(app)
experiment.register(app)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world, not written yet."""
    return tmp_path_factory.mktemp("rehearsals") / "world"


@pytest.fixture(scope="module")
def found(folder: Path) -> Rehearsal:
    """One run under all three experiments, from nothing."""
    asked = ["--customers", CUSTOMERS, "--offers", OFFERS, "--decisions", DECISIONS, "--seed", SEED]
    done = CliRunner().invoke(app, ["simulate-world", str(folder), "--experiments", *map(str, asked), "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    return msgspec.json.decode(done.stdout.encode(), type=Rehearsal)


@pytest.fixture(scope="module")
def world(found: Rehearsal, folder: Path) -> World:
    """The truth of the run."""
    return world_in(folder)


@pytest.fixture(scope="module")
def arms(world: World, folder: Path) -> dict[str, Driven]:
    """The visits of the run once more for each arm of the A/B test, everybody in it."""
    workspace, visits = load(folder, sources=False), live_visits(world, DECISIONS)
    names = workspace.experiments.experiments[EFFECT].arms
    return {
        arm: driven_in(world, visits, everybody_in(workspace, EFFECT, arm), shift(workspace), False) for arm in names
    }


def one_of(found: Rehearsal, key: str) -> Rehearsed:
    return next(one for one in found.experiments if one.report.experiment == key)


def test_equal_arms_differ_by_chance_alone(found: Rehearsal, world: World) -> None:
    """The A/A test has every customer who came, no alarm and no verdict; guardrails of real decisions are there, and
    the truth is inside.
    """
    equal, visits = one_of(found, EQUAL), live_visits(world, DECISIONS)
    report, own = equal.report, ~visits.anonymous
    assert not report.split.alarm and {goal.verdict for goal in report.goals} <= {"no difference shown", "too few yet"}
    assert (
        sum(arm.units for arm in report.arms)
        == len(set(visits.who[own].tolist()))
        == sum(arm.counted for arm in report.arms)
    )
    assert sum(arm.exposures for arm in report.arms) == own.sum() < DECISIONS
    assert [(one.metric, one.truth, one.inside) for one in equal.judged] == [
        ("conversion", 0.0, True),
        ("value per unit", 0.0, True),
    ]
    slow = next(one for one in report.guardrails if one.metric == "slow part of decisions")
    assert slow.control is not None and 0 < slow.control < 0.2
    assert "degraded part of decisions" in report.not_recorded, "none was"
    assert found.degraded == {} and found.shipped > sum(found.events.values())


def test_the_interval_holds_the_true_effect(found: Rehearsal) -> None:
    """Ranking by propensity is truly accepted more often and worth less, by what the report's intervals hold."""
    effect = one_of(found, EFFECT)
    conversion, value = effect.judged
    assert not effect.report.split.alarm
    assert conversion.truth > 0.1 and value.truth < 0
    assert conversion.inside and conversion.inside_one_look and value.inside and value.inside_one_look


def test_a_broken_split_is_caught_with_its_channel(found: Rehearsal) -> None:
    """Exposures that an app loses in one arm raise the alarm below 0.001, and the first cause names the channel."""
    split = one_of(found, BROKEN).report.split
    assert found.lost > 20 and split.alarm and split.p < 0.001
    assert split.causes[0].startswith("only channel app ("), split.causes
    assert any(f"exposures of {LOST_ARM} are missing" in cause for cause in split.causes)


def test_reports_read_what_the_world_did(found: Rehearsal, folder: Path, world: World, arms: dict[str, Driven]) -> None:
    """Conversions and values of the lake are, to the cent, those that a loop over the visits finds, arm by arm; the
    verb says the same.
    """
    given = split_in_lake(load(folder, sources=False))
    report = one_of(found, EFFECT).report
    for arm in report.arms:
        worth = acceptances(world, arms[arm.arm])
        of_arm = [worth.get(who, []) for who, its in given.items() if its == arm.arm]
        assert (arm.units, arm.conversions) == (len(of_arm), sum(bool(one) for one in of_arm))
        assert arm.value == pytest.approx(sum(map(sum, of_arm)))
    done = CliRunner().invoke(app, ["experiment", "report", EFFECT, "-w", str(folder), "--json", "--no-record"])
    assert done.exit_code == 0, done.output
    again = msgspec.json.decode(done.stdout.encode(), type=ExperimentReport)
    assert [(one.metric, one.verdict) for one in again.goals] == [(one.metric, one.verdict) for one in report.goals]
    assert again.split == report.split and [one.conversions for one in again.arms] == [
        one.conversions for one in report.arms
    ]


def split_in_lake(workspace: Workspace) -> dict[str, str]:
    with lake.connect(workspace) as con:
        return dict(
            con.execute("SELECT DISTINCT customer_id, arm FROM exposures WHERE experiment = ?", [EFFECT]).fetchall()
        )


def acceptances(world: World, driven: Driven) -> dict[str, list[float]]:
    """Values of what each customer accepted in the window after the first exposure."""
    visits, came, ids = driven.visits, driven.outcomes, world.customers.ids
    first, found = first_exposures(world, visits), dict[str, list[float]]()
    for number, rank in np.argwhere(came.accepted).tolist():
        who, at = int(visits.who[number]), int(visits.at[number] + came.delay[number, rank])
        if first[who] <= at < first[who] + WINDOW_DAYS * DAY:
            found.setdefault(ids[who], []).append(float(world.offers.value[driven.slates[number, rank]]))
    return found


def test_intervals_hold_the_truth_over_many_splits(world: World, arms: dict[str, Driven], found: Rehearsal) -> None:
    """Of 40 other splits of the same customers, 95 % intervals of one look hold the truth, within the binomial bound;
    none alarms wrongly.
    """
    names = tuple(arms)
    worth = {arm: acceptances(world, driven) for arm, driven in arms.items()}
    truth = [expected_of(world, arms[arm]) for arm in names]
    first = first_exposures(world, live_visits(world, DECISIONS))
    who = [world.customers.ids[at] for at in truth[0].who.tolist()]
    begins = dict(zip(who, first[truth[0].who].tolist(), strict=True))
    asked = Question(
        experiment=EFFECT,
        arms=names,
        control=names[0],
        outcome="acceptance",
        window_seconds=WINDOW_DAYS * 86_400,
        now=world.settings.end + WINDOW_DAYS * DAY,
    )
    inside, held = Counter[str](), 0
    for salt in range(SPLITS):
        given = {unit: names[growthbook_v2(str(salt))(unit) % 2] for unit in who}
        report = report_of(
            read(lake_of(rows_of(given, begins, worth)), asked),
            asked,
            Subject(status="running", shares=(0.5, 0.5)),
            ReportSettings(),
        )
        for one in judged(report, *truth):
            inside[one.metric] += bool(one.inside_one_look)
            held += bool(one.inside)
        assert not report.split.alarm
    assert all(inside[metric] >= binom.ppf(0.001, SPLITS, 0.95) for metric in ("conversion", "value per unit")), inside
    assert held >= binom.ppf(0.001, 2 * SPLITS, 0.95)


def rows_of(given: dict[str, str], begins: dict[str, int], worth: dict[str, dict[str, list[float]]]) -> Rows:
    """An exposure a unit, and what it accepted in its arm."""
    exposures: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    for unit, arm in given.items():
        exposures.append(
            {"customer_id": unit, "experiment": EFFECT, "arm": arm, "time": begins[unit], "probability": 0.5}
        )
        for value in worth[arm].get(unit, []):
            outcomes.append({"customer_id": unit, "type": "acceptance", "time": begins[unit] + 1, "value": value})
    return {"exposures": exposures, "outcomes": outcomes}


def test_delays_are_those_that_the_world_draws() -> None:
    """The distribution of delays agrees with a large sample of draws, and is 0 and 1 beyond its ends."""
    world = World(WorldSettings(customers=300, offers=12, seed=3))
    visits = live_visits(world, 20_000)
    delays = follow(world, visits, np.zeros((20_000, 1), np.int64)).delay.ravel()
    for days in (0.01, 0.5, DELAY_DAYS, 4.0, 6.9):
        part = float((delays < int(days * DAY)).mean())
        assert abs(part - float(late_by(np.array([int(days * DAY)]))[0])) < 4 * np.sqrt(0.25 / len(delays))
    assert late_by(np.array([-1, 0, 2 * AT_ONCE, WINDOW_DAYS * DAY])).tolist() == [0, 0, 0, 1]


def test_a_second_run_in_the_same_world_is_refused(found: Rehearsal, folder: Path) -> None:
    """Customers of a run count once: another is refused before it decides, and so is a file of other experiments."""
    again = CliRunner().invoke(app, ["simulate-world", str(folder), "--experiments", "--decisions", "200"])
    assert isinstance(again.exception, BadWorkspace) and "Name another folder" in str(again.exception)
    with pytest.raises(BadWorkspace, match=r"experiments\.yaml"):
        write_experiments(WorldSettings(seed=found.settings.seed + 1), folder)
