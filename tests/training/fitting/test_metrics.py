"""Metrics against loops of a few lines, and against scikit-learn where it means the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from tests.examples import made
from training.dataset.examples import Examples
from training.fitting import metrics

Case = tuple[Examples, np.ndarray[Any, np.dtype[np.float64]]]


@st.composite
def cases(draw: st.DrawFn, distinct: bool = False) -> Case:
    """Some decisions with successes and scores, many of them tied unless they must be distinct."""
    sizes = draw(st.lists(st.integers(1, 15), min_size=1, max_size=8))
    rows = sum(sizes)
    labels = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0]), min_size=rows, max_size=rows))
    labels[draw(st.integers(0, rows - 1))] = 1.0
    if distinct:
        scores = draw(st.permutations(range(rows)))
    else:
        scores = draw(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 1e300]), min_size=rows, max_size=rows))
    return made(sizes, labels), np.array(scores, float)


def places_by_loop(examples: Examples, scores: np.ndarray[Any, Any], decision: int) -> dict[int, int]:
    """Row -> place: best score first, ties by lot."""
    lots = examples.lots()
    rows = [row for row in range(len(examples)) if examples.decision[row] == decision]
    rows.sort(key=lambda row: (-scores[row], lots[row]))
    return {row: place for place, row in enumerate(rows, 1)}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(cases())
def test_ranks_and_ranking_are_what_a_loop_says(case: Case) -> None:
    """Places, MRR, NDCG and hit rate equal plain loops over decisions, ties and several successes included."""
    examples, scores = case
    reciprocal, hits, gains = [], {3: [], 10: []}, {3: [], 10: []}  # type: ignore[var-annotated]
    place = metrics.ranks(examples, scores)
    for decision in range(len(examples.ids)):
        places = places_by_loop(examples, scores, decision)
        assert {row: place[row] for row in places} == places
        won = [place for row, place in places.items() if examples.labels[row]]
        if not won:
            continue
        reciprocal.append(1 / min(won))
        for k in (3, 10):
            hits[k].append(min(won) <= k)
            ideal = sum(1 / math.log2(1 + place) for place in range(1, min(k, len(won)) + 1))
            gains[k].append(sum(1 / math.log2(1 + place) for place in won if place <= k) / ideal)
    found = metrics.ranking(examples, scores)
    assert found["decisions_with_success"] == len(reciprocal)
    assert found["mrr"] == pytest.approx(np.mean(reciprocal))
    for k in (3, 10):
        assert found[f"ndcg@{k}"] == pytest.approx(np.mean(gains[k]))
        assert found[f"hit_rate@{k}"] == pytest.approx(np.mean(hits[k]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases(distinct=True))
def test_ndcg_is_that_of_scikit_learn(case: Case) -> None:
    """Without ties and with more than one offer, NDCG@k of each decision with a success is `ndcg_score`."""
    examples, scores = case
    found: dict[int, list[float]] = {3: [], 10: []}
    for decision in range(len(examples.ids)):
        rows = examples.decision == decision
        if rows.sum() > 1 and examples.labels[rows].any():
            for k in found:
                found[k].append(float(ndcg_score([examples.labels[rows]], [scores[rows]], k=k)))
        elif examples.labels[rows].any():
            for k in found:
                found[k].append(1.0)  # scikit-learn refuses to rank a single offer
    for k, values in found.items():
        assert metrics.ranking(examples, scores)[f"ndcg@{k}"] == pytest.approx(np.mean(values))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(cases(), st.randoms(use_true_random=False))
def test_ties_are_broken_by_lot_and_not_by_the_order_of_rows(case: Case, chance: Any) -> None:
    """Rows of a decision in another order get the same places."""
    examples, scores = case
    order = []
    for decision in range(len(examples.ids)):
        rows = np.flatnonzero(examples.decision == decision).tolist()
        chance.shuffle(rows)
        order += rows
    shuffled = made(np.bincount(examples.decision).tolist(), examples.labels[order], offers=examples.offer[order])
    shuffled = Examples(**{**vars(shuffled), "offer_ids": examples.offer_ids})
    assert (metrics.ranks(shuffled, scores[order]) == metrics.ranks(examples, scores)[order]).all()
    assert metrics.ranking(shuffled, scores[order]) == pytest.approx(metrics.ranking(examples, scores))


def test_ties_favour_nobody() -> None:
    """Where all scores are equal, each of ten offers comes first about as often as the others."""
    examples = made([10] * 4_000, np.tile([1.0] + [0.0] * 9, 4_000))
    place = metrics.ranks(examples, np.zeros(40_000)).reshape(4_000, 10)
    firsts = (place == 1).sum(axis=0)
    assert firsts.sum() == 4_000
    assert abs(firsts - 400).max() < 5 * math.sqrt(400 * 0.9)
    expected = np.mean([1 / place for place in range(1, 11)])
    assert metrics.ranking(examples, np.zeros(40_000))["mrr"] == pytest.approx(expected, abs=0.03)


def test_lots_are_the_same_in_any_part_of_the_examples() -> None:
    """A row's lot depends on its decision and offer alone; another salt draws anew."""
    examples = made([3, 4, 5], np.ones(12))
    kept = np.array([False, True, True])
    assert (examples.where(kept).lots() == examples.lots()[3:]).all()
    assert len(set(examples.lots())) == 12
    assert not set(examples.lots()) & set(examples.lots("other/"))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases(), st.randoms(use_true_random=False))
def test_decision_auc_is_what_a_loop_says(case: Case, chance: Any) -> None:
    """It is the part of pairs of decisions, with and without success, that 1 - product(1 - p) orders rightly."""
    examples, _ = case
    probabilities = np.array([chance.choice([0.0, 0.1, 0.5, 0.999, 1.0]) for _ in range(len(examples))])
    scores = []
    for decision in range(len(examples.ids)):
        rows = examples.decision == decision
        miss = math.prod(1 - min(p, 1 - metrics.PROBABILITY_MIN) for p in probabilities[rows])
        scores.append((1 - miss if miss > 1e-6 else 1 - math.log(miss), bool(examples.labels[rows].any())))
    pairs = [(a, b) for a, hit in scores if hit for b, other in scores if not other]
    found = metrics.decision_auc(examples, probabilities)
    if not pairs:
        assert math.isnan(found)
    else:
        right = [0.5 if math.isclose(a, b, rel_tol=1e-12) else float(a > b) for a, b in pairs]
        assert found == pytest.approx(np.mean(right), abs=1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_calibration_error_is_what_a_loop_says(rows: int, seed: int) -> None:
    """Ten bins of equally many rows by prediction; the error is the mean distance of prediction and rate, by rows."""
    chance = np.random.default_rng(seed)
    labels, probabilities = chance.integers(0, 2, rows).astype(float), chance.random(rows)
    ordered = sorted(zip(probabilities, labels, strict=True))
    count = min(10, rows)
    expected, at = 0.0, 0
    bins = metrics.calibration_bins(labels, probabilities)
    assert len(bins) == count
    for number, found in enumerate(bins):
        size = rows // count + (number < rows % count)
        part, at = ordered[at : at + size], at + size
        predicted, observed = (sum(values) / size for values in zip(*part, strict=True))
        assert found["rows"] == size
        assert (found["predicted"], found["observed"]) == (pytest.approx(predicted), pytest.approx(observed))
        assert found["standard_error"] == pytest.approx(math.sqrt(max(observed * (1 - observed), 0.0) / size))
        expected += abs(predicted - observed) * size / rows
    assert metrics.expected_calibration_error(bins) == pytest.approx(expected)


def test_probabilities_of_zero_and_one_are_judged_and_do_not_crash() -> None:
    """A sure prediction that fails costs a finite log loss; where all labels agree AUC is missing, the rest is
    there.
    """
    sure = metrics.probability(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert sure["log_loss"] == pytest.approx(-math.log(metrics.PROBABILITY_MIN), rel=1e-6)
    assert (sure["brier"], sure["auc"], sure["ece"]) == (1.0, 0.0, 1.0)
    alike = metrics.probability(np.ones(3), np.array([0.9, 0.8, 1.0]))
    assert math.isnan(alike["auc"]) and alike["brier"] == pytest.approx(0.05 / 3)


def test_all_metrics_has_probability_metrics_only_for_probabilities() -> None:
    """A baseline that gives scores is judged as an order alone."""
    examples = made([2, 2], [1, 0, 0, 1])
    scores = np.array([3.0, 1.0, 2.0, 9.0])
    plain, full = metrics.all_metrics(examples, scores), metrics.all_metrics(examples, scores, scores / 10)
    assert set(full) - set(plain) == {"log_loss", "brier", "ece", "decision_auc"}
    assert plain["mrr"] == 1.0 and plain["auc"] == 1.0
    assert math.isnan(full["decision_auc"])  # both decisions have a success


def auc_by_loop(
    labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any], groups: np.ndarray[Any, Any]
) -> tuple[float, float]:
    """AUC and Obuchowski's standard error, pair by pair, as her paper has them."""
    pairs = [(i, j) for i in np.flatnonzero(labels > 0) for j in np.flatnonzero(labels == 0)]
    won = {(i, j): 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0 for i, j in pairs}
    m, n, middle = int((labels > 0).sum()), int((labels == 0).sum()), sum(won.values()) / len(pairs)
    ten = {i: sum(won[i, j] for j in np.flatnonzero(labels == 0)) / n for i in np.flatnonzero(labels > 0)}
    one = {j: sum(won[i, j] for i in np.flatnonzero(labels > 0)) / m for j in np.flatnonzero(labels == 0)}
    names, s10, s01, s11 = np.unique(groups), 0.0, 0.0, 0.0
    for name in names:
        rows = np.flatnonzero(groups == name)
        x = sum(ten[i] - middle for i in rows if labels[i] > 0)
        y = sum(one[j] - middle for j in rows if labels[j] == 0)
        s10, s01, s11 = s10 + x * x, s01 + y * y, s11 + x * y
    share = len(names) / max(len(names) - 1, 1)
    return middle, math.sqrt(max(share * (s10 / m**2 + s01 / n**2 + 2 * s11 / (m * n)), 0.0))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases())
def test_the_interval_of_the_auc_is_the_papers(case: Case) -> None:
    """Against a loop over pairs, with ties and groups of several rows; NaN where all labels agree."""
    examples, scores = case
    low, middle, high = metrics.auc_interval(examples.labels, scores, examples.decision)
    if examples.labels.all():
        assert math.isnan(low) and math.isnan(middle) and math.isnan(high)
        return
    wanted, error = auc_by_loop(examples.labels, scores, examples.decision)
    assert middle == pytest.approx(wanted) == pytest.approx(metrics.auc(examples.labels, scores))
    assert (high - low) / 2 == pytest.approx(metrics.Z_95 * error, abs=1e-12)


def test_a_coin_is_within_the_interval_as_often_as_it_says() -> None:
    """Of 600 test slices that no score knows anything of, whose decisions are alike in themselves, about 95 of 100 have
    0.5 within.
    """
    chance = np.random.default_rng(4)
    groups, within = np.repeat(np.arange(150), 4), 0
    for _ in range(600):
        odds = np.repeat(chance.normal(-1, 1, 150), 4)
        labels = (chance.random(600) < 1 / (1 + np.exp(-odds))).astype(float)
        low, _, high = metrics.auc_interval(
            labels, np.repeat(chance.normal(size=150), 4) + chance.normal(0, 0.3, 600), groups
        )
        within += low <= 0.5 <= high
    assert 0.92 <= within / 600 <= 0.975
    flat = metrics.auc_interval(np.array([0.0, 1, 1, 0]), np.zeros(4), np.array([0, 0, 1, 1]))
    assert flat == (0.5, 0.5, 0.5)
