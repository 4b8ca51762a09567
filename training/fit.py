"""Fit the propensity model: LightGBM with early stopping on a later slice, then calibrated there, then refitted on both."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from features.formats import ModelFile
from training.calibration import Chosen, choose
from training.examples import Examples

DEFAULTS: dict[str, Any] = {"objective": "binary", "num_leaves": 31, "learning_rate": 0.05, "min_data_in_leaf": 50, "deterministic": True, "verbose": -1}


@dataclass(frozen=True)
class Fitted:
    """A fitted model with its calibration, and how it came about."""

    booster: lgb.Booster
    calibration: Chosen
    rounds: int
    parameters: dict[str, Any]
    losses: list[float]
    """Log loss on the stopping slice after each round."""

    def raw(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw scores (log odds) of rows, shape (rows,)."""
        return np.asarray(self.booster.predict(values, raw_score=True, num_threads=threads()))

    def probabilities(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities of rows, shape (rows,)."""
        return self.calibration.calibration.probabilities(self.raw(values))


def threads() -> int:
    return len(os.sched_getaffinity(0))


def fit(model: ModelFile, early: Examples, later: Examples, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Fitted:
    """Fit on the earlier training decisions, stop and calibrate on the later ones, refit on both.

    The number of rounds found is kept; the calibration is that of the first fit, whose scores the later decisions had not
    been seen by.

    Args:
        progress: told the rounds that are done and the most that there can be.
    """
    parameters = DEFAULTS | model.parameters | {"num_threads": threads(), "seed": model.seed, "monotone_constraints": _monotone(model, early)}
    if not any(parameters["monotone_constraints"]):
        del parameters["monotone_constraints"]
    losses: dict[str, Any] = {}
    callbacks = [
        lgb.early_stopping(model.patience_rounds, verbose=False),
        lgb.record_evaluation(losses),
        lambda env: progress(env.iteration + 1, model.rounds_max),
    ]
    training = _dataset(early)
    first = lgb.train(parameters, training, model.rounds_max, [_dataset(later, training)], ["later"], callbacks=callbacks)
    rounds = max(1, first.best_iteration)
    raw = np.asarray(first.predict(later.values, raw_score=True, num_iteration=rounds, num_threads=threads()))
    calibration = choose(raw, later.labels, later.decision)
    booster = lgb.train(parameters, _dataset(early, None, later), rounds)
    return Fitted(booster, calibration, rounds, parameters, [float(loss) for loss in next(iter(losses["later"].values()))])


def _dataset(examples: Examples, reference: lgb.Dataset | None = None, more: Examples | None = None) -> lgb.Dataset:
    values, labels = examples.values, examples.labels
    if more is not None:
        values, labels = np.concatenate([values, more.values]), np.concatenate([labels, more.labels])
    names = examples.contract.names
    categorical = [column.name for column in examples.contract.columns if column.dtype == "category"]
    return lgb.Dataset(values, labels, feature_name=names, categorical_feature=categorical, reference=reference, free_raw_data=True)


def _monotone(model: ModelFile, examples: Examples) -> list[int]:
    direction = {"increasing": 1, "decreasing": -1}
    return [direction[model.monotone[name]] if name in model.monotone else 0 for name in examples.contract.names]
