"""A calibration as plain numbers: what the bundle carries and serving applies, without scikit-learn."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray


class Calibration(msgspec.Struct, frozen=True):
    """Raw score (log odds) -> probability.

    `sigmoid`: 1 / (1 + exp(-(slope * raw + intercept))), after Platt (1999); slope 1 and intercept 0 is the identity.
    `isotonic`: linear between the knots `x` -> `y`, constant beyond them, after Zadrozny and Elkan (2002).
    """

    method: Literal["sigmoid", "isotonic"]
    slope: float = 1.0
    intercept: float = 0.0
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def probabilities(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of raw scores, same shape; a new array."""
        if self.method == "isotonic":
            return np.interp(raw, self.x, self.y)
        return 1.0 / (1.0 + np.exp(-(self.slope * raw + self.intercept)))
