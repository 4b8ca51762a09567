"""What may serve: one tree and a coin never do, whatever the gates of the file say."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from features.config.model_file import Gates
from tests.training.fitting.test_fit import EARLY, LATER, MODEL, UNSEEN
from training.dataset.examples import Examples
from training.fitting import gates
from training.fitting.fit import Fitted, fit
from training.fitting.metrics import auc_interval

OFF = Gates(better_than_popularity=False)
EVEN = {"model": {"mrr": 0.5}, "popularity": {"mrr": 0.5}}


def shuffled(examples: Examples, seed: int) -> Examples:
    """The same rows with labels that know nothing of them."""
    return Examples(*({**vars(examples), "labels": np.random.default_rng(seed).permutation(examples.labels)}.values()))


def judged(fitted: Fitted, test: Examples) -> list[str]:
    return list(
        gates.failed(OFF, fitted.trees, auc_interval(test.labels, fitted.raw(test.values), test.decision), EVEN)
    )


def test_a_model_that_learnt_passes() -> None:
    """On learnable data there are many trees, and the AUC is far from a coin's."""
    fitted = fit(MODEL, EARLY, LATER)
    assert fitted.trees == fitted.rounds > 1
    assert judged(fitted, UNSEEN) == []


def test_one_tree_never_passes() -> None:
    """A model that one round made orders rows well, and is told all the same."""
    (reason,) = judged(fit(msgspec.structs.replace(MODEL, rounds_max=1), EARLY, LATER), UNSEEN)
    assert reason.startswith("expected 2 trees at least, got 1: no further one made the log loss")


def test_a_model_of_noise_never_passes() -> None:
    """Labels that know nothing of the columns: the AUC is a coin's, and so is that of trees without a split."""
    coin = fit(MODEL, shuffled(EARLY, 1), shuffled(LATER, 2))
    assert any("above a coin's 0.5, got 0." in reason for reason in judged(coin, shuffled(UNSEEN, 3)))
    nothing = fit(msgspec.structs.replace(MODEL, parameters={"min_data_in_leaf": 100_000}), EARLY, LATER)
    assert nothing.trees == 0
    trees, auc = judged(nothing, UNSEEN)
    assert "got 0" in trees and "got 0.500 (0.500 to 0.500)" in auc


def _bad() -> Iterator[tuple[tuple[float, float, float], float, float, str]]:
    nan = float("nan")
    yield (nan, nan, nan), 0.5, 0.5, "got none: all labels of the test slice are alike"
    yield (0.4, 0.45, 0.49), 0.5, 0.5, "got 0.450 (0.400 to 0.490)"
    yield (0.6, 0.7, 0.8), 0.4, 0.5, "expected an MRR of at least 0.500, popularity's, got 0.400"
    yield (0.6, 0.7, 0.8), nan, nan, "popularity's, got nan"


@pytest.mark.parametrize(("auc", "ours", "theirs", "said"), list(_bad()))
def test_what_cannot_be_told_is_not_passed(
    auc: tuple[float, float, float], ours: float, theirs: float, said: str
) -> None:
    """Where there is no AUC or no MRR, where a coin is better, and where popularity is: one reason each, with the
    figures.
    """
    (reason,) = gates.failed(Gates(), 20, auc, {"model": {"mrr": ours}, "popularity": {"mrr": theirs}})
    assert said in reason
