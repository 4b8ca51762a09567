"""What an experiment shows: differences and lifts of a metric between two arms, with intervals.

A metric is a mean over units (conversion, value), or a ratio of two means (clicks per impression), whose units are
those that were randomized: the delta method takes care that impressions of one customer are alike (Deng, Knoblich and
Lu 2018). A covariate from before the experiment narrows the intervals (CUPED; Deng, Xu, Kohavi and Walker 2013). All
functions take many experiments at once.

Two kinds of intervals. The *fixed* one (Welch's t) holds for one look, at a size that was planned. The *sequential* one
holds at all looks together, however many (asymptotic confidence sequences, Waudby-Smith, Arbour, Sinha, Kennedy and
Ramdas 2024; a normal mixture, as GrowthBook has it). Both rest on the central limit theorem, so that neither holds for
a handful of units or of conversions: see `ENOUGH_UNITS`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import log_ndtr

from pipelines.statistics.summaries import Floats, Summary, merged

ALPHA = 0.05
"""Intervals hold the truth in 1 - ALPHA of all experiments."""
POWER = 0.8
TUNED_UNITS = 5_000.0
"""Units of both arms at which the sequential interval is narrowest, against the fixed one."""
ENOUGH_UNITS = 100
"""In each arm; below it neither kind of interval is promised."""
ENOUGH_CONVERSIONS = 25
"""In each arm, of whatever a metric counts. With fewer, intervals of a lift looked at again and again fail more often
than promised.
"""
UNITS_NEEDED_MAX = 1e12
Z_MAX = 1e3
"""Standard errors beyond which a sequential P is 0 or 1 to the last digit."""
STILL = 1e-9
"""A part of a mean: what varies or differs by less does so by rounding."""


class MetricColumns(NamedTuple):
    """Which columns of a summary make a metric."""

    numerator: int
    denominator: int | None = None
    """None: per unit."""
    covariate: int | None = None
    """Known before the unit was exposed; None: no variance reduction."""


class Interval(NamedTuple):
    """Both ends."""

    low: Floats
    high: Floats


class Comparison(NamedTuple):
    """A treated arm against the control; arrays of one shape, NaN where there is nothing to say.

    Attributes:
        treated, control: the metric itself, corrected by the covariate where there is one.
        difference, lift: treated - control; that over the control.
        difference_error, lift_error: standard errors.
        freedom: degrees of freedom of Welch's t.
        p, p_sequential: of no difference, two-sided; the second holds at all looks together.
        kept: part of the variance that the covariate leaves, 1 without one.
    """

    treated: Floats
    control: Floats
    difference: Floats
    difference_error: Floats
    difference_fixed: Interval
    difference_sequential: Interval
    lift: Floats
    lift_error: Floats
    lift_fixed: Interval
    lift_sequential: Interval
    freedom: Floats
    units: Floats
    p: Floats
    p_sequential: Floats
    kept: Floats


class _Arm(NamedTuple):
    """A metric in one arm: means and variances by unit, of the metric and the covariate."""

    units: Floats
    mean: Floats
    variance: Floats
    before: Floats
    before_variance: Floats
    covariance: Floats

    def varies(self, own: Floats, covariate: Floats) -> Floats:
        """Variance of the mean of own x metric - covariate x covariate."""
        spread = own**2 * self.variance - 2 * own * covariate * self.covariance + covariate**2 * self.before_variance
        return np.asarray(np.maximum(spread, 0.0) / self.units)


def compare(
    treated: Summary, control: Summary, measure: MetricColumns, alpha: float = ALPHA, tuned_units: float = TUNED_UNITS
) -> Comparison:
    """Return all that is estimated of one metric; both arms have the same columns.

    With the covariate's coefficient t, an arm's metric is mean - t x (its mean covariate - that of both arms). The
    variance of the lift is that of the ratio of both, by the delta method, with what they share.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other, both = (_arm(summary, measure) for summary in (treated, control, merged(treated, control)))
        theta = np.where(both.before_variance > (STILL * both.before) ** 2, both.covariance / both.before_variance, 0.0)
        corrected = [arm.mean - theta * (arm.before - both.before) for arm in (one, other)]
        at, base = corrected
        scale = STILL * np.maximum(np.abs(at), np.abs(base))
        units, difference = one.units + other.units, np.where(np.abs(at - base) <= scale, 0.0, at - base)
        parts = (one.varies(np.ones_like(theta), theta), other.varies(np.ones_like(theta), theta))
        plain = one.varies(np.ones_like(theta), np.zeros_like(theta)) + other.varies(
            np.ones_like(theta), np.zeros_like(theta)
        )
        lift = difference / base
        shared = theta * (1 + lift * one.units / units)
        lift_parts = (one.varies(np.ones_like(theta), shared), other.varies(1 + lift, shared))
        error, lift_error = (
            np.where(found <= scale, 0.0, found) for found in (np.sqrt(sum(parts)), np.sqrt(sum(lift_parts)))
        )
        lift_error = lift_error / np.abs(base)
        # A part of nothing, or of a loss, says nothing: its sign would not be that of the difference.
        lift, lift_error = (np.where(base > 0, found, np.nan) for found in (lift, lift_error))
        freedom = welch(parts, (one.units, other.units))
        t, lift_t = (_reach(alpha, free) for free in (freedom, welch(lift_parts, (one.units, other.units))))
        radius = sequential_radius(np.ones_like(units), units, alpha, tuned_units)
        is_still = error == 0
        return Comparison(
            at,
            base,
            difference,
            error,
            _around(difference, error * t),
            _around(difference, error * radius),
            lift,
            lift_error,
            _around(lift, lift_error * lift_t),
            _around(lift, lift_error * radius),
            freedom,
            units,
            np.where(is_still, _certain(difference), 2 * stats.t.sf(np.abs(difference / error), freedom)),
            np.where(is_still, _certain(difference), sequential_p(difference, error, units, alpha, tuned_units)),
            np.where(np.isnan(plain), np.nan, np.where(plain > 0, sum(parts) / plain, 1.0)),
        )


def _reach(alpha: float, freedom: Floats) -> Floats:
    """Standard errors to each side; where nothing varies, and so there is no freedom to speak of, those of the normal
    distribution.
    """
    return np.asarray(np.where(np.isnan(freedom), stats.norm.isf(alpha / 2), stats.t.isf(alpha / 2, freedom)))


def _certain(difference: Floats) -> Floats:
    """P where no unit of an arm differs from another: a difference is certain, and where there is none, none is
    possible (NaN).
    """
    return np.asarray(np.where(np.abs(difference) > 0, 0.0, np.nan))


def harm(
    treated: Summary, control: Summary, measure: MetricColumns, sign: int, tolerated: float = 0.0
) -> tuple[Floats, Floats]:
    """Return how much worse the treated arm is than is tolerated, and the standard error of that; for `harm_p` and
    `harm_p_sequential`.

    Nothing is divided by the control's mean, which may be zero or below it: what is tolerated is a part of its size,
    whatever its sign.

    Args:
        sign: 1 where more is worse, -1 where less is.
        tolerated: the part of the control's mean; 0.1 is a tenth.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        one, other = _arm(treated, measure), _arm(control, measure)
        of_control = sign + tolerated * np.sign(other.mean)
        none = np.zeros_like(one.mean)
        error = np.sqrt(one.varies(none + 1, none) + other.varies(of_control, none))
        worse, scale = (
            sign * one.mean - of_control * other.mean,
            STILL * np.maximum(np.abs(one.mean), np.abs(other.mean)),
        )
        return np.where(np.abs(worse) <= scale, 0.0, worse), np.where(error <= scale, 0.0, error)


def _arm(summary: Summary, measure: MetricColumns) -> _Arm:
    """Return the linear form of a ratio: a unit's part is (numerator - ratio x denominator) / mean denominator. Nobody
    has no mean: NaN.
    """
    covariances = summary.covariances
    weights = np.zeros_like(summary.means)
    mean = np.where(summary.units > 0, summary.means[..., measure.numerator], np.nan)
    if measure.denominator is None:
        weights[..., measure.numerator] = 1.0
    else:
        per = summary.means[..., measure.denominator]
        mean = mean / per
        weights[..., measure.numerator] = 1 / per
        weights[..., measure.denominator] -= mean / per
    along = (covariances @ weights[..., None])[..., 0]
    variance = (along * weights).sum(-1)
    if measure.covariate is None:
        none = np.zeros_like(mean)
        return _Arm(summary.units, mean, variance, none, none, none)
    at = measure.covariate
    return _Arm(summary.units, mean, variance, summary.means[..., at], covariances[..., at, at], along[..., at])


def _around(middle: Floats, radius: Floats) -> Interval:
    return Interval(middle - radius, middle + radius)


def welch(variances: tuple[Floats, Floats], counts: tuple[Floats, Floats]) -> Floats:
    """Degrees of freedom of a difference of two means (Satterthwaite), of the variances of the means."""
    below = sum(variance**2 / (count - 1) for variance, count in zip(variances, counts, strict=True))
    return np.asarray((variances[0] + variances[1]) ** 2 / below)


def _rho_squared(alpha: float, tuned_units: float) -> float:
    """Return what makes the sequential interval narrowest at so many units."""
    return float((-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / tuned_units)


def sequential_radius(error: Floats, units: Floats, alpha: float = ALPHA, tuned_units: float = TUNED_UNITS) -> Floats:
    """Half the width of the interval that holds at all looks together, of a standard error at so many units."""
    grown = units * _rho_squared(alpha, tuned_units)
    return np.asarray(error * np.sqrt(2 * (grown + 1) / grown * np.log(np.sqrt(grown + 1) / alpha)))


def sequential_p(
    difference: Floats, error: Floats, units: Floats, alpha: float = ALPHA, tuned_units: float = TUNED_UNITS
) -> Floats:
    """P of no difference, two-sided, valid at all looks together: 1 / the mixture's likelihood ratio."""
    grown = units * _rho_squared(alpha, tuned_units)
    ratio = (difference / error) ** 2 * grown / (2 * (grown + 1)) - np.log(grown + 1) / 2
    return np.asarray(np.exp(-np.maximum(ratio, 0.0)) + 0 * ratio)


def harm_p(worse: Floats, error: Floats, freedom: Floats) -> Floats:
    """P of no harm, one-sided, for one look; `worse` is a difference that is positive where the arm does harm."""
    z = _standardized(worse, error)
    return np.asarray(np.where(np.isnan(freedom), stats.norm.sf(z), stats.t.sf(z, freedom)))


def harm_p_sequential(
    worse: Floats, error: Floats, units: Floats, alpha: float = ALPHA, tuned_units: float = TUNED_UNITS
) -> Floats:
    """As `harm_p`, valid at all looks together: the mixture is over harm alone (half a normal distribution)."""
    grown = units * _rho_squared(2 * alpha, tuned_units)
    z = np.clip(_standardized(worse, error), -Z_MAX, Z_MAX)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (
            np.log(2)
            - np.log(grown + 1) / 2
            + z**2 * grown / (2 * (grown + 1))
            + log_ndtr(z * np.sqrt(grown / (grown + 1)))
        )
    return np.asarray(np.exp(-np.maximum(ratio, 0.0)) + 0 * ratio)


def _standardized(worse: Floats, error: Floats) -> Floats:
    """Standard errors of harm. Where nothing varies harm is certain, or there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where((error == 0) & (worse == 0), 0.0, worse / error))


def detectable(error: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest true difference that a fixed look shows with this power, at the standard error of now."""
    return float(stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) * error


def units_needed(
    error: float, units: float, effect: float, *, sequential: bool, alpha: float = ALPHA, power: float = POWER
) -> float | None:
    """Units of both arms at which a true difference would be shown with this power; None beyond `UNITS_NEEDED_MAX`.

    Args:
        error: standard error of the difference, at `units` units.
        sequential: whether the sequential interval must leave zero out at that look; earlier ones may too.
    """
    if not (error > 0 and effect > 0 and units > 0):
        return None

    def short(many: float) -> bool:
        at = error * float(np.sqrt(units / many))
        reach = (
            float(sequential_radius(np.asarray(at), np.asarray(many), alpha))
            if sequential
            else float(stats.norm.isf(alpha / 2)) * at
        )
        return reach + float(stats.norm.ppf(power)) * at > effect

    low, high = 1.0, UNITS_NEEDED_MAX
    if short(high):
        return None
    while high / low > 1 + 1e-6:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if short(middle) else (low, middle)
    return high
