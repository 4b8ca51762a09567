"""Experiments at the edges: losses, nobody, all alike, one unit that outweighs all others. What can be said is said,
and nothing else.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from scipy.stats import mstats

from features.common.timestamps import MICROSECONDS
from features.config.experiments import Bounded, Goals, Guardrails, Ramp
from pipelines.experiments.analysis import metrics_of
from pipelines.experiments.control_groups import groups_report
from pipelines.experiments.data import read
from pipelines.experiments.output.control_group_tables import print_groups
from pipelines.experiments.output.tables import notes, print_report
from pipelines.experiments.report import ExperimentReport, GoalReport, ReportSettings
from pipelines.statistics.inference import MetricColumns, compare
from tests.pipelines.estimates import summary_of
from tests.pipelines.experiment_lakes import ARMS, DAY, START, Rows, exposure, lake_of, question
from tests.pipelines.experiment_reports import report
from tests.pipelines.ramp_lakes import at, known

VALUE = "value per unit"
UNITS = 800
"""Of each arm."""


def lived(values: dict[str, list[float]], before: dict[str, list[float]] | None = None) -> Rows:
    """Units with an exposure and, but for a value of 0, an outcome of that value a day later; what was before is a day
    earlier.
    """
    rows = Rows(exposures=[], outcomes=[], impressions=[], consents=[])
    for arm, of_arm in values.items():
        for number, value in enumerate(of_arm):
            who, time = f"{arm}-{number}", START + (number % 20) * DAY + number * MICROSECONDS
            rows["exposures"].append(exposure(who, time, arm))
            rows["impressions"].append({"customer_id": who, "time": time + MICROSECONDS})
            moments = [(value, DAY)] + ([(before[arm][number], -DAY)] if before else [])
            for one, moved in moments:
                if one:
                    rows["outcomes"].append(
                        {"customer_id": who, "type": "conversion", "time": time + moved, "value": one}
                    )
    return rows


def normal(seed: int, middle: float, units: int = UNITS, spread: float = 4.0) -> list[float]:
    return [float(one) for one in np.random.default_rng(seed).normal(middle, spread, units)]


def goal(found: ExperimentReport, metric: str = VALUE) -> GoalReport:
    return next(one for one in found.goals if one.metric == metric)


def shown(found: ExperimentReport, capsys: pytest.CaptureFixture[str]) -> str:
    """The report as people read it, in one line; as JSON it has no word that JSON does not have."""
    text = msgspec.json.encode(found).decode()
    assert "NaN" not in text and "Infinity" not in text and msgspec.json.decode(text)
    assert all(np.isfinite(number) for number in metrics_of(found).values())
    print_report(found)
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("control", "treated", "verdict"), [(-10, -5, "higher"), (-10, -15, "lower"), (-10, 5, "higher")]
)
def test_a_control_that_loses_has_no_lift(
    control: float, treated: float, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Vouchers cost: the difference has its sign and its interval, the verdict is its, and why there is no lift is
    said.
    """
    found = report(lived({ARMS[0]: normal(1, control), ARMS[1]: normal(2, treated)}))
    one = goal(found)
    assert one.difference == pytest.approx(treated - control, abs=0.6) and one.verdict == verdict
    assert (
        one.lift is None and one.fixed == one.sequential == (None, None) and one.detectable is None and one.days is None
    )
    assert one.no_lift == "the control's mean is not above zero"
    low, high = one.difference_sequential
    assert low is not None and high is not None and low < treated - control < high
    assert all(course.lift == (None,) * len(course.lift) for course in found.courses if course.metric == VALUE)
    text = shown(found, capsys)
    assert "no lift" in text and f"{low:+.4g} to {high:+.4g}" in text
    assert "No lift of value per unit, value per decision: the control's mean is not above zero." in text


def test_a_control_that_has_nothing_has_no_lift() -> None:
    """All of the control's values are zero: a difference, and no lift."""
    found = goal(report(lived({ARMS[0]: [0.0] * UNITS, ARMS[1]: normal(2, 5)})))
    assert found.lift is None and found.no_lift is not None
    assert found.control == 0.0 and found.difference == pytest.approx(5, abs=0.6)


@pytest.mark.parametrize("empty", ARMS)
def test_an_arm_without_units_has_no_figures(empty: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No mean, no lift, no interval, no P, in goals and guardrails, whichever arm it is; tables say none."""
    rows = lived({arm: [] if arm == empty else normal(1, 20) for arm in ARMS})
    rows["outcomes"] += [{**row, "type": "dismissal"} for row in rows["outcomes"][:40]]
    found = report(rows)
    for one in found.goals:
        mean, other = (one.control, one.treated) if empty == ARMS[0] else (one.treated, one.control)
        assert mean is None and other is not None
        assert [
            one.difference,
            one.lift,
            *one.fixed,
            *one.sequential,
            *one.difference_fixed,
            one.p,
            one.kept,
            one.days,
        ] == [None] * 11
        assert one.verdict == "too few yet" and one.no_lift is None
    for guard in found.guardrails:
        assert (
            (guard.control if empty == ARMS[0] else guard.treated) is None
            and guard.p is None
            and guard.verdict == "too few yet"
        )
    text = shown(found, capsys)
    assert "none" in text and "-100" not in text.partition("Lift over the control")[2]


def test_a_single_unit_says_nothing() -> None:
    """One unit has a mean, and neither interval nor verdict."""
    found = goal(report(lived({ARMS[0]: normal(1, 20), ARMS[1]: [30.0]})))
    assert found.treated == 30.0 and found.fixed == (None, None) and found.p is None and found.verdict == "too few yet"


@pytest.mark.parametrize("value", [7.3, 0.0, -2.0])
def test_units_that_are_all_alike_can_have_no_difference(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    """All convert, or none does, all for the same: no difference is possible, which is not the same as too few."""
    found = report(lived({arm: [value] * UNITS for arm in ARMS}))
    one = goal(found, "conversion")
    assert one.control == one.treated == float(value != 0) and one.difference == 0.0 and one.p is None
    assert one.verdict == "no difference possible" and one.difference_fixed == (0.0, 0.0)
    assert one.lift == (0.0 if value else None)
    if value:
        assert goal(found).verdict == "no difference possible"
    assert "no difference possible" in shown(found, capsys)
    few = report(lived({arm: [value] * 50 for arm in ARMS}))
    assert goal(few, "conversion").verdict == "too few yet"


def test_constant_arms_that_differ_do_differ() -> None:
    """All units of an arm are worth 0.3, all of the other 0.1: sums of such numbers round, and the difference is
    certain all the same.
    """
    found = goal(report(lived({ARMS[0]: [0.1] * UNITS, ARMS[1]: [0.3] * UNITS})))
    assert found.verdict == "higher" and found.p_corrected == 0.0 and found.lift == pytest.approx(2.0)
    assert found.sequential == pytest.approx((2.0, 2.0))


def heavy(one: float, seed: int = 3) -> Rows:
    """Arms of 2,000 whose units are worth 10 and 12 on average, and one unit of the control that is worth a fortune."""
    control, treated = (normal(seed + number, middle, 2_000) for number, middle in enumerate((10, 12)))
    return lived({ARMS[0]: [one, *control[1:]], ARMS[1]: treated})


def test_one_unit_hides_all_others_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A value of a million among 4,000 units: the goal is blind, the report says why, and names the option."""
    found = report(heavy(1e6))
    assert goal(found).verdict == "no difference shown"
    (outlier,) = found.outliers
    assert outlier.number == "value" and outlier.share > 0.99 and outlier.largest == 1e6
    assert "`goals: {value: {winsorize: 0.99}}`" in shown(found, capsys)
    assert report(heavy(15.0)).outliers == ()


@pytest.mark.parametrize("option", [Bounded(cap=40), Bounded(winsorize=0.99)], ids=["cap", "winsorize"])
@pytest.mark.parametrize("fortune", [1e6, -1e6])
def test_bounds_give_the_goal_its_sight_back(
    option: Bounded, fortune: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a cap or a quantile the difference is seen; how many units were bounded is told, by arm."""
    found = report(heavy(fortune), question(goals=Goals(value=option)))
    assert goal(found).verdict == "higher" and goal(found).difference == pytest.approx(2, abs=0.5)
    assert found.outliers == ()
    (bound,) = found.bounds
    assert bound.units[0] >= 1 and sum(bound.units) <= 81
    assert (bound.low, bound.high) == (-40, 40) if option.cap else bound.high < 30
    text = shown(found, capsys)
    assert f"(`{bound.by}`), in all figures: {bound.units[0]:,} : {bound.units[1]:,} units had more than that" in text
    assert goal(found, "value per decision").verdict == "higher"


@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("share", [0.9, 0.99, 0.967])
def test_quantiles_are_scipys(positive: bool, share: float) -> None:
    """Among those who have anything, both arms together, values are those of `mstats.winsorize`, and so are the past's
    and the estimate.
    """
    chance = np.random.default_rng(7)
    values = {
        arm: [float(one) for one in chance.pareto(1.2, 300) * (1 if positive else chance.choice([-1, 1], 300))]
        for arm in ARMS
    }
    for of_arm in values.values():
        of_arm[::3] = [0.0] * len(of_arm[::3])
    before = {arm: [float(one) for one in chance.permutation(of_arm)] for arm, of_arm in values.items()}
    asked = question(goals=Goals(value=Bounded(winsorize=share)))
    con = lake_of(lived(values, before))
    found = read(con, asked)
    part = round(1 - share, 9)  # scipy cuts 39.999… of 400 to 39
    pooled = np.array([one for arm in ARMS for one in values[arm]])
    some = np.array(mstats.winsorize(pooled[pooled != 0], limits=[0 if positive else part, part]))
    (bound,) = found.bounds
    assert (bound.low, bound.high) == (0.0 if positive else some.min(), some.max())
    counted = {arm: np.clip(values[arm], bound.low, bound.high) for arm in ARMS}
    assert sorted(np.concatenate([*counted.values()])[pooled != 0]) == pytest.approx(sorted(some))
    assert list(bound.units) == [int((counted[arm] != np.array(values[arm])).sum()) for arm in ARMS]
    arms = [
        summary_of(np.column_stack([counted[arm], np.clip(before[arm], bound.low, bound.high)]))
        for arm in reversed(ARMS)
    ]
    wanted = compare(*arms, MetricColumns(0, covariate=1))
    got = goal(report(lived(values, before), asked))
    ends = (*wanted.difference_fixed, *wanted.difference_sequential)
    assert [got.difference, *got.difference_fixed, *got.difference_sequential] == pytest.approx(
        [float(wanted.difference), *map(float, ends)]
    )
    assert got.kept == pytest.approx(float(wanted.kept))


def test_ratios_are_of_bounded_numbers() -> None:
    """A bot with 40,000 clicks on 50,000 impressions outweighs what others click; both numbers are bounded."""
    rows = lived({ARMS[0]: [0.0] * 600, ARMS[1]: [0.0] * 600})
    chance = np.random.default_rng(5)
    for row in list(rows["impressions"]):
        rate = 0.3 if row["customer_id"].startswith(f"{ARMS[0]}-") else 0.45
        more = 4_000 if row["customer_id"] == f"{ARMS[0]}-0" else int(chance.random() < rate)
        rows["impressions"] += [row] * (5_000 if more > 1 else 0)
        rows["outcomes"] += [
            {"customer_id": row["customer_id"], "type": "click", "time": row["time"] + 1, "value": None}
        ] * more
    blind = report(rows)
    assert {one.number for one in blind.outliers} == {"clicks", "impressions"}
    assert goal(blind, "clicks per impression").verdict != "higher"
    seeing = report(rows, question(goals=Goals(clicks=Bounded(cap=5), impressions=Bounded(cap=5))))
    assert goal(seeing, "clicks per impression").verdict == "higher" and seeing.outliers == ()
    assert [one.number for one in seeing.bounds] == ["clicks", "impressions"]


def test_groups_have_the_same_bounds_and_the_same_words(capsys: pytest.CaptureFixture[str]) -> None:
    """The report of holdout and control groups: no lift over a loss, bounds by group, outliers by name."""
    rows, names = heavy(-1e6), ("usual", "holdout")
    for row in rows["exposures"]:
        row["arm"] = names[ARMS.index(row["arm"])]
    asked = question(arms=names, control="usual")
    found = groups_report(read(lake_of(rows), asked), asked, (0.5, 0.5), ReportSettings())
    assert [one.number for one in found.outliers] == ["value"] and found.bounds == ()
    asked = question(arms=names, control="usual", goals=Goals(value=Bounded(cap=40)))
    found = groups_report(read(lake_of(rows), asked), asked, (0.5, 0.5), ReportSettings())
    assert found.outliers == () and found.bounds[0].units[0] == 1
    losses = lived({ARMS[0]: normal(1, -10), ARMS[1]: normal(2, -5)})
    for row in losses["exposures"]:
        row["arm"] = names[ARMS.index(row["arm"])]
    asked = question(arms=names, control="usual")
    found = groups_report(read(lake_of(losses), asked), asked, (0.5, 0.5), ReportSettings())
    print_groups(found)
    assert "no lift" in capsys.readouterr().out
    assert {one.lift for part in found.parts for one in part.goals if one.metric == VALUE} == {None}


@pytest.mark.parametrize(
    ("control", "treated", "verdict"),
    [
        (-10, -5, "no harm shown"),
        (-10, -10.4, "no harm shown"),
        (-10, -14, "harm"),
        (10, 9.6, "no harm shown"),
        (10, 6, "harm"),
        (0.05, -4, "harm"),
    ],
)
def test_a_ramp_tolerates_a_part_of_a_loss(control: float, treated: float, verdict: str) -> None:
    """A tenth of what the control has, whatever its sign: -10.4 is within a tenth of -10, -14 is not, and better is
    never harm.
    """
    rows = lived({ARMS[0]: normal(1, control), ARMS[1]: normal(2, treated)})
    plan = Ramp(arm=ARMS[1], steps=(0.5,), guardrails=Guardrails(conversion=None, value=0.1))
    assert watched_in(rows, plan)["value"] == verdict


def test_a_ramp_sees_harm_that_has_no_exception() -> None:
    """Each decision of the arm is degraded, none of the control's: nothing varies within an arm, and the harm is
    certain.
    """
    rows = lived({arm: normal(1, 10) for arm in ARMS})
    for row in rows["exposures"]:
        row["degraded"] = ["features_unavailable"] if row["arm"] == ARMS[1] else []
    assert watched_in(rows, Ramp(arm=ARMS[1], steps=(0.5,)))["degraded"] == "harm"
    guard = next(one for one in report(rows).guardrails if one.metric == "degraded part of decisions")
    assert guard.verdict == "harm" and guard.p == 0.0


def watched_in(rows: Rows, plan: Ramp) -> dict[str, str]:
    """The verdicts of a ramp's guardrails at one half."""
    return {one.guardrail: one.verdict for one in known(rows, at(0.5), plan).guardrails}


def test_notes_name_each_bound_once() -> None:
    """Two bounds are two notes."""
    both = Goals(value=Bounded(cap=40), decisions=Bounded(cap=3))
    found = report(heavy(50.0), question(goals=both))
    assert sum("is bounded at" in line for line in notes(found)) == 2
