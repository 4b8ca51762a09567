"""The fit: stops early, calibrates, refits, repeats to the bit, and refuses what could not serve."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from features.config.schema import Label, ModelFile
from tests.examples import contract_of, made
from training.bundle.forest_compiler import compile_forest
from training.dataset.examples import Examples
from training.fitting.fit import BadParameters, fit
from training.fitting.metrics import auc

MODEL = ModelFile(
    name="m",
    label=Label("taken"),
    parameters={"num_leaves": 7, "min_data_in_leaf": 20, "learning_rate": 0.25},
    rounds_max=60,
    patience_rounds=10,
)


def learnable(decisions: int, seed: int) -> Examples:
    """Four offers a decision; a number, a number with gaps and a category decide, a fourth column says nothing."""
    chance = np.random.default_rng(seed)
    rows = 4 * decisions
    values = chance.normal(size=(rows, 4))
    values[:, 1] = np.where(chance.random(rows) < 0.3, np.nan, values[:, 1])
    values[:, 2] = np.where(chance.random(rows) < 0.1, np.nan, chance.integers(0, 12, rows))
    odds = -2 + 1.2 * values[:, 0] + 1.5 * np.isnan(values[:, 1]) + 1.5 * np.isin(values[:, 2], (3, 7))
    labels = (chance.random(rows) < 1 / (1 + np.exp(-odds))).astype(float)
    return made([4] * decisions, labels, values, contract=contract_of(4, (2,)))


EARLY, LATER, UNSEEN = (learnable(size, seed) for seed, size in enumerate((900, 300, 600)))


def with_(**changes: Any) -> ModelFile:
    return msgspec.structs.replace(MODEL, **changes)


def test_it_learns_stops_and_calibrates() -> None:
    """On learnable data: far better than chance on unseen rows, stopped before the last round, right on average."""
    told = []
    fitted = fit(MODEL, EARLY, LATER, lambda done, most: told.append((done, most)))
    assert auc(UNSEEN.labels, fitted.raw(UNSEEN.values)) > 0.75
    assert fitted.probabilities(UNSEEN.values).mean() == pytest.approx(UNSEEN.labels.mean(), rel=0.1)
    assert 1 <= fitted.rounds < MODEL.rounds_max
    assert len(fitted.losses) == fitted.rounds + MODEL.patience_rounds
    assert np.argmin(fitted.losses) == fitted.rounds - 1
    assert told == [(done, MODEL.rounds_max) for done in range(1, len(fitted.losses) + 1)]
    assert fitted.booster.num_trees() == fitted.rounds
    assert fitted.booster.feature_name() == EARLY.contract.names


def test_the_same_data_and_seed_give_the_same_model() -> None:
    """The text of the model is equal, to the byte; with another seed (and sampling) it is another."""
    sampling = with_(
        parameters=MODEL.parameters | {"bagging_fraction": 0.7, "bagging_freq": 1, "feature_fraction": 0.7}
    )
    one, again = (fit(sampling, EARLY, LATER) for _ in range(2))
    assert one.booster.model_to_string() == again.booster.model_to_string()
    assert one.calibration == again.calibration and one.losses == again.losses
    other = fit(msgspec.structs.replace(sampling, seed=2), EARLY, LATER)
    assert other.booster.model_to_string() != one.booster.model_to_string()


def test_categories_are_split_as_categories() -> None:
    """A category is not a number to the model: its compiled forest has category sets."""
    forest = compile_forest(fit(MODEL, EARLY, LATER).booster.model_to_string())
    assert len(forest.category_words) > 0


def test_a_column_that_is_said_to_increase_never_decreases() -> None:
    """`monotone` holds over the whole range, whatever the other columns."""
    fitted = fit(with_(monotone={"c0": "increasing"}), EARLY, LATER)
    grid = np.repeat(UNSEEN.values[:50], 41, axis=0)
    grid[:, 0] = np.tile(np.linspace(-3, 3, 41), 50)
    assert (np.diff(fitted.raw(grid).reshape(50, 41), axis=1) >= 0).all()
    falling = fit(with_(monotone={"c0": "decreasing"}), EARLY, LATER)
    assert auc(UNSEEN.labels, falling.raw(UNSEEN.values)) < auc(UNSEEN.labels, fitted.raw(UNSEEN.values))


def test_weights_change_the_order_and_not_the_level() -> None:
    """Decisions without success may count less; calibration puts the mean probability right again."""
    fitted = fit(with_(weight_without_success=0.2), EARLY, LATER)
    assert fitted.raw(UNSEEN.values).mean() > fit(MODEL, EARLY, LATER).raw(UNSEEN.values).mean() + 0.1
    assert fitted.probabilities(UNSEEN.values).mean() == pytest.approx(UNSEEN.labels.mean(), rel=0.12)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_estimators": 50}, "expected `rounds_max` in model.yaml, got `n_estimators` among `parameters`"),
        ({"early_stopping_rounds": 5}, "expected `patience_rounds`"),
        ({"random_state": 5}, "expected `seed`"),
        ({"monotone_constraints": [1, 0, 0, 0]}, "expected `monotone`"),
        (
            {"num_leafs": 7},
            (
                "expected a parameter of LightGBM in model.yaml, got `num_leafs` among `parameters`. Did you mean"
                " `num_leaves`"
            ),
        ),
        (
            {"num_leaves": 1},
            "expected a whole number of 2 at least and 256 at most in model.yaml, got 1 among `parameters`",
        ),
        (
            {"max_leaf": 500},
            "expected a whole number of .* 256 at most.*, got 500 .* The server scores trees of at most so many leaves",
        ),
        (
            {"boosting_type": "dart"},
            "expected gbdt or gbrt in model.yaml, got the text 'dart' .* dart cannot stop early",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused(parameters: dict[str, Any], message: str) -> None:
    """What another key of model.yaml says, what LightGBM does not take, what the server cannot score: each has its way
    out.
    """
    with pytest.raises(BadParameters, match=message):
        fit(with_(parameters=parameters, rounds_max=5), EARLY, LATER)


def test_rows_may_be_histogrammed_the_other_way() -> None:
    """`force_row_wise` takes the place of our default rather than clash with it."""
    assert fit(with_(parameters={"force_row_wise": True}), EARLY, LATER).rounds >= 1
