"""A calibration as plain numbers: what the bundle carries and serving applies, without scikit-learn."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

LOG_ODDS_MAX = 36.0
"""Beyond it a double cannot tell the probability from 0 or 1, and no finite sample makes an event certain."""


class Calibration(msgspec.Struct, frozen=True):
    """Raw score (log odds) -> probability, never falling, above 0 and below 1.

    `sigmoid`: 1 / (1 + exp(-(slope * raw + intercept))), after Platt (1999); slope 1 and intercept 0 is the identity.
    `isotonic`: linear between the knots `x` -> `y`, constant beyond them, after Zadrozny and Elkan (2002).

    Raises:
        ValueError: the numbers are not of such a function.
    """

    method: Literal["sigmoid", "isotonic"]
    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        x, y = np.array(self.x), np.array(self.y)
        if not (np.isfinite([self.slope, self.intercept]).all() and self.slope > 0):
            raise ValueError(
                f"expected a slope above zero and a finite intercept, got {self.slope} and {self.intercept}"
            )
        if len(x) != len(y) or (self.method == "isotonic" and not len(x)):
            raise ValueError(f"expected as many y as x, and knots for the isotonic method, got {len(x)} and {len(y)}")
        if not (
            np.isfinite(x).all()
            and (np.diff(x) > 0).all()
            and (np.diff(y) >= 0).all()
            and (y > 0).all()
            and (y < 1).all()
        ):
            raise ValueError("expected knots with rising x, and y that never falls, above 0 and below 1")

    def probabilities(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of raw scores, same shape; a new array."""
        if self.method == "isotonic":
            return np.interp(raw, self.x, self.y)
        odds = np.maximum(
            np.minimum(self.slope * raw + self.intercept, LOG_ODDS_MAX), -LOG_ODDS_MAX
        )  # np.clip takes twice as long for a few
        return 1.0 / (1.0 + np.exp(-odds))
