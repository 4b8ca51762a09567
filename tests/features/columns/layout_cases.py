"""A loop over plain Python values that says what every column is, and drawn rows, catalogues and contexts for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st

from features.columns.catalogue import category_text
from features.columns.contract import Column, contract_of
from features.columns.layout import Layout
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
