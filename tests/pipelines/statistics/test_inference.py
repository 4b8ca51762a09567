"""Estimators of experiments keep their promises, held against truth by simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.statistics.inference import (
    ENOUGH_CONVERSIONS,
    ENOUGH_UNITS,
    Comparison,
    Interval,
    MetricColumns,
    compare,
    detectable,
    harm_p,
    harm_p_sequential,
    sequential_radius,
    units_needed,
)
from pipelines.statistics.multiple_testing import CORRECTIONS, corrected
from pipelines.statistics.sample_ratio import MISMATCH_P, mismatch
from pipelines.statistics.summaries import Floats, Summary, merged, nothing
from tests.pipelines.estimates import summary_of

RUNS, RUNS_AT_ONCE = 2_000, 250
UNITS = 2_000
"""Of each arm."""
CHANCE = 1e-4
"""How seldom a promise that is just kept would look broken; seeds are fixed."""
MEAN, RATIO, CUPED = MetricColumns(0), MetricColumns(0, 1), MetricColumns(0, covariate=1)

Draw = Callable[[np.random.Generator, tuple[int, int], bool], Floats]


def simulated(draw: Draw, measure: MetricColumns, seed: int) -> Comparison:
    """`RUNS` experiments at once; `draw` gives units of shape (runs, units, columns), of the treated arm or of the
    control.
    """
    rng, parts = np.random.default_rng(seed), []
    for _ in range(RUNS // RUNS_AT_ONCE):
        treated, control = (summary_of(draw(rng, (RUNS_AT_ONCE, UNITS), is_treated)) for is_treated in (True, False))
        parts.append(compare(treated, control, measure))
    return joined(parts)


def joined(parts: list[Comparison]) -> Comparison:
    """Comparisons of several runs as one."""
    fields: list[Any] = []
    for values in zip(*parts, strict=True):
        if isinstance(values[0], Interval):
            fields.append(Interval(*(np.concatenate(ends) for ends in zip(*values, strict=True))))
        else:
            fields.append(np.concatenate(values))
    return Comparison(*fields)


def missed(interval: Interval, truth: float) -> int:
    """How many intervals do not hold the truth; one that is not a number holds nothing."""
    return int((~((interval.low <= truth) & (truth <= interval.high))).sum())


def most(runs: int, share: float) -> int:
    """The most cases of so many that a true share gives, but for `CHANCE`."""
    return int(stats.binom.ppf(1 - CHANCE, runs, share))


def conversion(control: float, treated: float) -> Draw:
    """0 or 1 of each unit."""
    return lambda rng, shape, is_treated: (rng.random((*shape, 1)) < (treated if is_treated else control)).astype(float)


def value(control: float, treated: float) -> Draw:
    """What one unit in ten spends, with a long tail; nothing of others. The tail's mean is 1.28."""

    def draw(rng: np.random.Generator, shape: tuple[int, int], is_treated: bool) -> Floats:
        spent = np.exp(rng.normal(0, 0.7, shape)) * (rng.random(shape) < 0.1)
        return spent[..., None] * (treated if is_treated else control)

    return draw


def clicks(treated_lift: float) -> Draw:
    """Clicks and impressions: customers differ in how much they see and how gladly they click, the busier the less."""

    def draw(rng: np.random.Generator, shape: tuple[int, int], is_treated: bool) -> Floats:
        seen = 1 + rng.poisson(rng.gamma(1.0, 4.0, shape))
        rate = 0.6 * rng.beta(2, 6, shape) / np.sqrt(seen) * (1 + treated_lift * is_treated)
        return np.stack([rng.binomial(seen, rate), seen], -1).astype(float)

    return draw


def spending(correlation: float, effect: float, mean: float = 2.0) -> Draw:
    """Spending in and before the experiment, of a known correlation."""

    def draw(rng: np.random.Generator, shape: tuple[int, int], is_treated: bool) -> Floats:
        before = rng.normal(0, 1, shape)
        spent = (
            mean + correlation * before + np.sqrt(1 - correlation**2) * rng.normal(0, 1, shape) + effect * is_treated
        )
        return np.stack([spent, before], -1)

    return draw


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "measure"),
    [(conversion(0.1, 0.1), MEAN), (value(1, 1), MEAN), (clicks(0), RATIO), (spending(0.7, 0), CUPED)],
    ids=["conversion", "value", "ratio", "cuped"],
)
def test_a_a_tests_alarm_as_seldom_as_promised(draw: Draw, measure: MetricColumns) -> None:
    """Of 2,000 tests of equal arms, at most the promised part alarms at one look, by difference, lift or P."""
    found = simulated(draw, measure, 1)
    bound = most(RUNS, 0.05)
    assert missed(found.difference_fixed, 0) <= bound
    assert missed(found.lift_fixed, 0) <= bound
    assert int((found.p < 0.05).sum()) == missed(found.difference_fixed, 0)
    assert missed(found.difference_sequential, 0) <= most(RUNS, 0.05) // 2  # one look is far fewer than it allows for


@pytest.mark.slow
@pytest.mark.parametrize(
    ("draw", "measure", "difference", "lift"),
    [
        (conversion(0.1, 0.12), MEAN, 0.02, 0.2),
        (conversion(0.1, 0.05), MEAN, -0.05, -0.5),
        (value(1, 1.3), MEAN, 0.03 * np.exp(0.245), 0.3),
        (clicks(0.4), RATIO, None, 0.4),
        (spending(0.7, 0.1), CUPED, 0.1, 0.05),
        (spending(0.7, 1.5), CUPED, 1.5, 0.75),
        (spending(0.0, 0.1), CUPED, 0.1, 0.05),
    ],
    ids=["conversion", "half", "value", "ratio", "cuped", "cuped large", "cuped useless"],
)
def test_known_effects_are_covered_as_promised(
    draw: Draw, measure: MetricColumns, difference: float | None, lift: float
) -> None:
    """Of 2,000 tests of a known effect, at least the promised part of intervals holds it, both kinds."""
    found = simulated(draw, measure, 2)
    bound = most(RUNS, 0.05)
    assert missed(found.lift_fixed, lift) <= bound
    assert missed(found.lift_sequential, lift) <= bound
    if difference is not None:
        assert missed(found.difference_fixed, difference) <= bound
        assert missed(found.difference_sequential, difference) <= bound
    assert abs(float(found.lift.mean()) - lift) < 5 * float(found.lift.std()) / RUNS**0.5 + 0.01 * abs(lift)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_what_is_known_before_narrows_as_the_correlation_says(correlation: float) -> None:
    """CUPED leaves 1 - correlation squared of the variance, and shortens intervals by its root."""
    draw = spending(correlation, 0.1)
    with_, without = simulated(draw, CUPED, 3), simulated(draw, MEAN, 3)
    assert float(with_.kept.mean()) == pytest.approx(1 - correlation**2, abs=0.01)
    assert float((with_.difference_error / without.difference_error).mean()) == pytest.approx(
        np.sqrt(1 - correlation**2), abs=0.01
    )
    assert float(with_.difference.std() / without.difference.std()) == pytest.approx(
        np.sqrt(1 - correlation**2), abs=0.05
    )


LOOKS, UNITS_A_LOOK = 40, 250
"""Looks of a test, each after so many more units of each arm."""


def looked_at(control: float, treated: float, seed: int, covariate: bool = False) -> Comparison:
    """`RUNS` tests of conversion, each at all its looks: shape (runs, looks)."""
    rng, kinds = np.random.default_rng(seed), 2 if covariate else 1
    arms = []
    for rate in (treated, control):
        if (
            covariate
        ):  # four kinds of units: converted before or not, and now or not; one that did before does so twice as often
            each = np.array([0.1 * 2 * rate, 0.1 * (1 - 2 * rate), 0.9 * rate, 0.9 * (1 - rate)])
            both, before, now, _ = np.moveaxis(np.cumsum(rng.multinomial(UNITS_A_LOOK, each, (RUNS, LOOKS)), 1), -1, 0)
            sums, twos = np.stack([both + now, both + before], -1), both
        else:
            sums, twos = np.cumsum(rng.binomial(UNITS_A_LOOK, rate, (RUNS, LOOKS, 1)), 1), np.zeros((RUNS, LOOKS))
        count = np.broadcast_to(np.arange(1, LOOKS + 1) * float(UNITS_A_LOOK), (RUNS, LOOKS))
        means = sums / count[..., None]
        products = np.where(np.eye(kinds, dtype=bool), sums[..., None, :], twos[..., None, None])
        arms.append(
            Summary(count, means, products - means[..., :, None] * means[..., None, :] * count[..., None, None])
        )
    return compare(arms[0], arms[1], CUPED if covariate else MEAN)


@pytest.mark.parametrize("covariate", [False, True], ids=["plain", "cuped"])
def test_looking_forty_times_is_allowed(covariate: bool) -> None:
    """Of 2,000 tests of equal arms with 40 looks each, at most the promised part ever alarms; fixed intervals would
    thrice as often.
    """
    found = looked_at(0.1, 0.1, 4, covariate)
    for interval in (found.difference_sequential, found.lift_sequential):
        ever = ((interval.low > 0) | (interval.high < 0)).any(1)
        assert 0 < int(ever.sum()) <= most(RUNS, 0.05)
    assert int((found.p_sequential < 0.05).any(1).sum()) <= most(RUNS, 0.05)
    fixed = ((found.difference_fixed.low > 0) | (found.difference_fixed.high < 0)).any(1)
    assert int(fixed.sum()) > 3 * most(RUNS, 0.05)


def test_rare_conversions_may_be_looked_at_too() -> None:
    """With a conversion of 2 %, and looks from `ENOUGH_CONVERSIONS` in each arm on, the promise holds; of lifts it
    would not before.
    """
    found = looked_at(0.02, 0.02, 5)
    per_arm = np.arange(1, LOOKS + 1) * UNITS_A_LOOK
    enough = (np.minimum(found.treated, found.control) * per_arm >= ENOUGH_CONVERSIONS - 1e-6) & (
        per_arm >= ENOUGH_UNITS
    )
    for interval in (found.difference_sequential, found.lift_sequential):
        assert int((missed_at(interval, 0) & enough).any(1).sum()) <= most(RUNS, 0.05)
    assert int(missed_at(found.lift_sequential, 0).any(1).sum()) > most(RUNS, 0.05)


def test_a_known_effect_is_covered_at_all_looks_together() -> None:
    """Of 2,000 tests of a known effect, at least the promised part of interval sequences holds it at every look, and
    most see it.
    """
    found = looked_at(0.1, 0.13, 6)
    assert int((missed_at(found.difference_sequential, 0.03)).any(1).sum()) <= most(RUNS, 0.05)
    assert int((missed_at(found.lift_sequential, 0.3)).any(1).sum()) <= most(RUNS, 0.05)
    assert float((found.difference_sequential.low > 0).any(1).mean()) > 0.95


def missed_at(interval: Interval, truth: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """At which looks the truth is outside."""
    return (interval.low > truth) | (truth > interval.high)


def test_harm_is_seldom_claimed_and_found_where_it_is() -> None:
    """Of 2,000 equal arms at most 5 % are called harmful, at one look or at any of 40; real harm is found, and gain
    never is harm.
    """
    equal, worse, better = (looked_at(0.1, rate, 7) for rate in (0.1, 0.13, 0.07))
    assert int((harm_p(equal.difference, equal.difference_error, equal.freedom)[:, -1] < 0.05).sum()) <= most(
        RUNS, 0.05
    )
    p = [harm_p_sequential(found.difference, found.difference_error, found.units) for found in (equal, worse, better)]
    assert 0 < int((p[0] < 0.05).any(1).sum()) <= most(RUNS, 0.05)
    assert float((p[1] < 0.05).any(1).mean()) > 0.97
    assert not (p[2] < 0.05).any()


def test_mismatch_alarms_as_promised() -> None:
    """Even splits alarm in one of a thousand cases, a split that is broken to 52 : 48 practically always."""
    rng, cases = np.random.default_rng(8), 100_000
    even = mismatch(rng.multinomial(10_000, [0.5, 0.3, 0.2], cases), [0.5, 0.3, 0.2])
    assert int((even.p < MISMATCH_P).sum()) <= most(cases, MISMATCH_P)
    broken = mismatch(rng.multinomial(20_000, [0.52, 0.48], cases), [1, 1])
    assert float((broken.p < MISMATCH_P).mean()) > 0.98


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2), min_size=4, max_size=40), st.data())
def test_summaries_of_parts_add_up(rows: list[list[float]], data: st.DataObject) -> None:
    """The summary of all units is that of any two parts of them; covariances are numpy's."""
    values, cut = np.array(rows), data.draw(st.integers(1, len(rows) - 1))
    whole, parts = summary_of(values), merged(merged(nothing(2), summary_of(values[:cut])), summary_of(values[cut:]))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * max(1.0, float(np.abs(values).max()) ** 2))
    np.testing.assert_allclose(whole.covariances, np.cov(values.T), rtol=1e-9, atol=1e-3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrections_are_what_they_say(p: list[float]) -> None:
    """Holm's is the textbook's loop, Benjamini and Hochberg's scipy's; order holds, NaN is no question."""
    order, worst, holm = np.argsort(p, kind="stable"), 0.0, np.zeros(len(p))
    for rank, at in enumerate(order):
        worst = max(worst, (len(p) - rank) * p[at])
        holm[at] = min(worst, 1.0)
    np.testing.assert_allclose(corrected(p, "holm"), holm)
    np.testing.assert_allclose(corrected(p, "benjamini-hochberg"), stats.false_discovery_control(p))
    for correction in CORRECTIONS:
        found = corrected([*p, np.nan], correction)
        assert np.isnan(found[-1]) and (found[:-1] >= np.array(p) - 1e-12).all()
        assert np.isnan(corrected([np.nan], correction)).all()


def test_what_is_detectable_is_detected() -> None:
    """A true effect as large as the detectable one is shown in 80 % of cases, at one look or at the size that looks
    need.
    """
    rng, units = np.random.default_rng(9), 10_000
    error = float(np.sqrt(2 * 0.1 * 0.9 / (units / 2)))
    effect = detectable(error)
    shown = np.abs(rng.normal(effect, error, 100_000)) / error > stats.norm.isf(0.025)
    assert float(shown.mean()) == pytest.approx(0.8, abs=0.01)
    assert units_needed(error, units, effect, sequential=False) == pytest.approx(units, rel=1e-4)
    wanted = units_needed(error, units, effect, sequential=True)
    assert wanted is not None and 1.2 * units < wanted < 4 * units
    at = error * np.sqrt(units / wanted)
    radius = float(sequential_radius(np.asarray(at), np.asarray(wanted)))
    assert float((rng.normal(effect, at, 100_000) > radius).mean()) == pytest.approx(0.8, abs=0.01)
    assert units_needed(error, units, 1e-12, sequential=True) is None
    assert units_needed(0.0, units, 0.1, sequential=False) is None
