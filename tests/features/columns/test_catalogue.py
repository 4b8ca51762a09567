"""The catalogue: each offer once, not too many, and the words of each engine read rightly."""

from __future__ import annotations

import numpy as np
import pytest

from features.columns.catalogue import OFFERS_MAX, Catalogue, category_text
from features.columns.layout import Layout
from features.columns.rows import Dictionary
from features.common.types import Offer
from tests.features.columns.layout_cases import CATEGORIES, CONTRACT, EVERYONE, NOW, OWN, Known, _measures


def test_one_catalogue_serves_two_engines() -> None:
    """Word ids belong to their engine: a catalogue that has seen one engine's words reads another's rightly."""
    catalogue = Catalogue([Offer("o1", attributes={"shops": ["s1"]}), Offer("o2", attributes={"shops": ["s2"]})])
    at = [column.name for column in CONTRACT.of_kind("pair")].index("bought_all")
    for order in (["s1", "s2"], ["s2", "s1"]):
        words = Dictionary(order)
        layout = Layout(CONTRACT, OWN, EVERYONE, catalogue, CATEGORIES, words)
        count = _measures("moves.by_shop")
        row = Known({}, {"moves.by_shop": {"s1": [5.0] * count, "s2": [7.0] * count}}, {"moves": 0.0}).row(OWN, words)
        everyone = Known().row(EVERYONE, words)
        pairs = layout.pair_values(row, everyone, layout.offer_values(everyone, NOW), np.array([0, 1], np.int32), NOW)
        assert pairs[:, at].tolist() == [5.0, 7.0]


def test_a_category_is_the_same_text_everywhere() -> None:
    """Booleans and whole floats are written as an import writes them; nothing is no text."""
    assert [category_text(value) for value in (True, False, 3.0, 2.5, 7, "x", None)] == [
        "true",
        "false",
        "3",
        "2.5",
        "7",
        "x",
        "",
    ]


def test_a_catalogue_has_each_offer_once_and_not_too_many() -> None:
    """Two offers of one id, or more than fit, are refused."""
    with pytest.raises(ValueError, match="each offer id once"):
        Catalogue([Offer("o"), Offer("o")])
    with pytest.raises(ValueError, match=f"at most {OFFERS_MAX} offers"):
        Catalogue([Offer("o")] * (OFFERS_MAX + 1))
