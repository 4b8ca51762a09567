"""Sample-ratio mismatch: whether the arms have as many units as the split gives them.

A mismatch means that units were lost or doubled on the way, most likely not at random: no other figure of the experiment can be trusted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from training.summaries import Floats

MISMATCH_P = 0.001
"""Below it the alarm is raised."""


class Mismatch(NamedTuple):
    """Pearson's chi-square; P is 1 where there is nothing to compare."""

    chi_square: Floats
    p: Floats

    @property
    def is_alarm(self) -> bool:
        """Of one experiment."""
        return bool(self.p < MISMATCH_P)


def mismatch(counts: ArrayLike, expected: ArrayLike) -> Mismatch:
    """Of units by arm, shape (…, arms).

    Args:
        expected: shares or expected units, of any sum; an arm that expects nobody and has somebody is a mismatch for sure.
    """
    seen, wanted = np.broadcast_arrays(np.asarray(counts, np.float64), np.asarray(expected, np.float64))
    total = wanted.sum(-1, keepdims=True)
    awaited = wanted / np.where(total > 0, total, 1.0) * seen.sum(-1, keepdims=True)
    is_open = awaited > 0
    terms = np.where(is_open, (seen - awaited) ** 2 / np.where(is_open, awaited, 1.0), np.where(seen > 0, np.inf, 0.0))
    chi_square = terms.sum(-1)
    freedom = np.maximum(is_open.sum(-1) - 1, 1)
    return Mismatch(np.asarray(chi_square), np.asarray(stats.chi2.sf(chi_square, freedom)))
