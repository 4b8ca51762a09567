"""How far propensities are from the true probabilities: not from outcomes, which are rare and late, but from the truth
itself.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from pipelines.world.settings import Floats

BINS = 10


class Bin(Struct, frozen=True):
    """Rows of about the same propensity."""

    rows: int
    predicted: float
    true: float


class WorldCalibration(Struct, frozen=True):
    """Propensities against truth, over the offers that a group was shown.

    Attributes:
        predicted, true: means.
        ece: expected calibration error: mean distance between predicted and true over the bins, weighted by rows.
        distance: mean distance of each propensity from its own true probability; a constant can have an `ece` of 0, not
            this.
        bins: at most `BINS`, of equally many rows, by propensity.
    """

    group: str
    rows: int
    predicted: float
    true: float
    ece: float
    distance: float
    bins: list[Bin]


def calibration_of(group: str, predicted: Floats, true: Floats) -> WorldCalibration | None:
    """Return the calibration of propensities and true probabilities, both of shape (rows,); None where there are no
    rows.
    """
    rows = len(predicted)
    if rows == 0:
        return None
    order = np.argsort(predicted, kind="stable")
    bins = [
        Bin(len(part), float(predicted[part].mean()), float(true[part].mean()))
        for part in np.array_split(order, min(BINS, rows))
    ]
    ece = sum(abs(one.predicted - one.true) * one.rows for one in bins) / rows
    return WorldCalibration(
        group, rows, float(predicted.mean()), float(true.mean()), ece, float(np.abs(predicted - true).mean()), bins
    )
