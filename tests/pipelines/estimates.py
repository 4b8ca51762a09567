"""Estimates in their textbook form, for comparison: a summary from the numbers of all units, and the lift of a rate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipelines.statistics.summaries import Summary


def summary_of(values: ArrayLike) -> Summary:
    """Return the summary of numbers of shape (…, units, columns)."""
    rows = np.asarray(values, np.float64)
    means = rows.mean(-2)
    off = rows - means[..., None, :]
    return Summary(np.full(rows.shape[:-2], float(rows.shape[-2])), means, np.swapaxes(off, -1, -2) @ off)


class RateLift(NamedTuple):
    """Lift of a rate over that of a control group."""

    lift: float
    error: float


def rate_lift(successes: int, units: int, control_successes: int, control_units: int) -> RateLift:
    """Return (t - c) / c of two groups, with its standard error: 1/c x sqrt(SE_t^2 + (t/c)^2 x SE_c^2), where SE =
    sqrt(p (1 - p) / n).

    NaN where the control group had no success, or a group has no units.
    """
    if not (units and control_units and control_successes):
        return RateLift(float("nan"), float("nan"))
    t, c = successes / units, control_successes / control_units
    error = np.sqrt(t * (1 - t) / units + (t / c) ** 2 * c * (1 - c) / control_units) / c
    return RateLift((t - c) / c, float(error))
