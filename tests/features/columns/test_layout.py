"""The layout of columns against a loop over plain Python values: the one function of training and serving must be
right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.columns.catalogue import OFFERS_MAX, Catalogue, category_text
from features.columns.contract import Column, contract_of
from features.columns.layout import Layout, Matched
from features.columns.rows import Dictionary, KeyedRow, OnlineRow, RowSchema
from features.columns.views import views_of
from features.common.types import Offer
from features.config.features_file import FeaturesFile

NOW = 1_780_000_000.0
DAY = 86_400.0
PAIR = {"stream": "moves", "key": "shop", "match": "shops"}
FEATURES = msgspec.convert(
    {
        "customer": {
            "attributes": {
                "city": {"dtype": "category"},
                "age": {"dtype": "integer"},
                "vip": {"dtype": "boolean"},
                "since": {"dtype": "time"},
                "secret": {"dtype": "number", "model": False},
            },
            "freshness": "2d",
        },
        "streams": {"moves": {"numbers": ["amount"], "categories": ["shop", "kind"], "freshness": "10d"}},
        "offer": {
            "shops": {"dtype": "texts"},
            "kind": {"dtype": "category"},
            "price": {"dtype": "number"},
            "months": {"dtype": "integer", "missing": "zero"},
            "new": {"dtype": "boolean"},
            "launched": {"dtype": "time"},
        },
        "context": {
            "channel": {"dtype": "category", "default": "web"},
            "hour": {"dtype": "number"},
            "calls": {"dtype": "integer", "missing": "zero"},
            "open_case": {"dtype": "boolean", "default": False},
        },
        "columns": {
            "spend": {"stream": "moves", "aggregate": "sum", "of": "amount", "windows": ["1d", "all"]},
            "kind": {"stream": "moves", "aggregate": "last", "of": "kind", "freshness": "1d"},
            "last": {"stream": "moves", "aggregate": "days_since"},
        },
        "pairs": {
            "bought": PAIR
            | {
                "aggregate": "count",
                "windows": ["1d", "all"],
                "relative": ["share", "rank", "ratio"],
                "reason": "bought_here",
            },
            "paid": PAIR
            | {"aggregate": "sum", "of": "amount", "missing": "unknown", "relative": ["share", "rank", "ratio"]},
            "least": PAIR | {"aggregate": "min", "of": "amount"},
            "most": PAIR | {"aggregate": "max", "of": "amount", "relative": ["rank"]},
            "ago": PAIR | {"aggregate": "days_since", "freshness": "5d"},
            "of_kind": PAIR | {"aggregate": "count", "key": "kind", "match": "kind", "model": False},
            "hidden": PAIR | {"aggregate": "count", "key": "kind", "match": "kind", "relative": ["share"]},
            "popular": PAIR
            | {"aggregate": "count", "scope": "everyone", "windows": ["7d", "all"], "relative": ["share", "ratio"]},
            "dearest": PAIR | {"aggregate": "max", "of": "amount", "scope": "everyone"},
            "fashion": PAIR | {"aggregate": "days_since", "scope": "everyone"},
        },
    },
    FeaturesFile,
)
VIEWS = views_of(FEATURES)
CONTRACT = contract_of(FEATURES, leave_out=("hidden_all",))
OWN, EVERYONE = RowSchema.of(VIEWS), RowSchema.of(VIEWS, "everyone")
SHOPS, KINDS, CITIES = ["s1", "s2", "s3", "s4"], ["k1", "k2", "k3"], ["Wien", "Graz", "Linz"]
CATEGORIES = {
    "city": ["Graz", "Wien"],
    "kind_all": ["k1", "k3"],
    "channel": ["app", "web", "3"],
    "offer_kind": ["k2", "k3"],
}
NUMBERS = [math.nan, 0.0, 1.0, 1.0, 2.5, -3.0, 0.1, 7e5]


@dataclass
class Known:
    """A row as plain values: what a store would hold of one customer, or of everyone."""

    scalars: dict[str, Any] = field(default_factory=dict)
    families: dict[str, dict[str, list[float]] | None] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)

    def row(self, plan: RowSchema, words: Dictionary) -> OnlineRow:
        """The same as an engine gives it."""
        numbers = np.full(len(plan.scalars), np.nan)
        for name, value in self.scalars.items():
            if value is not None:
                numbers[plan.scalars[name]] = words.id(value) if isinstance(value, str) else value
        families: list[KeyedRow | None] = [None] * len(plan.families)
        for name, found in self.families.items():
            if found is not None:
                keys = sorted(found)
                values = (
                    np.ascontiguousarray(np.array([found[key] for key in keys]).T)
                    if keys
                    else np.empty((_measures(name), 0))
                )
                families[plan.families[name]] = KeyedRow(np.array([words.id(key) for key in keys], np.uint32), values)
        times = np.array([NOW - self.ages[view.name] if view.name in self.ages else np.nan for view in plan.views])
        return OnlineRow(numbers, families, times)


def _measures(name: str) -> int:
    view, family = name.split(".")
    return next(len(f.measures) for v in VIEWS if v.name == view for f in v.families if f.name == family)


def reference(column: Column, own: Known, everyone: Known, context: dict[str, Any], offers: list[Offer]) -> list[float]:
    """One column of the offers considered, after the documentation."""
    view = column.source.split(".")[0]
    known = everyone if view.startswith("everyone") else own
    limit = math.inf if column.freshness_seconds is None else column.freshness_seconds
    fresh = known.ages.get(view, math.nan) <= limit
    if column.relative:
        base = next(c for c in (*CONTRACT.columns, *CONTRACT.auxiliary) if c.name == column.relative_to)
        return related(column.relative, reference(base, own, everyone, context, offers))
    if column.match:
        return [
            matched(column, known.families.get(".".join(column.source.split(".")[:2])) if fresh else None, offer)
            for offer in offers
        ]
    if column.kind == "customer":
        return [typed(column, known.scalars.get(column.source) if fresh else None)] * len(offers)
    if column.kind == "context":
        value = context.get(column.source)
        return [typed(column, column.default if value is None else value)] * len(offers)
    values = [typed(column, offer.attributes.get(column.source.removeprefix("offer."))) for offer in offers]
    return [0.0 if math.isnan(value) and column.empty == "zero" else value for value in values]


def typed(column: Column, value: Any) -> float:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    if column.dtype == "category":
        text = category_text(value)
        return float(CATEGORIES[column.name].index(text)) if text in CATEGORIES[column.name] else math.nan
    if isinstance(value, str):
        return math.nan
    return (NOW - value) / DAY if column.dtype == "age" else float(value)


def matched(column: Column, family: dict[str, list[float]] | None, offer: Offer) -> float:
    if family is None:
        return math.nan
    wanted = offer.attributes.get(column.match)
    keys = wanted if isinstance(wanted, list) else [] if wanted is None else [str(wanted)]
    view, name, measure = column.source.split(".")
    at = [m.name for v in VIEWS if v.name == view for f in v.families if f.name == name for m in f.measures].index(
        measure
    )
    values = [family[key][at] for key in sorted(family) if key in keys and not math.isnan(family[key][at])]
    if not values:
        return 0.0 if column.empty == "zero" else math.nan
    value = values[0]
    for other in values[1:]:
        value = (
            value + other
            if column.combine == "sum"
            else min(value, other)
            if column.combine == "min"
            else max(value, other)
        )
    return (NOW - value) / DAY if column.dtype == "age" else value


def related(relative: str, values: list[float]) -> list[float]:
    present = [value for value in values if not math.isnan(value)]
    if relative == "rank":
        return [math.nan if math.isnan(value) else 1.0 + sum(other > value for other in present) for value in values]
    whole = 0.0
    for value in present:
        whole = whole + value if relative == "share" else max(present)
    return [math.nan if math.isnan(value) else 0.0 if whole == 0 else value / whole for value in values]


def laid(
    layout: Layout, own: OnlineRow, everyone: OnlineRow, context: dict[str, Any], chosen: np.ndarray
) -> np.ndarray:
    """All columns of the offers considered, in model order, as training and serving put them together."""
    shared = layout.shared_values(own, context, NOW).copy()
    static = layout.offer_values(everyone, NOW)
    pairs = layout.pair_values(own, everyone, static, chosen, NOW)
    return np.hstack([np.tile(shared, (len(chosen), 1)), static[chosen], pairs])


ages = st.sampled_from([0.0, 3_600.0, DAY, 2 * DAY, 2 * DAY + 1, 5 * DAY, 10 * DAY, 11 * DAY])
numbers = st.sampled_from(NUMBERS)


def families(name: str, keys: list[str]) -> st.SearchStrategy[dict[str, list[float]] | None]:
    return st.none() | st.dictionaries(
        st.sampled_from([*keys, "elsewhere"]), st.lists(numbers, min_size=_measures(name), max_size=_measures(name))
    )


@st.composite
def knowns(draw: st.DrawFn, plan: RowSchema) -> Known:
    known = Known()
    kinds = {f"{view.name}.{scalar.name}": scalar.dtype for view in VIEWS for scalar in view.scalars}
    texts = {"customer.city": CITIES, "moves.kind_all": KINDS}
    for view in plan.views:
        if draw(st.booleans()) or draw(st.booleans()):
            known.ages[view.name] = draw(ages)
    for name in plan.scalars:
        choices = {
            "category": st.sampled_from(texts.get(name, [""])),
            "time": st.sampled_from([NOW, NOW - 3 * DAY, -1e8]),
            "boolean": st.sampled_from([0.0, 1.0]),
        }
        known.scalars[name] = (
            draw(st.none() | choices.get(kinds[name], numbers)) if name.split(".")[0] in known.ages else None
        )
    for name in plan.families:
        known.families[name] = (
            draw(families(name, KINDS if name.endswith("kind") else SHOPS))
            if name.split(".")[0] in known.ages
            else None
        )
    return known


@st.composite
def catalogues(draw: st.DrawFn) -> list[Offer]:
    made = []
    for number in range(draw(st.integers(1, 6))):
        attributes = {
            "shops": draw(st.none() | st.lists(st.sampled_from(SHOPS), max_size=4)),
            "kind": draw(st.none() | st.sampled_from(KINDS)),
            "price": draw(st.none() | st.sampled_from([0.0, 9.5])),
            "months": draw(st.none() | st.just(12.0)),
            "new": draw(st.none() | st.booleans()),
            "launched": draw(st.none() | st.just(NOW - 20 * DAY)),
        }
        made.append(
            Offer(
                f"o{number}",
                attributes={
                    name: value for name, value in attributes.items() if value is not None or draw(st.booleans())
                },
            )
        )
    return made


contexts = st.fixed_dictionaries(
    {},
    optional={
        "channel": st.sampled_from(["app", "web", "shop", None, 3.0, True]),
        "hour": st.sampled_from([None, 0, 18.5]),
        "calls": st.sampled_from([None, 4]),
        "open_case": st.sampled_from([None, True, False]),
    },
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


def test_a_laid_value_is_shown_as_its_text() -> None:
    """People read a category's text, a number, or nothing."""
    layout = Layout(CONTRACT, OWN, EVERYONE, Catalogue([Offer("o")]), CATEGORIES, Dictionary())
    city, age = CONTRACT.columns[0], CONTRACT.columns[1]
    assert [layout.shown(city, 1.0), layout.shown(city, math.nan), layout.shown(age, 41.0)] == ["Wien", None, 41.0]
