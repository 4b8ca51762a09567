"""What any model must beat: chance, popularity, and logistic regression on the same columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from training.dataset.examples import Examples

Floats = NDArray[np.float64]

NEGATIVES_MAX = 100_000
"""Logistic regression sees at most so many failures, drawn by the seed, and its intercept is corrected for it."""

CATEGORIES_ENCODED_MAX = 30


def random_scores(examples: Examples) -> Floats:
    """Return a score by hash: the order that knows nothing."""
    return examples.lots("random/").astype(np.float64)


def popularity(train: Examples, test: Examples, column: str | None) -> Floats:
    """Scores of the test rows by how often an offer was taken before: a column that counts it, or the rate in the
    training rows.

    Args:
        column: name of a column of the contract that counts takers, or ranks by them, unknown coming last; None takes
            each offer's success rate, with one success and one hundred failures added for all, so that an offer shown
            once does not lead.
    """
    if column is not None:
        at = test.contract.names.index(column)
        values = test.values[:, at] * (-1.0 if test.contract.columns[at].relative == "rank" else 1.0)
        return np.where(np.isnan(values), np.min(values, initial=0.0, where=~np.isnan(values)) - 1.0, values)
    size = len(train.offer_ids)
    hits, shown = np.bincount(train.offer, train.labels, size), np.bincount(train.offer, minlength=size)
    return ((hits + 1.0) / (shown + 101.0))[test.offer]


class Logistic:
    """Logistic regression on the same columns: signed logarithms, standardized, with marks for missing values and
    common categories.
    """

    def __init__(self, train: Examples, seed: int) -> None:
        self._columns = train.contract.columns
        rows, correction = _sampled(train, seed)
        values, labels = train.values[rows], train.labels[rows]
        self._codes = [
            _common(values[:, at]) if column.dtype == "category" else np.empty(0)
            for at, column in enumerate(self._columns)
        ]
        self._scaler = StandardScaler().fit(self._encoded(values))
        self._model = LogisticRegression(C=0.1, max_iter=300).fit(self._scaler.transform(self._encoded(values)), labels)
        self._model.intercept_ = self._model.intercept_ + correction

    def probabilities(self, examples: Examples) -> Floats:
        """Probability of each row, shape (rows,)."""
        return np.asarray(self._model.predict_proba(self._scaler.transform(self._encoded(examples.values)))[:, 1])

    def _encoded(self, values: Floats) -> NDArray[np.float32]:
        parts = []
        for at, codes in enumerate(self._codes):
            column = values[:, at]
            if self._columns[at].dtype == "category":
                parts.append((column[:, None] == codes[None, :]).astype(np.float32))
                continue
            missing = np.isnan(column)
            known = np.where(missing, 0.0, column)
            parts.append(
                np.stack([np.sign(known) * np.log1p(np.abs(known)), missing.astype(float)], axis=1).astype(np.float32)
            )
        return np.concatenate(parts, axis=1)


def _common(codes: Floats) -> Floats:
    found, counts = np.unique(codes[~np.isnan(codes)], return_counts=True)
    return np.asarray(found[np.argsort(-counts, kind="stable")[:CATEGORIES_ENCODED_MAX]])


def _sampled(train: Examples, seed: int) -> tuple[NDArray[np.int64], float]:
    """Rows of all successes and of a sample of failures, and what the sampling adds to the log odds."""
    hits, misses = np.flatnonzero(train.labels > 0), np.flatnonzero(train.labels == 0)
    if len(misses) <= NEGATIVES_MAX:
        return np.arange(len(train)), 0.0
    kept = np.random.default_rng(seed).choice(misses, NEGATIVES_MAX, replace=False)
    return np.sort(np.concatenate([hits, kept])), float(np.log(NEGATIVES_MAX / len(misses)))
