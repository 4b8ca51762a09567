"""Sample-ratio mismatch: whether the arms have as many units as the split gives them.

A mismatch means that units were lost or doubled on the way, most likely not at random: no other figure of the
experiment can be trusted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import gammaln

from pipelines.statistics.summaries import Floats

MISMATCH_P = 0.001
"""Below it the alarm is raised."""


PRIOR_UNITS = 1_000.0
"""How sure the sequential test is beforehand of what a broken split would be: near the sound one, as after so many
units.
"""


class SampleRatioMismatch(NamedTuple):
    """Pearson's chi-square; P is 1 where there is nothing to compare."""

    chi_square: Floats
    p: Floats

    @property
    def is_alarm(self) -> bool:
        """Of one experiment."""
        return bool(self.p < MISMATCH_P)


def mismatch(counts: ArrayLike, expected: ArrayLike) -> SampleRatioMismatch:
    """Return the mismatch of units by arm, shape (…, arms).

    Args:
        expected: shares or expected units, of any sum; an arm that expects nobody and has somebody is a mismatch for
            sure.
    """
    seen, wanted = np.broadcast_arrays(np.asarray(counts, np.float64), np.asarray(expected, np.float64))
    total = wanted.sum(-1, keepdims=True)
    awaited = wanted / np.where(total > 0, total, 1.0) * seen.sum(-1, keepdims=True)
    is_open = awaited > 0
    terms = np.where(is_open, (seen - awaited) ** 2 / np.where(is_open, awaited, 1.0), np.where(seen > 0, np.inf, 0.0))
    chi_square = terms.sum(-1)
    freedom = np.maximum(is_open.sum(-1) - 1, 1)
    return SampleRatioMismatch(np.asarray(chi_square), np.asarray(stats.chi2.sf(chi_square, freedom)))


def mismatch_p_sequential(counts: ArrayLike, expected: ArrayLike) -> Floats:
    """P of a sound split, valid at all looks together: one over the Bayes factor for any split (Lindon and Malek 2022;
    a Dirichlet prior).

    Args:
        counts, expected: see `mismatch`; of the arms that expect somebody, one at least, in (…, arms).
    """
    seen, wanted = np.broadcast_arrays(np.asarray(counts, np.float64), np.asarray(expected, np.float64))
    shares = wanted / wanted.sum(-1, keepdims=True)
    prior = PRIOR_UNITS * shares
    gained = (gammaln(prior + seen) - gammaln(prior) - seen * np.log(shares)).sum(-1)
    factor = gained - gammaln(PRIOR_UNITS + seen.sum(-1)) + gammaln(PRIOR_UNITS)
    return np.asarray(np.exp(-np.maximum(factor, 0.0)))
