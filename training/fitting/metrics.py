"""How good a model is: as a probability (log loss, Brier, calibration) and as an order of offers (MRR, NDCG, hit
rate).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score

from training.dataset.examples import Examples

Floats = NDArray[np.float64]

BINS = 10
CUTOFFS = (3, 10)
PROBABILITY_MIN = 1e-9
Z_95 = 1.959963984540054
"""Standard errors to each side of an interval that holds the truth in 95 of 100 cases."""


def ranks(examples: Examples, scores: Floats) -> NDArray[np.int64]:
    """Place of each row within its decision, from 1; the higher score first, ties in an order that a hash draws.

    The hash is of decision and offer, so that equal scores neither profit from the order of the table nor change by the
    run.
    """
    order = np.lexsort((examples.lots(), -scores, examples.decision))
    starts = np.flatnonzero(np.r_[True, np.diff(examples.decision[order]) > 0])
    place = np.empty(len(scores), np.int64)
    sizes = np.diff(np.r_[starts, len(order)])
    place[order] = np.arange(len(order)) - np.repeat(starts, sizes) + 1
    return place


def ranking(examples: Examples, scores: Floats) -> dict[str, float]:
    """MRR, NDCG@k and hit rate@k over the decisions that have a success.

    MRR is of the best placed success; NDCG has binary gains and the ideal order of as many successes.
    """
    place, hit = ranks(examples, scores), examples.labels > 0
    decisions = examples.decision[hit]
    places = place[hit]
    unique, inverse = np.unique(decisions, return_inverse=True)
    best = np.full(len(unique), np.iinfo(np.int64).max)
    np.minimum.at(best, inverse, places)
    successes = np.bincount(inverse)
    result = {"mrr": float(np.mean(1.0 / best)), "decisions_with_success": float(len(unique))}
    for k in CUTOFFS:
        gains = np.bincount(inverse, np.where(places <= k, 1.0 / np.log2(places + 1.0), 0.0))
        ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))[np.minimum(successes, k) - 1]
        result[f"ndcg@{k}"] = float(np.mean(gains / ideal))
        result[f"hit_rate@{k}"] = float(np.mean(best <= k))
    return result


def decision_auc(examples: Examples, probabilities: Floats) -> float:
    """AUC of "anything succeeds in this decision", scored by 1 - product(1 - p); NaN when all decisions agree."""
    misses = np.bincount(
        examples.decision, np.log1p(-np.clip(probabilities, 0, 1 - PROBABILITY_MIN)), len(examples.ids)
    )
    anything = np.bincount(examples.decision, examples.labels, len(examples.ids)) > 0
    return auc(anything, -misses)


def auc(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """Area under the ROC curve; NaN when all labels agree."""
    return float(roc_auc_score(labels, scores)) if 0 < np.count_nonzero(labels) < len(labels) else float("nan")


def auc_interval(labels: NDArray[Any], scores: NDArray[Any], groups: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return low end, AUC and high end of its 95 % interval; NaN when all labels agree.

    The standard error is that of Obuchowski (1997), which is DeLong's with whole groups of rows in place of rows: rows
    of one decision are alike. Each row's part is the share of rows of the other label that it is on the right side of,
    ties counting half.

    Args:
        groups: the decision of each row, from 0.
    """
    hit = labels > 0
    hits, misses = scores[hit], scores[~hit]
    if not len(hits) or not len(misses):
        return float("nan"), float("nan"), float("nan")

    def below(values: NDArray[Any], of: NDArray[Any]) -> Floats:
        ordered = np.sort(of)
        return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (
            2 * len(ordered)
        )

    part = np.empty(len(scores))
    part[hit] = below(hits, misses)
    middle = float(part[hit].mean())
    part[hit] = (part[hit] - middle) / len(hits)
    part[~hit] = (1 - below(misses, hits) - middle) / len(misses)
    of_group = np.bincount(groups, part)
    count = len(np.unique(groups))
    error = float(np.sqrt((of_group**2).sum() * count / max(count - 1, 1)))
    return middle - Z_95 * error, middle, middle + Z_95 * error


def calibration_bins(labels: Floats, probabilities: Floats) -> list[dict[str, float]]:
    """Bins of equally many rows by predicted probability: mean prediction, observed rate and its standard error,
    rows.
    """
    order = np.argsort(probabilities, kind="stable")
    bins = []
    for part in np.array_split(order, min(BINS, len(order))):
        rate = float(labels[part].mean())
        error = float(np.sqrt(rate * (1 - rate) / len(part)))
        bins.append(
            {
                "predicted": float(probabilities[part].mean()),
                "observed": rate,
                "standard_error": error,
                "rows": float(len(part)),
            }
        )
    return bins


def expected_calibration_error(bins: list[dict[str, float]]) -> float:
    """Mean distance between prediction and observation over the bins, weighted by rows."""
    rows = sum(part["rows"] for part in bins)
    return sum(abs(part["predicted"] - part["observed"]) * part["rows"] for part in bins) / rows


def probability(labels: Floats, probabilities: Floats) -> dict[str, float]:
    """AUC, log loss, Brier score and expected calibration error of predicted probabilities."""
    clipped = np.clip(probabilities, PROBABILITY_MIN, 1 - PROBABILITY_MIN)
    return {
        "auc": auc(labels, probabilities),
        "log_loss": float(log_loss(labels, clipped, labels=[0, 1])),
        "brier": float(np.mean((probabilities - labels) ** 2)),
        "ece": expected_calibration_error(calibration_bins(labels, probabilities)),
    }


def all_metrics(examples: Examples, scores: Floats, probabilities: Floats | None = None) -> dict[str, float]:
    """Ranking metrics of scores, and probability metrics where there are probabilities."""
    metrics = ranking(examples, scores)
    if probabilities is None:
        metrics["auc"] = auc(examples.labels, scores)
    else:
        metrics |= probability(examples.labels, probabilities)
        metrics["decision_auc"] = decision_auc(examples, probabilities)
    return metrics
