"""The baselines: what any model must beat has to be as good as it can be."""

from __future__ import annotations

import numpy as np
import pytest

from features.columns.contract import Column, Contract
from tests.examples import contract_of, made
from training.dataset.examples import Examples
from training.fitting import baselines


def test_popularity_is_the_smoothed_rate_of_the_training_rows() -> None:
    """(successes + 1) / (shown + 101) for each offer; one that was never shown gets the prior, one shown once does not
    lead.
    """
    shown = [400, 1, 50, 0]
    hits = [60, 1, 0, 0]
    offers = np.repeat(np.arange(4), shown)
    labels = np.concatenate(
        [np.r_[np.ones(hit), np.zeros(count - hit)] for hit, count in zip(hits, shown, strict=True)]
    )
    train, test = made([451], labels, offers=offers), made([4], [0, 1, 0, 0], offers=[3, 2, 1, 0])
    train = Examples(**{**vars(train), "offer_ids": test.offer_ids})
    found = baselines.popularity(train, test, None)
    assert found == pytest.approx([(hits[o] + 1) / (shown[o] + 101) for o in (3, 2, 1, 0)])
    assert np.argmax(found) == 3


@pytest.mark.parametrize(("relative", "best"), [("", 2), ("rank", 1)])
def test_popularity_by_a_column_puts_the_unknown_last(relative: str, best: int) -> None:
    """More takers come first, a smaller rank comes first, and an offer of which nothing is known comes after all
    others.
    """
    contract = Contract((Column("popular", "offer", "number", "x", relative=relative),))  # type: ignore[arg-type]
    test = made([4], [0, 1, 0, 0], [np.nan, 1.0, 7.0, 2.0], contract=contract)
    scores = baselines.popularity(test, test, "popular")
    assert np.isfinite(scores).all()
    assert np.argmax(scores) == best and np.argmin(scores) == 0
    nothing = made([2], [0, 1], [np.nan, np.nan], contract=contract)
    assert len(set(baselines.popularity(nothing, nothing, "popular"))) == 1


def test_random_scores_know_nothing_and_never_change() -> None:
    """The same in every run and in any part of the rows; no relation to the label, nor to the lots that break ties."""
    examples = made([10] * 500, np.tile([1.0] + [0.0] * 9, 500))
    scores = baselines.random_scores(examples)
    assert len(set(scores)) == len(examples)
    kept = np.arange(500) % 3 == 0
    assert (baselines.random_scores(examples.where(kept)) == scores[kept[examples.decision]]).all()
    assert abs(np.corrcoef(scores, examples.labels)[0, 1]) < 0.05
    assert abs(np.corrcoef(scores, examples.lots().astype(float))[0, 1]) < 0.05


def learnable(rows: int, seed: int, base: float = -2.0) -> Examples:
    """A number on a long scale, a number with gaps that say something, a category; two rows a decision."""
    chance = np.random.default_rng(seed)
    amount = chance.lognormal(1, 2, rows) * chance.choice([-1, 1], rows)
    other = np.where(chance.random(rows) < 0.3, np.nan, chance.normal(size=rows))
    code = np.where(chance.random(rows) < 0.1, np.nan, chance.integers(0, 40, rows).astype(float))
    odds = base + 0.4 * np.sign(amount) * np.log1p(abs(amount)) + 1.5 * np.isnan(other) + 2.0 * (code == 7)
    labels = (chance.random(rows) < 1 / (1 + np.exp(-odds))).astype(float)
    return made([2] * (rows // 2), labels, np.column_stack([amount, other, code]), contract=contract_of(3, (2,)))


def test_logistic_regression_finds_what_it_can() -> None:
    """Signed logarithms, marks of missing values and categories: on such data it comes near the truth, on unseen
    rows.
    """
    model = baselines.Logistic(learnable(20_000, 1), seed=1)
    test = learnable(20_000, 2)
    found = model.probabilities(test)
    odds = np.log(found / (1 - found))
    amount, other, code = test.values.T
    truth = -2.0 + 0.4 * np.sign(amount) * np.log1p(abs(amount)) + 1.5 * np.isnan(other) + 2.0 * (code == 7)
    assert np.corrcoef(odds, truth)[0, 1] > 0.97
    assert found.mean() == pytest.approx(test.labels.mean(), rel=0.05)


def test_sampling_failures_keeps_the_probabilities_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one of twenty failures seen, the mean probability is still the rate, and the order is that of the whole
    fit.
    """
    train, test = learnable(60_000, 3, base=-4.5), learnable(20_000, 4, base=-4.5)
    whole = baselines.Logistic(train, seed=1).probabilities(test)
    failures = int((train.labels == 0).sum())
    monkeypatch.setattr(baselines, "NEGATIVES_MAX", failures // 20)
    sampled = baselines.Logistic(train, seed=1).probabilities(test)
    assert not np.array_equal(whole, sampled)
    assert sampled.mean() == pytest.approx(test.labels.mean(), rel=0.12)
    assert sampled.mean() == pytest.approx(whole.mean(), rel=0.12)
    assert np.corrcoef(np.log(sampled), np.log(whole))[0, 1] > 0.93
    again = baselines.Logistic(train, seed=1).probabilities(test)
    assert np.array_equal(again, sampled)
    assert not np.array_equal(baselines.Logistic(train, seed=2).probabilities(test), sampled)


def test_columns_that_say_nothing_do_no_harm() -> None:
    """A column that is missing everywhere, a constant one, an empty category: fitted without a warning."""
    chance = np.random.default_rng(1)
    values = np.column_stack([np.full(400, np.nan), np.full(400, 3.0), np.full(400, np.nan), chance.normal(size=400)])
    labels = (values[:, 3] > 1).astype(float)
    examples = made([4] * 100, labels, values, contract=contract_of(4, (2,)))
    found = baselines.Logistic(examples, seed=1).probabilities(examples)
    assert np.isfinite(found).all() and np.corrcoef(found, labels)[0, 1] > 0.5
