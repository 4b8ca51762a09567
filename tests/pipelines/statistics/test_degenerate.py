"""Estimates of arms of which nothing is known, that never vary, or whose control is below zero."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.statistics.inference import (
    MetricColumns,
    compare,
    harm,
    harm_p,
    harm_p_sequential,
)
from pipelines.statistics.summaries import merged, nothing
from tests.pipelines.estimates import rate_lift, summary_of

MEAN, RATIO, CUPED = MetricColumns(0), MetricColumns(0, 1), MetricColumns(0, covariate=1)


def test_nothing_known_is_not_a_number() -> None:
    """Empty arms, one unit, and a control without conversions give NaN where nothing can be said, and no warning."""
    none, one, flat = nothing(1), summary_of([[1.0]]), summary_of(np.zeros((50, 1)))
    some = summary_of(np.arange(50.0)[:, None] % 2)
    for treated, control in ((none, some), (some, none), (one, some), (none, none)):
        found = compare(treated, control, MEAN)
        assert np.isnan([found.p, found.p_sequential, found.lift_fixed.low, found.difference_fixed.high]).all()
        assert np.isnan([found.lift, found.kept]).all() or treated is one, "nobody has no mean"
    found = compare(some, flat, MEAN)
    assert np.isnan([found.lift, found.lift_fixed.low, found.lift_sequential.high]).all() and found.p < 1e-6
    assert np.isnan(rate_lift(1, 10, 0, 10).lift)


@pytest.mark.parametrize(
    ("treated", "control", "lift"), [(6.0, 5.0, 0.2), (0.1, 0.3, -2 / 3), (-5.0, -10.0, None), (3.0, 0.0, None)]
)
def test_arms_that_never_vary(treated: float, control: float, lift: float | None) -> None:
    """Equal values in an arm make a difference certain, whatever rounding leaves; two arms with the same value can have
    none.
    """
    at, base = (
        merged(summary_of(np.full((40, 1), one)), summary_of(np.full((17, 1), one))) for one in (treated, control)
    )
    found = compare(at, base, MEAN)
    assert float(found.difference) == pytest.approx(treated - control) and float(found.difference_error) == 0.0
    assert float(found.p) == float(found.p_sequential) == 0.0
    assert [float(end) for end in (*found.difference_fixed, *found.difference_sequential)] == pytest.approx(
        [treated - control] * 4
    )
    assert np.isnan(found.lift) if lift is None else float(found.lift) == pytest.approx(lift)
    same = compare(at, at, MEAN)
    assert float(same.difference) == 0.0 and np.isnan([same.p, same.p_sequential]).all()
    for sign, is_harm in ((-1, treated < control), (1, treated > control)):
        worse, error = harm(at, base, MEAN, sign)
        p = float(harm_p_sequential(worse, error, found.units))
        assert p < 1e-12 if is_harm else p == 1.0
        assert (float(harm_p(worse, error, found.freedom)) < 1e-12) == is_harm
        assert float(harm_p_sequential(*harm(at, at, MEAN, sign), found.units)) > 0.5


def test_the_sign_of_a_lift_is_that_of_the_difference() -> None:
    """Over many pairs of arms, losses among them: where there is a lift, it and its interval are on the side of the
    difference.
    """
    rng, seen = np.random.default_rng(8), 0
    for _ in range(300):
        middle = rng.uniform(-3, 3)
        control, treated = (summary_of(rng.normal(middle + move, 2, (60, 1))) for move in (0, rng.uniform(-1, 1)))
        found = compare(treated, control, MEAN)
        assert np.isnan(found.lift) == (float(found.control) <= 0)
        if not np.isnan(found.lift):
            seen += 1
            assert np.sign(found.lift) == np.sign(found.difference)
            assert float(found.lift_fixed.low) <= float(found.lift) <= float(found.lift_fixed.high)
        else:
            assert np.isnan([*found.lift_fixed, *found.lift_sequential]).all()
            assert float(found.difference_fixed.low) < float(found.difference) < float(found.difference_fixed.high)
    assert 100 < seen < 250


@pytest.mark.parametrize(
    ("control", "treated", "within"),
    [(10, 9.3, True), (10, 8, False), (-10, -10.7, True), (-10, -13, False), (-10, -5, True), (0, -1, False)],
)
def test_tolerance_is_a_part_of_the_controls_size(control: float, treated: float, within: bool) -> None:
    """A tenth less than 10 is 9, a tenth less than -10 is -11, and less than nothing there is no tenth."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, (4_000, 1))
    arms = [summary_of(middle + noise) for middle in (treated, control)]
    worse, error = harm(*arms, MEAN, -1, 0.1)
    assert (float(worse) < 0) == within
    assert (float(harm_p_sequential(worse, error, np.asarray(8_000.0))) > 0.05) == within
    by_hand = np.sqrt(noise.var(ddof=1) / 4_000 * (1 + (1 - 0.1 * np.sign((control + noise).mean())) ** 2))
    assert float(error) == pytest.approx(by_hand)
