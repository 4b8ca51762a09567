"""The layout of columns against a loop over plain Python values: the one function of training and serving must be
right.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.columns.catalogue import Catalogue
from features.columns.contract import contract_of
from features.columns.layout import Layout, Matched
from features.columns.rows import Dictionary
from features.common.types import Offer
from features.config.features_file import FeaturesFile
from tests.features.columns.layout_cases import (
    CATEGORIES,
    CITIES,
    CONTRACT,
    DAY,
    EVERYONE,
    KINDS,
    NOW,
    OWN,
    PAIR,
    SHOPS,
    Known,
    catalogues,
    contexts,
    knowns,
    laid,
    reference,
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(own=knowns(OWN), everyone=knowns(EVERYONE), offers=catalogues(), context=contexts, data=st.data())
def test_every_column_is_what_the_reference_says(
    own: Known, everyone: Known, offers: list[Offer], context: dict[str, Any], data: st.DataObject
) -> None:
    """Any row, catalogue, context and choice of offers: each value is bit for bit that of the loop."""
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(offers) - 1)))), np.int32)
    words = Dictionary(data.draw(st.permutations([*SHOPS[:2], *CITIES[:1]])))
    catalogue = Catalogue(offers)
    layout = Layout(CONTRACT, OWN, EVERYONE, catalogue, CATEGORIES, words)
    stranger = Known().row(OWN, words)
    laid(layout, stranger, Known().row(EVERYONE, words), {}, chosen)  # before most words are known
    rows = own.row(OWN, words), everyone.row(EVERYONE, words)
    values = laid(layout, *rows, context, chosen)
    considered = [offers[at] for at in chosen]
    for at, column in enumerate(CONTRACT.columns):
        expected = reference(column, own, everyone, context, considered)
        np.testing.assert_array_equal(values[:, at], np.array(expected, float), err_msg=column.name)
    for column in CONTRACT.auxiliary:
        found = layout.matched(column.name, rows[1] if layout.is_everyone(column.name) else rows[0], NOW)[chosen]
        np.testing.assert_array_equal(
            found, np.array(reference(column, own, everyone, context, considered), float), err_msg=column.name
        )


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(own=knowns(OWN), everyone=knowns(EVERYONE), offers=catalogues(), data=st.data())
def test_pair_columns_are_the_same_of_what_was_matched_before(
    own: Known, everyone: Known, offers: list[Offer], data: st.DataObject
) -> None:
    """What conditions have matched for all offers gives, for those considered, bit for bit what the layout matches
    itself.
    """
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(offers) - 1)))), np.int32)
    words = Dictionary([*SHOPS, *KINDS, *CITIES])
    layout = Layout(CONTRACT, OWN, EVERYONE, Catalogue(offers), CATEGORIES, words)
    row, sums = own.row(OWN, words), everyone.row(EVERYONE, words)
    names = data.draw(st.permutations(sorted({*layout.personal, *layout._alone})))
    matched = np.empty((len(names), len(offers)))
    layout.matched_together(layout.groups_of(names), row, sums, NOW, matched)
    places = np.array([names.index(name) for name in layout.personal], np.int32)
    static = layout.offer_values(sums, NOW)
    found = layout.pair_values(row, sums, static, chosen, NOW, Matched(matched, places))
    np.testing.assert_array_equal(found, layout.pair_values(row, sums, static, chosen, NOW))


def test_columns_are_in_model_order() -> None:
    """Customer, context, offer, pair; in each kind as declared; auxiliary ones are those that rules and relatives
    need.
    """
    kinds = [column.kind for column in CONTRACT.columns]
    assert kinds == sorted(kinds, key=["customer", "context", "offer", "pair"].index)
    assert CONTRACT.names[:4] == ["city", "age", "vip", "since"]
    assert {"offer_price", "popular_7d", "dearest_all"} <= {column.name for column in CONTRACT.of_kind("offer")}
    assert {"fashion_all", "offer_launched", "popular_all_share", "hidden_all_share"} <= {
        column.name for column in CONTRACT.of_kind("pair")
    }
    assert [column.name for column in CONTRACT.auxiliary] == ["of_kind_all", "hidden_all"]
    assert "secret" not in CONTRACT.names
    assert [column.name for column in CONTRACT.columns if column.reason] == ["bought_all"]


def test_the_longest_window_gives_the_reason() -> None:
    """A reason goes with the longest window, wherever it stands in the list."""
    for listed, longest in ((["90d", "7d"], "90d"), (["4w", "30d", "12h"], "30d"), (["all", "1d"], "all")):
        features = msgspec.convert(
            {
                "streams": {"moves": {"categories": ["shop"]}},
                "offer": {"shops": {"dtype": "texts"}},
                "pairs": {"x": PAIR | {"aggregate": "count", "windows": listed, "reason": "r"}},
            },
            FeaturesFile,
        )
        assert [column.name for column in contract_of(features).columns if column.reason] == [f"x_{longest}"]


@pytest.mark.parametrize(("age", "known"), [(2 * DAY, True), (2 * DAY + 1, False)])
def test_a_value_lives_as_long_as_its_freshness_limit(age: float, known: bool) -> None:
    """At its limit a value still counts; a second later it is missing."""
    words = Dictionary()
    layout = Layout(CONTRACT, OWN, EVERYONE, Catalogue([Offer("o")]), CATEGORIES, words)
    row = Known({"customer.age": 40.0}, {}, {"customer": age}).row(OWN, words)
    assert bool(layout.shared_values(row, {}, NOW)[CONTRACT.names.index("age")] == 40.0) is known


def test_a_laid_value_is_shown_as_its_text() -> None:
    """People read a category's text, a number, or nothing."""
    layout = Layout(CONTRACT, OWN, EVERYONE, Catalogue([Offer("o")]), CATEGORIES, Dictionary())
    city, age = CONTRACT.columns[0], CONTRACT.columns[1]
    assert [layout.shown(city, 1.0), layout.shown(city, math.nan), layout.shown(age, 41.0)] == ["Wien", None, 41.0]
