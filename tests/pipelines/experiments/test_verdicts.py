"""Known effects and harm are found and said, and too few units are told no interval."""

from __future__ import annotations

import numpy as np

from tests.pipelines.experiment_lakes import made
from tests.pipelines.experiment_reports import report


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
