"""Comparisons of two ways to decide are those of plain counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.simulation.what_if import Tried, compare

slates = st.lists(st.sampled_from("abcde"), max_size=3, unique=True).map(tuple)
tries = st.tuples(slates, st.floats(0, 100), st.dictionaries(st.sampled_from(["rule x", "limit y"]), st.integers(1, 9)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("mno"), tries, tries), max_size=12), st.integers(1, 4))
def test_comparison_is_that_of_plain_counts(drawn: list[Any], times: int) -> None:
    """Counts are those of loops; asking each customer the same several times multiplies figures and interval alike."""
    pairs = [(customer, *(Tried((("home", one[0]),), one[1], one[2]) for one in sides)) for customer, *sides in drawn]
    found = compare(pairs)
    assert found.changed == len(found.changes) == sum(before.slates != after.slates for _, before, after in pairs)
    for share in found.offers:
        assert share.before == sum(share.offer_id in before.shown for _, before, _ in pairs)
        assert share.after == sum(share.offer_id in after.shown for *_, after in pairs)
    for step in found.steps:
        assert step.offers_after == sum(after.left_out.get(step.step, 0) for *_, after in pairs)
        assert step.decisions_before == sum(step.step in before.left_out for _, before, _ in pairs)
    several = compare(pairs * times)
    assert several.worth.difference == pytest.approx(times * found.worth.difference, abs=1e-6)
    if len({customer for customer, *_ in pairs}) < 2:
        assert found.worth.low is several.worth.low is None
    else:
        assert found.worth.low is not None and several.worth.low is not None
        assert several.worth.low == pytest.approx(times * found.worth.low, abs=1e-6)
        assert found.worth.low <= found.worth.difference + 1e-9
