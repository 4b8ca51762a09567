"""Drawn columns, pairs and events of a small bank, for tests of the fold."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from features.aggregate_kinds.kinds import AGGREGATES, DECLARED, PAIRED
from features.common.timestamps import MICROSECONDS, to_microseconds
from features.ledger.recent import RecentEvent
from features.validation.load import load
from features.workspace.workspace import Workspace
from tests.features.folding import event_of

START = to_microseconds(datetime(2026, 3, 1, tzinfo=UTC))
HOUR = 3_600 * MICROSECONDS
GRID = 6 * HOUR
"""Events, moments and windows lie on one grid, so that many are exactly at the edges."""

WHERES: list[dict[str, Any]] = [
    {},
    {"kind": "card"},
    {"kind": ["card", "cash"]},
    {"amount": {"minimum": 2.5}},
    {"amount": {"below": 2.5}},
    {"kind": ["card"], "amount": {"minimum": -1.0, "below": 7.25}},
]
FIELDS: dict[str, list[str | None]] = {
    "none": [None],
    "number": ["amount"],
    "number or none": [None, "amount"],
    "category": ["kind", "shop"],
    "any": ["kind", "amount"],
}
SCALARS = [(name, of) for name in DECLARED for of in FIELDS[AGGREGATES[name].fields]]
MEASURES = [(name, of) for name in PAIRED for of in FIELDS[AGGREGATES[name].fields]]
SPANS = ["6h", "1d", "3d", "all"]
AMOUNTS = [None, 0.0, 0.1, 0.2, 0.7, 2.5, 7.25, -1.0, -0.01, 1234567.89, 3.0, 0.0000005]


def made(folder: Path, features: dict[str, Any]) -> Workspace:
    content: dict[str, Any] = {
        "workspace.yaml": {"name": "bank"},
        "features.yaml": {"streams": {"moves": {"numbers": ["amount"], "categories": ["kind", "shop"]}}, **features},
        "offers.yaml": {"placements": {"home": {}}, "offers": [{"offer_id": "o"}]},
        "model.yaml": {"name": "m", "label": {"outcome": "click"}},
    }
    for name, part in content.items():
        (folder / name).write_text(yaml.safe_dump(part))
    return load(folder)


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Any]:
    aggregate, of = draw(st.sampled_from(SCALARS))
    column: dict[str, Any] = {
        "stream": "moves",
        "aggregate": aggregate,
        "windows": draw(st.lists(st.sampled_from(SPANS), min_size=1, unique=True)),
    }
    column["where"] = draw(st.sampled_from(WHERES))
    if aggregate == "share" or ("kind" not in column["where"] and draw(st.booleans())):
        column["where"] = {key: value for key, value in column["where"].items() if key != "kind"}
        column["group"] = {"by": "kind", "values": ["card", "wire"]}
    if aggregate != "days_since" and (aggregate, of) != ("last", "kind"):
        column["missing"] = draw(st.sampled_from([None, "zero", "unknown"]))
    return column | ({"of": of} if of else {})


@st.composite
def pairs(draw: st.DrawFn) -> dict[str, Any]:
    aggregate, of = draw(st.sampled_from(MEASURES))
    spans = draw(st.lists(st.sampled_from(SPANS), min_size=1, unique=True))
    pair = {
        "stream": "moves",
        "aggregate": aggregate,
        "windows": spans,
        "where": draw(st.sampled_from(WHERES)),
        "match": "shop",
    }
    return pair | {"key": draw(st.sampled_from(["shop", "kind"]))} | ({"of": of} if of else {})


features = st.builds(
    lambda columns, pairs: {
        "streams": {"moves": {"numbers": ["amount"], "categories": ["kind", "shop"]}},
        "offer": {"shop": {"dtype": "category"}},
        "columns": {f"c{at}": column for at, column in enumerate(columns)},
        "pairs": {f"p{at}": pair for at, pair in enumerate(pairs)},
    },
    st.lists(columns(), min_size=1, max_size=8),
    st.lists(pairs(), max_size=5),
)
happened = st.lists(
    st.tuples(
        st.integers(0, 24),
        st.integers(0, 24 * 6),
        st.sampled_from(AMOUNTS),
        st.sampled_from(["card", "cash", "wire", None]),
        st.sampled_from(["s1", "s2", "é", "", None]),
    ),
    max_size=25,
)


def events_of(drawn: list[tuple[int, int, float | None, str | None, str | None]]) -> list[RecentEvent]:
    """Events on the grid, received in the order of their hours, each at a moment of its own."""
    received = sorted(hour for _, hour, *_ in drawn)
    return [
        event_of(at, "moves", START + time * GRID, START + hour * HOUR + at, amount=amount, kind=kind, shop=shop)
        for at, ((time, _, amount, kind, shop), hour) in enumerate(zip(drawn, received, strict=True))
    ]


def leaves(events: list[RecentEvent], base: int, now: int, span: int | None) -> bool:
    """Whether an event that the base holds has left a window since, and the window does not lie wholly after the
    base.
    """
    if span is None or now - span >= base:
        return False
    return any(e.contained(base) and base - span <= e.time < now - span for e in events)
