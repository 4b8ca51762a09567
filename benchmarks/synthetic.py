"""Synthetic workspaces: ordinary files of an ordinary business, of the sizes that the bars are about.

`plain` has 35 customer columns (20 attributes, 15 windows over visits) and 5 offer columns. `pairs` has the same and a
stream's topics beside them, which are matched with the offers' topics. Numbers are drawn once from a fixed seed; the
true log odds use all of them, so that every tree of the forest finds 31 leaves worth having.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml

from features.common.types import Offer

CUSTOMERS = 10_000
ATTRIBUTES, MEASURES, AGGREGATES = 20, 5, ("sum", "mean", "max")
CUSTOMER_COLUMNS = ATTRIBUTES + MEASURES * len(AGGREGATES)
OFFER_COLUMNS = 5
TREES, LEAVES = 200, 31
TRAINED_OFFERS, OFFERS_MAX = 200, 10_000
DECISION_OFFERS, VISITS = 6, 4
DAYS = 60
TOPICS = 40
MISSING = 0.05
PLACEMENT = "home"
SEED = 3

Floats = np.ndarray[Any, np.dtype[np.float64]]


def customer_ids() -> list[str]:
    return [f"c{number}" for number in range(CUSTOMERS)]


def documents(variant: str) -> dict[str, Any]:
    """The five files of a workspace."""
    features: dict[str, Any] = {
        "customer": {"attributes": {f"fact_{n:02d}": {"dtype": "number"} for n in range(ATTRIBUTES)}},
        "streams": {"visits": {"numbers": [f"measure_{n}" for n in range(MEASURES)]}},
        "offer": {f"fact_{n}": {"dtype": "number"} for n in range(OFFER_COLUMNS)},
        "columns": {
            f"{aggregate}_{n}": {"stream": "visits", "aggregate": aggregate, "of": f"measure_{n}"}
            for aggregate in AGGREGATES
            for n in range(MEASURES)
        },
    }
    if variant == "pairs":
        features["streams"]["visits"]["categories"] = ["topic"]
        features["offer"]["topics"] = {"dtype": "texts"}
        matched = {"stream": "visits", "key": "topic", "match": "topics"}
        features["pairs"] = {
            "topic_visits": matched | {"aggregate": "count", "windows": ["30d", "all"], "relative": ["share", "rank"]},
            "topic_measure": matched | {"aggregate": "sum", "of": "measure_0", "reason": "looked_at_this"},
            "topic_popular": matched | {"aggregate": "count", "scope": "everyone", "relative": ["rank"]},
        }
    return {
        "workspace.yaml": {
            "name": f"bench-{variant}",
            "sources": {name: f"data/{name}.parquet" for name in ("customers", "offers", "decisions", "outcomes")}
            | {"streams": {"visits": "data/visits.parquet"}},
        },
        "features.yaml": features,
        "offers.yaml": {"placements": {PLACEMENT: {"limit": 3}}, "treatments": [{"payload": {"headline": "{name}"}}]},
        "policies.yaml": {},
        # The last round must be the best one, or training would keep fewer than 200: a small step sees to it.
        "model.yaml": {
            "name": f"bench-{variant}",
            "label": {"outcome": "accepted", "within": "1d"},
            "parameters": {"num_leaves": LEAVES, "learning_rate": 0.02, "min_data_in_leaf": 20},
            "rounds_max": TREES,
            "patience_rounds": TREES,
            "cold_start_share": 0.02,
            "gates": {"better_than_popularity": False},
        },
    }


def offers_of(variant: str, count: int) -> list[Offer]:
    """The first so many offers of the business; a larger catalogue begins with the smaller one."""
    facts, topics = _offer_facts()
    offers = []
    for number in range(count):
        attributes: dict[str, Any] = {f"fact_{n}": float(facts[number, n]) for n in range(OFFER_COLUMNS)}
        if variant == "pairs":
            attributes["topics"] = [f"topic-{topic}" for topic in topics[number]]
        offers.append(Offer(offer_id=f"offer-{number:05d}", name=f"Offer {number}", value=1.0, attributes=attributes))
    return offers


def _offer_facts() -> tuple[Floats, np.ndarray[Any, np.dtype[np.int64]]]:
    random = np.random.default_rng(SEED)
    return random.normal(size=(OFFERS_MAX, OFFER_COLUMNS)), random.integers(0, TOPICS, (OFFERS_MAX, 2))


def write(folder: Path, variant: str) -> None:
    """Write a workspace's files and tables."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, content in documents(variant).items():
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    random = np.random.default_rng(SEED + 1)
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    facts = random.normal(size=(CUSTOMERS, ATTRIBUTES))
    facts[random.random(facts.shape) < MISSING] = np.nan
    ids = customer_ids()
    columns = {f"fact_{n:02d}": pa.array(facts[:, n], from_pandas=True) for n in range(ATTRIBUTES)}
    _table(
        folder, "customers", {"customer_id": ids, "valid_from": [end - timedelta(days=DAYS + 90)] * CUSTOMERS} | columns
    )
    offers = offers_of(variant, TRAINED_OFFERS)
    names = list(offers[0].attributes)
    of_offers = {"offer_id": [o.offer_id for o in offers], "name": [o.name for o in offers]}
    _table(folder, "offers", of_offers | {name: [o.attributes[name] for o in offers] for name in names})
    visits, measured, topics = _visits(random, end)
    _table(folder, "visits", visits)
    _decide(folder, random, end, facts, measured, topics)


def _visits(
    random: np.random.Generator, end: datetime
) -> tuple[dict[str, Any], Floats, np.ndarray[Any, np.dtype[np.int64]]]:
    """Visits before the first decision, so that windows are the same at every moment; their sums and topics by
    customer.
    """
    count = CUSTOMERS * VISITS
    measures = random.normal(size=(count, MEASURES))
    topics = random.integers(0, TOPICS, count)
    times = [end - timedelta(days=DAYS + 1, seconds=int(second)) for second in random.integers(1, 20 * 86_400, count)]
    table: dict[str, Any] = {"customer_id": np.repeat(customer_ids(), VISITS), "time": times}
    table |= {f"measure_{n}": measures[:, n] for n in range(MEASURES)} | {
        "topic": [f"topic-{topic}" for topic in topics]
    }
    return table, measures.reshape(CUSTOMERS, VISITS, MEASURES).sum(axis=1), topics.reshape(CUSTOMERS, VISITS)


def _decide(
    folder: Path,
    random: np.random.Generator,
    end: datetime,
    facts: Floats,
    measured: Floats,
    topics: np.ndarray[Any, np.dtype[np.int64]],
) -> None:
    """One decision a customer, and what came of it: the odds depend on every column, alone and with the offer's."""
    offer_facts, offer_topics = _offer_facts()
    shown = np.array([random.choice(TRAINED_OFFERS, DECISION_OFFERS, replace=False) for _ in range(CUSTOMERS)])
    known = np.nan_to_num(facts)
    taste = (
        known @ random.normal(size=(ATTRIBUTES, OFFER_COLUMNS)) * 0.25
        + measured @ random.normal(size=(MEASURES, OFFER_COLUMNS)) * 0.15
    )
    odds = -1.6 + (known @ random.normal(size=ATTRIBUTES) * 0.2 + np.sin(2 * measured).sum(axis=1) * 0.2)[:, None]
    odds = odds + (taste[:, None, :] * offer_facts[shown]).sum(axis=2) + offer_facts[shown].sum(axis=2) * 0.2
    odds += 0.8 * (offer_topics[shown][:, :, :, None] == topics[:, None, None, :]).any(axis=(2, 3))
    taken = random.random(odds.shape) < 1 / (1 + np.exp(-odds))
    times = [end - timedelta(days=int(day), hours=2) for day in random.integers(2, DAYS, CUSTOMERS)]
    flat = np.repeat(np.arange(CUSTOMERS), DECISION_OFFERS)
    ids = np.array(customer_ids())
    table: dict[str, Any] = {
        "decision_id": [f"d-{number}" for number in flat],
        "customer_id": ids[flat],
        "time": [times[number] for number in flat],
        "placement": [PLACEMENT] * len(flat),
        "offer_id": [f"offer-{number:05d}" for number in shown.ravel()],
        "action_probability": np.full(len(flat), DECISION_OFFERS / TRAINED_OFFERS),
    }
    _table(folder, "decisions", table)
    rows = np.flatnonzero(taken.ravel())
    outcomes = {name: [table[name][row] for row in rows] for name in ("decision_id", "customer_id", "offer_id")}
    outcomes |= {"type": ["accepted"] * len(rows), "time": [times[flat[row]] + timedelta(hours=1) for row in rows]}
    _table(folder, "outcomes", outcomes)


def _table(folder: Path, name: str, columns: dict[str, Any]) -> None:
    pa.parquet.write_table(pa.table(columns), folder / "data" / f"{name}.parquet")
