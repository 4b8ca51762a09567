"""From a raw score to a probability: identity, Platt's sigmoid or isotonic regression, whichever predicts best on
held-out decisions.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from training.bundle.calibration_map import Calibration

Floats = NDArray[np.float64]
Method = Literal["identity", "sigmoid", "isotonic"]

METHODS: tuple[Method, ...] = ("identity", "sigmoid", "isotonic")
FOLDS = 5
KNOTS_MAX = 256


class Chosen(msgspec.Struct, frozen=True):
    """The calibration that won, and the held-out log loss of every candidate."""

    method: Method
    calibration: Calibration
    log_losses: dict[str, float]


def fit(method: Method, raw: Floats, labels: Floats) -> Calibration:
    """Fit one method on raw scores (log odds, shape (n,)) and labels."""
    if method == "identity":
        return Calibration("sigmoid", 1.0, 0.0)
    if method == "sigmoid":
        model = LogisticRegression(C=1e6).fit(raw[:, None], labels)
        slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
        # A slope that is not positive would turn the order of offers round: there is nothing to calibrate then.
        return Calibration("sigmoid", slope, intercept) if slope > 0 else Calibration("sigmoid", 1.0, 0.0)
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(raw, labels)
    x, y = np.asarray(isotonic.X_thresholds_, np.float64), np.asarray(isotonic.y_thresholds_, np.float64)
    if len(x) > KNOTS_MAX:
        kept = np.unique(np.linspace(0, len(x) - 1, KNOTS_MAX).astype(int))
        x, y = x[kept], y[kept]
    # Half a success and half a failure at the ends: no finite sample makes an event certain or impossible.
    floor = 0.5 / (len(labels) + 1.0)
    return Calibration("isotonic", x=tuple(x.tolist()), y=tuple(np.clip(y, floor, 1 - floor).tolist()))


def choose(raw: Floats, labels: Floats, groups: NDArray[np.int64]) -> Chosen:
    """Compare the methods by cross-validated log loss, whole decisions held out, and fit the winner on everything.

    Args:
        groups: the decision of each row; rows of one decision are never on both sides.
    """
    fold = groups % FOLDS
    losses: dict[str, float] = {}
    for method in METHODS:
        predicted = np.empty(len(raw))
        for number in range(FOLDS):
            held = fold == number
            if held.any() and 0 < labels[~held].sum() < (~held).sum():
                predicted[held] = fit(method, raw[~held], labels[~held]).probabilities(raw[held])
            else:
                predicted[held] = Calibration("sigmoid", 1.0, 0.0).probabilities(raw[held])
        losses[method] = float(log_loss(labels, predicted, labels=[0, 1]))
    best: Method = min(METHODS, key=lambda method: losses[method])
    return Chosen(best, fit(best, raw, labels), losses)
