"""Several questions to one experiment: p-values corrected for how many there are.

Holm's holds the chance of even one false alarm, whatever the metrics have to do with each other, at all looks.
Benjamini and Hochberg's holds the part of alarms that are false, for metrics that go together, and finds more.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from pipelines.statistics.summaries import Floats

Correction = Literal["holm", "benjamini-hochberg", "none"]
CORRECTIONS: tuple[Correction, ...] = get_args(Correction)


def corrected(p: ArrayLike, correction: Correction) -> Floats:
    """Corrected p-values, to be held against the same alpha; NaN stays NaN and is no question."""
    given = np.asarray(p, np.float64)
    asked = np.isfinite(given)
    found = np.full(given.shape, np.nan)
    if not asked.any():
        return found
    if correction == "none":
        found[asked] = given[asked]
    elif correction == "holm":
        found[asked] = _holm(given[asked])
    else:
        found[asked] = stats.false_discovery_control(given[asked], method="bh")
    return found


def _holm(p: Floats) -> Floats:
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    found = np.empty_like(stepped)
    found[order] = stepped
    return found
