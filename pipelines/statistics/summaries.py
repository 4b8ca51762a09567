"""Summaries of numbers by unit: counts, means and how they vary together. What estimators need of millions of units,
and nothing more.

Summaries of two parts of the units give the summary of both (Chan, Golub and LeVeque 1979), so that days can be added
up one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Summary(NamedTuple):
    """Of so many units; leading dimensions are several summaries at once (simulations, days).

    Attributes:
        units: how many, shape (…).
        means: of each column, shape (…, columns); anything where there are no units.
        scatter: sums of products of deviations from the means, shape (…, columns, columns).
    """

    units: Floats
    means: Floats
    scatter: Floats

    @property
    def covariances(self) -> Floats:
        """Unbiased, shape (…, columns, columns); NaN below two units."""
        freedom = self.units - 1
        return np.asarray(self.scatter / np.where(freedom > 0, freedom, np.nan)[..., None, None])


def nothing(columns: int) -> Summary:
    """Return the summary of no units."""
    return Summary(np.zeros(()), np.zeros(columns), np.zeros((columns, columns)))


def merged(one: Summary, other: Summary) -> Summary:
    """Return the summary of the units of both, which share none."""
    units = one.units + other.units
    part = other.units / np.where(units > 0, units, 1.0)
    apart = other.means - one.means
    means = one.means + apart * part[..., None]
    between = apart[..., :, None] * apart[..., None, :] * (one.units * part)[..., None, None]
    return Summary(units, means, one.scatter + other.scatter + between)
