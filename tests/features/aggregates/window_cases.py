"""Random events of a few customers, a workspace that has every aggregate of them, and its offline rows."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import yaml

from features.aggregates import windows
from features.common.timestamps import to_microseconds
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.importing.import_files import import_all

START = datetime(2026, 3, 1, tzinfo=UTC)
NOW = START + timedelta(days=9)
DAY = timedelta(days=1)
GRID = timedelta(hours=6)
"""Events and moments lie on one grid, so that many are exactly at the edges of windows and at the moments themselves.
"""

WHERES: dict[str, dict[str, Any]] = {
    "any": {},
    "card": {"kind": "card"},
    "two": {"kind": ["card", "cash"]},
    "big": {"amount": {"minimum": 2.5}},
    "small": {"amount": {"below": 2.5}},
    "both": {"kind": ["card"], "amount": {"minimum": -1, "below": 7.25}},
}
SCALARS = [(a, None) for a in ("count", "days_since", "share")]
SCALARS += [(a, "amount") for a in ("sum", "mean", "min", "max", "last", "share")] + [
    ("last", "kind"),
    ("distinct", "kind"),
]
MEASURES = [("count", None), ("days_since", None), ("sum", "amount"), ("min", "amount"), ("max", "amount")]
WINDOWS = ["6h", "3d", "all"]
DAYS = ["1d", "3d", "all"]
Event = dict[str, Any]


def features(wheres: tuple[str, ...] = tuple(WHERES)) -> dict[str, Any]:
    """Every aggregate with these filters; groups and families beside them."""
    columns: dict[str, Any] = {}
    for (aggregate, of), (name, where) in itertools.product(SCALARS, _chosen(wheres)):
        if aggregate == "share" and not where:
            continue
        column = {"stream": "moves", "aggregate": aggregate, "windows": WINDOWS, "where": where} | (
            {"of": of} if of else {}
        )
        columns[f"{aggregate}_{of or 'events'}_{name}"] = column
        if aggregate != "days_since" and of != "kind" and name in ("any", "both"):
            columns[f"{aggregate}_{of or 'events'}_{name}_zero"] = column | {"missing": "zero"}
            columns[f"{aggregate}_{of or 'events'}_{name}_unknown"] = column | {"missing": "unknown"}
        if "kind" not in where and of != "kind":
            columns[f"{aggregate}_{of or 'events'}_{name}_of"] = column | {
                "group": {"by": "kind", "values": ["card", "wire"]}
            }
    pairs: dict[str, Any] = {}
    for (aggregate, of), (name, where) in itertools.product(MEASURES, _chosen(wheres)):
        for scope, spans in (("customer", WINDOWS), ("everyone", DAYS)):
            pair = {
                "stream": "moves",
                "aggregate": aggregate,
                "windows": spans,
                "where": where,
                "key": "shop",
                "match": "shop",
                "scope": scope,
            }
            pairs[f"{scope[:2]}_{aggregate}_{name}"] = pair | ({"of": of} if of else {})
    return {
        "streams": {"moves": {"numbers": ["amount"], "categories": ["kind", "shop"]}},
        "offer": {"shop": {"dtype": "category"}},
        "columns": columns,
        "pairs": pairs,
    }


def _chosen(wheres: tuple[str, ...]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, WHERES[name]) for name in wheres]


def events_of(seed: int) -> list[Event]:
    """Random events of six customers, with gaps, ties, negative amounts and amounts that have no exact binary form."""
    chance = random.Random(seed)
    amounts = [None, 0.0, 0.1, 0.2, 0.7, 2.5, 7.25, -1.0, -0.01, 1234567.89, 3.0]
    return [
        {
            "customer_id": f"c{chance.randrange(6)}",
            "time": START + chance.randrange(9 * 4) * GRID,
            "amount": chance.choice(amounts),
            "kind": chance.choice(["card", "cash", "wire", None]),
            "shop": chance.choice(["s1", "s2", "é", None]),
        }
        for _ in range(180)
    ]


def made(
    folder: Path,
    events: list[Event],
    moments: list[tuple[str, datetime]],
    wheres: tuple[str, ...] = tuple(WHERES),
    buckets: int = 1,
) -> Workspace:
    """A workspace with these events, imported and computed."""
    folder.mkdir()
    content: dict[str, Any] = {
        "workspace.yaml": {
            "name": "bank",
            "buckets": buckets,
            "sources": {"decisions": "d.parquet", "streams": {"moves": "m.parquet"}},
        },
        "features.yaml": features(wheres),
        "offers.yaml": {"placements": {"home": {}}, "offers": [{"offer_id": "o", "attributes": {"shop": "s1"}}]},
        "model.yaml": {"name": "m", "label": {"outcome": "yes"}},
    }
    for name, part in content.items():
        (folder / name).write_text(yaml.safe_dump(part))
    kinds = pa.schema(
        [
            ("customer_id", pa.string()),
            ("time", pa.timestamp("us", "UTC")),
            ("amount", pa.float64()),
            ("kind", pa.string()),
            ("shop", pa.string()),
        ]
    )
    pa.parquet.write_table(pa.Table.from_pylist(events, kinds), folder / "m.parquet")
    decisions = [
        {"decision_id": f"d{number}", "customer_id": customer, "time": moment, "offer_id": "o"}
        for number, (customer, moment) in enumerate(moments)
    ]
    pa.parquet.write_table(pa.Table.from_pylist(decisions), folder / "d.parquet")
    workspace = load(folder)
    reports = import_all(workspace, to_microseconds(NOW))
    assert all(not report.refused for report in reports)
    windows.compute(workspace, to_microseconds(NOW))
    return workspace


def offline(workspace: Workspace, view: str) -> pa.Table:
    table = pa.parquet.read_table(workspace.offline / view)
    return table.sort_by([(name, "ascending") for name in table.column_names[:2]])


def moments_of(seed: int) -> list[tuple[str, datetime]]:
    chance = random.Random(seed + 1)
    some = [
        (f"c{chance.randrange(7)}", START + chance.randrange(1, 9 * 4) * GRID) for _ in range(30)
    ]  # c6 has no events at all
    return sorted(set(some))
