"""The best of many scores, against sorting them all."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.kernel import top_k

MASK = (1 << 64) - 1


def mixed(value: int) -> int:
    """The finalizer of splitmix64 in whole numbers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


@given(
    st.lists(st.sampled_from([-3.0, -1.5, 0.0, 0.25, 7.0, 7.5]) | st.floats(-9, 9), max_size=60),
    st.integers(1, 50),
    st.integers(0, 2**32 - 1),
)
def test_best_is_the_head_of_a_full_sort(scores: list[float], limit: int, seed: int) -> None:
    """The best are the head of all offers sorted by score and then by the drawn number."""
    draws = np.arange(100, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15 & 0xFFFFFFFF)
    chosen = np.arange(0, 2 * len(scores), 2, dtype=np.int32) % 100
    chosen = np.unique(chosen)[: len(scores)].astype(np.int32)
    given_scores = scores[: len(chosen)]
    order = sorted(range(len(chosen)), key=lambda at: (-given_scores[at], mixed(int(draws[chosen[at]]) ^ seed)))
    found = top_k.best(np.array(given_scores, np.float64), draws, chosen, seed, limit)
    assert found.tolist() == order[:limit]


def test_equal_scores_are_spread_over_the_offers() -> None:
    """Among equal scores every offer comes first for about as many customers."""
    draws = np.arange(10, dtype=np.uint64) << np.uint64(32)
    chosen, scores = np.arange(10, dtype=np.int32), np.zeros(10)
    firsts = np.bincount(
        [top_k.best(scores, draws, chosen, seed * 2654435761 % 2**32, 1)[0] for seed in range(5_000)], minlength=10
    )
    assert firsts.min() > 400
    assert firsts.max() < 600
