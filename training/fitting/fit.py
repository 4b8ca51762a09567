"""Fit the propensity model: LightGBM with early stopping on a later slice, then calibrated there, then refitted on
both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

# OpenMP's threads wait asleep: spinning, two of them beside other work took five times the CPU, and longer than one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from features.common.errors import Failure
from features.config.model_file import ModelFile
from features.config.model_parameters import main_names, wrong_parameters
from training.bundle.forest_compiler import ForestNotCompilable, compile_forest
from training.dataset.examples import Examples
from training.fitting.calibration import Chosen, choose

DEFAULTS: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 31,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "deterministic": True,
    "force_col_wise": True,
    "verbosity": -1,
}
METRIC = "binary_logloss"


class BadParameters(Failure):
    """LightGBM does not take the parameters of `model.yaml`, or makes a model of them that cannot be served."""


@dataclass(frozen=True)
class Fitted:
    """A fitted model with its calibration, and how it came about."""

    booster: lgb.Booster
    calibration: Chosen
    rounds: int
    parameters: dict[str, Any]
    losses: list[float]
    """Log loss on the stopping slice after each round."""

    @cached_property
    def trees(self) -> int:
        """Trees that split anything: LightGBM's last ones may be a single leaf."""
        return int((compile_forest(self.booster.model_to_string()).leaves > 1).sum())

    def raw(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw scores (log odds) of rows, shape (rows,)."""
        return np.asarray(self.booster.predict(values, raw_score=True, num_threads=threads()))

    def probabilities(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities of rows, shape (rows,)."""
        return self.calibration.calibration.probabilities(self.raw(values))


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def load(model: Path) -> lgb.Booster:
    """Return a model from its text, in this process: only what has passed its digest and the canary."""
    return lgb.Booster(model_file=str(model))


def fit(
    model: ModelFile, early: Examples, later: Examples, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Fitted:
    """Fit on the earlier training decisions, stop and calibrate on the later ones, refit on both.

    The number of rounds found is kept; the calibration is that of the first fit, whose scores the later decisions had
    not been seen by.

    Args:
        progress: told the rounds that are done and the most that there can be.

    Raises:
        BadParameters: what LightGBM, or the server, would not take.
    """
    parameters = parameters_of(model, early)
    losses: dict[str, Any] = {}
    callbacks: list[Callable[..., Any]] = [
        lgb.early_stopping(model.patience_rounds, verbose=False),
        lgb.record_evaluation(losses),
        lambda env: progress(env.iteration + 1, model.rounds_max),
    ]
    weight = model.weight_without_success
    training = _dataset(weight, early)
    try:
        first = lgb.train(
            parameters, training, model.rounds_max, [_dataset(weight, later, training)], ["later"], callbacks=callbacks
        )
    except lgb.basic.LightGBMError as error:
        said = str(error).splitlines()[0].strip(" .")
        raise BadParameters(
            f"expected parameters that LightGBM takes, got: {said}. Mend `parameters` in model.yaml."
        ) from error
    rounds = max(1, first.best_iteration)
    raw = np.asarray(first.predict(later.values, raw_score=True, num_iteration=rounds, num_threads=threads()))
    calibration = choose(raw, later.labels, later.decision)
    booster = lgb.train(parameters, _dataset(weight, early, None, later), rounds)
    try:
        compile_forest(booster.model_to_string())
    except ForestNotCompilable as error:
        raise BadParameters(f"{error}: see `parameters` in model.yaml") from error
    return Fitted(booster, calibration, rounds, parameters, [float(loss) for loss in losses["later"][METRIC]])


def parameters_of(model: ModelFile, examples: Examples) -> dict[str, Any]:
    """Return what LightGBM is given, by its main names: our defaults, over them the file's own, over them what other
    keys of the file say.

    Raises:
        BadParameters: one of the file's own would have no effect, or cannot be served.
    """
    has_categories = any(column.dtype == "category" for column in examples.contract.columns)
    for wrong in wrong_parameters(model.parameters, is_monotone=bool(model.monotone), has_categories=has_categories):
        raise BadParameters(
            f"expected {wrong.expected} in model.yaml, got {wrong.got} among `parameters`. {wrong.remedy}".strip()
        )
    own = main_names(model.parameters)
    parameters = DEFAULTS | own | {"metric": METRIC, "num_threads": threads(), "seed": model.seed}
    if own.get("force_row_wise"):
        del parameters["force_col_wise"]  # ours: LightGBM takes one of them
    constraints = _monotone(model, examples)
    if any(constraints):
        parameters["monotone_constraints"] = constraints
    if model.additive:
        parameters["interaction_constraints"] = _apart(examples)
    return parameters


def _dataset(
    weight: float, examples: Examples, reference: lgb.Dataset | None = None, more: Examples | None = None
) -> lgb.Dataset:
    values, labels, weights = examples.values, examples.labels, _weights(weight, examples)
    if more is not None:
        values, labels = np.concatenate([values, more.values]), np.concatenate([labels, more.labels])
        weights = np.concatenate([weights, _weights(weight, more)])
    names = examples.contract.names
    categorical = [column.name for column in examples.contract.columns if column.dtype == "category"]
    return lgb.Dataset(
        values,
        labels,
        weight=weights,
        feature_name=names,
        categorical_feature=categorical,
        reference=reference,
        free_raw_data=True,
    )


def _apart(examples: Examples) -> list[list[int]]:
    """Split column positions into level columns and ranking columns."""
    level = [column.kind in ("customer", "context") for column in examples.contract.columns]
    groups = [[at for at, is_level in enumerate(level) if is_level == wanted] for wanted in (True, False)]
    return [group for group in groups if group]


def _weights(without_success: float, examples: Examples) -> NDArray[np.float64]:
    """Return one weight a row: what calibration puts right again, since it is done on unweighted rows."""
    successes = np.bincount(examples.decision, examples.labels, len(examples.ids))
    weights = np.where(successes[examples.decision] > 0, 1.0, without_success)
    return weights if examples.weights is None else weights * examples.weights[examples.decision]


def _monotone(model: ModelFile, examples: Examples) -> list[int]:
    direction = {"increasing": 1, "decreasing": -1}
    return [direction[model.monotone[name]] if name in model.monotone else 0 for name in examples.contract.names]
