"""The test of a split is Pearson's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.statistics.sample_ratio import mismatch


@given(st.lists(st.integers(1, 10_000), min_size=2, max_size=6))
def test_mismatch_is_pearsons(counts: list[int]) -> None:
    """Chi-square and P are scipy's; an arm that expects nobody may have nobody."""
    found, oracle = mismatch(counts, np.ones(len(counts))), stats.chisquare(counts)
    assert (float(found.chi_square), float(found.p)) == pytest.approx((oracle.statistic, oracle.pvalue))
    with_closed = mismatch([*counts, 0], [*np.ones(len(counts)), 0])
    assert float(with_closed.p) == pytest.approx(oracle.pvalue)
    assert float(mismatch([*counts, 1], [*np.ones(len(counts)), 0]).p) == 0
