"""Exploration: stated probabilities are those of the formula, and those with which slates come out; draws are the same
again.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from features.columns.catalogue import Catalogue
from features.common.types import Offer
from features.config.policies import Exploration
from serving.hub.exploration import Explorer, Slate
from serving.hub.slate import Answer, PlacementRequest, Ties

UNITS = 200_000
ALARM = 1e-6
"""Of a chi-square test: units are hashed, not drawn, so that a run gives the same value always."""
DAY = 86_400_000_000


def drawn(
    explorer: Explorer,
    scores: list[float],
    unit: str,
    wanted: PlacementRequest,
    offers: list[Offer] | None = None,
    **ties: Any,
) -> Slate:
    """One slate of offers that may all be shown."""
    count = len(scores)
    catalogue = Catalogue(offers or [Offer(f"o{at}") for at in range(count)])
    bound = Ties(catalogue, ties.get("bundles", ()))
    chosen, live = np.arange(count, dtype=np.int32), np.ones(count, bool)
    return explorer.draw(
        np.array(scores), chosen, live, wanted, (1 << count) - 1, bound, Answer(), explorer.seed(unit, "home", 5 * DAY)
    )


def by_hand(scores: list[float], gamma: float, floor: float) -> list[float]:
    """The formula of the decision record, on one list."""
    best = max(range(len(scores)), key=lambda at: (scores[at], -at))
    clipped = [max(score, 0.0) for score in scores]
    gaps = [1 - score / clipped[best] if clipped[best] > 0 else 0.0 for score in clipped]
    found = [max(floor / len(scores), 1 / (len(scores) + gamma * gap) if gap else 1 / len(scores)) for gap in gaps]
    found[best] = 1 - (sum(found) - found[best])
    return found


@given(
    st.lists(st.floats(-10, 1e6), min_size=1, max_size=40),
    st.one_of(st.floats(1e-3, 1e9), st.just(float("inf"))),
    st.floats(0, 1),
)
def test_probabilities_are_those_of_inverse_gap_weighting(scores: list[float], gamma: float, floor: float) -> None:
    """Each is what the formula says; together they are 1, and none is below the floor's part."""
    found, best = Explorer("gap", gamma, floor).probabilities(np.array(scores), np.ones(len(scores), bool))
    assert found == pytest.approx(by_hand(scores, gamma, floor), abs=1e-12)
    assert found.sum() == pytest.approx(1) and found.min() >= floor / len(scores) - 1e-12
    assert scores[best] == max(scores) and found[best] == pytest.approx(found.max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("explorer", "scores"),
    [
        (Explorer("gap", 20.0, 0.05), [1.0, 0.9, 0.5, 0.5, 0.0, -3.0]),
        (Explorer("gap", floor=1.0, salt="random"), [5.0, 4.0, 3.0, 2.0, 1.0, 0.0]),
        (Explorer("weight"), [4.0, 3.0, 2.0, 1.0, 0.5, 0.0]),
    ],
    ids=["gap", "random", "weight"],
)
def test_slates_come_out_as_often_as_is_stated(explorer: Explorer, scores: list[float]) -> None:
    """Over 200,000 units, slates of two are as frequent as the product of what is stated with their offers."""
    seen: Counter[tuple[int, ...]] = Counter()
    stated: dict[tuple[int, ...], float] = {}
    catalogue = Catalogue([Offer(f"o{at}") for at in range(len(scores))])
    ties, given = Ties(catalogue, ()), np.array(scores)
    chosen, live, everything = (
        np.arange(len(scores), dtype=np.int32),
        np.ones(len(scores), bool),
        (1 << len(scores)) - 1,
    )
    for unit in range(UNITS):
        slate = explorer.draw(
            given, chosen, live, PlacementRequest(2), everything, ties, Answer(), explorer.seed(f"c{unit}", "home", 0)
        )
        seen[tuple(slate.offers)] += 1
        stated[tuple(slate.offers)] = float(np.prod(slate.probabilities))
    assert sum(stated.values()) == pytest.approx(1, abs=1e-9), (
        "some slate never came out, or what is stated is no distribution"
    )
    assert chisquare([seen[key] for key in stated], [UNITS * stated[key] for key in stated]).pvalue > ALARM


def test_diversity_and_exclusions_are_within_the_probabilities() -> None:
    """Where categories and exclusions bind, what is stated is still how often slates come out."""
    offers = [Offer("a", category="x"), Offer("b", category="x"), Offer("c", category="y"), Offer("d", excludes=("c",))]
    explorer, scores, rounds = Explorer("gap", 5.0, 0.1), [4.0, 3.0, 2.0, 1.0], 20_000
    seen: Counter[tuple[int, ...]] = Counter()
    stated: dict[tuple[int, ...], float] = {}
    for unit in range(rounds):
        slate = drawn(explorer, scores, f"c{unit}", PlacementRequest(2, per_category=1), offers)
        assert not {0, 1} <= set(slate.offers) and not {2, 3} <= set(slate.offers)
        seen[tuple(slate.offers)] += 1
        stated[tuple(slate.offers)] = float(np.prod(slate.probabilities))
    assert sum(stated.values()) == pytest.approx(1, abs=1e-9)
    assert chisquare([seen[key] for key in stated], [rounds * stated[key] for key in stated]).pvalue > ALARM


def test_a_bundle_is_drawn_whole_and_what_is_left_is_filled() -> None:
    """Who follows in a bundle, and what fills the rest, is certain given what stands before it."""
    offers = [Offer("a"), Offer("b"), Offer("c", category="x"), Offer("d", category="x")]
    for unit in range(200):
        slate = drawn(
            Explorer("gap", 1.0),
            [1.0, 1.0, 1.0, 1.0],
            f"c{unit}",
            PlacementRequest(4, per_category=1),
            offers,
            bundles=[("a", "b")],
        )
        assert len(slate.offers) == 3
        first = min(slate.offers.index(0), slate.offers.index(1))
        assert (
            set(slate.offers[first : first + 2]) == {0, 1}
            and slate.probabilities[first + 1] == 1 > slate.probabilities[0]
        )
    filled = drawn(
        Explorer("gap", 1.0),
        [1.0, 1.0, 1.0],
        "c1",
        PlacementRequest(3, per_category=1, fallback=(2,)),
        [Offer("a", category="x"), Offer("b", category="x"), Offer("c")],
    )
    assert len(filled.offers) == 2 and 2 in filled.offers


def test_a_unit_is_drawn_the_same_within_a_period_only() -> None:
    """A second of the same day gives the same draw; another day, placement or salt another; nobody is drawn moment by
    moment.
    """
    explorer = Explorer("gap", 1.0, period=DAY)
    assert explorer.seed("c1", "home", 0) == explorer.seed("c1", "home", DAY - 1) != explorer.seed("c1", "home", DAY)
    assert (
        explorer.seed("c1", "home", 0)
        != explorer.seed("c1", "bill", 0)
        != Explorer("gap", 1.0, salt="x").seed("c1", "bill", 0)
    )
    assert explorer.seed("", "home", 0) != explorer.seed("", "home", 1)


def test_policies_that_ask_for_nothing_draw_nothing() -> None:
    """Without gamma and floor nothing is drawn; either of them draws."""
    assert Explorer.of(Exploration()) is None
    floor, gamma = Explorer.of(Exploration(floor=0.1, period="1h")), Explorer.of(Exploration(gamma=10.0))
    assert floor is not None and floor.gamma == np.inf and floor.period == DAY / 24
    assert gamma is not None and gamma.floor == 0
