"""A small shop with the decisions and outcomes that a test gives it, and the examples that are made of them."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml

from features.common.timestamps import to_microseconds
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from training.dataset.examples import Examples, examples_of

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
END = START + timedelta(days=40)
NOW = to_microseconds(END)
DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
Rows = list[dict[str, Any]]

FEATURES: dict[str, Any] = {
    "customer": {"attributes": {"tier": {"dtype": "category"}, "vip": {"dtype": "boolean"}}},
    "streams": {"visits": {"numbers": ["spent"], "categories": ["kind"]}},
    "offer": {"kind": {"dtype": "category"}, "price": {"dtype": "number"}},
    "context": {
        "channel": {"dtype": "category", "default": "web"},
        "hour": {"dtype": "number"},
        "wet": {"dtype": "boolean", "default": False},
        "offers_considered": {"dtype": "integer"},
    },
    "columns": {"visits": {"stream": "visits", "aggregate": "count", "windows": ["7d", "all"]}},
    "pairs": {
        "bought": {"stream": "visits", "aggregate": "count", "key": "kind", "match": "kind", "relative": ["share"]},
        "taken": {
            "stream": "outcomes",
            "aggregate": "count",
            "key": "offer_id",
            "match": "offer_id",
            "scope": "everyone",
        },
    },
}
OFFERS: Rows = [
    {"offer_id": "bread", "kind": "food", "price": 3.0, "valid_until": START + 5 * DAY},
    {"offer_id": "cake", "kind": "food", "price": 9.0, "valid_until": START - DAY},
    {"offer_id": "soap", "kind": "home", "price": 2.0, "valid_until": None},
]
BY_HAND = {"offer_id": "rope", "valid_until": (START + 3 * DAY).isoformat(), "attributes": {"kind": "home", "price": 7}}
SCHEMAS = {
    "decisions": {
        "decision_id": pa.string(),
        "customer_id": pa.string(),
        "offer_id": pa.string(),
        "channel": pa.string(),
        "wet": pa.bool_(),
    },
    "outcomes": {"decision_id": pa.string(), "customer_id": pa.string(), "offer_id": pa.string(), "type": pa.string()},
}


def business(folder: Path, decisions: Rows, outcomes: Rows, **model: Any) -> Workspace:
    """A small shop with these decisions and outcomes, imported and computed."""
    folder.mkdir()
    sources = {name: f"{name}.parquet" for name in ("customers", "offers", "decisions", "outcomes")}
    content: dict[str, Any] = {
        "workspace.yaml": {"name": "shop", "sources": sources | {"streams": {"visits": "visits.parquet"}}},
        "features.yaml": FEATURES,
        "offers.yaml": {"placements": {"home": {}}, "offers": [BY_HAND]},
        "model.yaml": {"name": "m", "label": {"outcome": "taken", "within": "2d"}, "cold_start_share": 0.0} | model,
    }
    for name, part in content.items():
        (folder / name).write_text(yaml.safe_dump(part))
    people = sorted({row["customer_id"] for row in decisions})
    tables: dict[str, Rows] = {
        "customers": [
            {"customer_id": one, "valid_from": START - 9 * DAY, "tier": f"t{at % 3}", "vip": None}
            for at, one in enumerate(people)
        ],
        "offers": OFFERS,
        "visits": [
            {"customer_id": one, "time": START - at * DAY, "spent": 1.0, "kind": "food"}
            for at, one in enumerate(people, 1)
        ],
        "decisions": [{"hour": None, "channel": None, "wet": None} | row for row in decisions],
        "outcomes": [{"decision_id": None, "type": "taken", "value": 1.0} | row for row in outcomes],
    }
    for name, rows in tables.items():
        kinds = SCHEMAS.get(name, {}) | {"time": pa.timestamp("us", "UTC")}
        names = dict.fromkeys(key for row in rows for key in row) or kinds
        arrays = {key: pa.array([row.get(key) for row in rows], kinds.get(key)) for key in names}
        pa.parquet.write_table(pa.table(arrays), folder / f"{name}.parquet")
    workspace = load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast's own, of the versions beneath it
        reports = steps.import_tables(workspace, NOW)
        assert not any(report.refused for report in reports), reports
        steps.compute_features(workspace, NOW)
    return workspace


def decision(number: str, customer: str, time: datetime, offers: str = "bread soap", **context: Any) -> Rows:
    return [
        {"decision_id": number, "customer_id": customer, "time": time, "offer_id": offer, **context}
        for offer in offers.split()
    ]


def outcome(customer: str, offer: str, time: datetime, **more: Any) -> dict[str, Any]:
    return {"customer_id": customer, "offer_id": offer, "time": time, **more}


def laid(workspace: Workspace, now: int = NOW, **more: Any) -> Examples:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return examples_of(workspace, now, **more)


def successes(examples: Examples) -> set[tuple[str, str]]:
    """(decision, offer) of the rows that succeeded."""
    return {
        (examples.ids[examples.decision[at]], examples.offer_ids[examples.offer[at]])
        for at in np.flatnonzero(examples.labels)
    }
