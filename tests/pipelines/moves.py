"""A workspace with a stream of moves, events drawn for it, and what is stored of its customers."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import yaml

from features.columns.rows import Dictionary, OnlineRow
from features.common.timestamps import MICROSECONDS, to_microseconds
from features.contact_history.limits import ContactPolicy
from features.ledger.lmdb_ledger import LmdbLedger
from features.ledger.recent import Heard, RecentEvent
from features.online.engines import open_engine
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize.refresh import refresh, whole_second
from tests.features.folding import event_of, write_lake

START = to_microseconds(datetime(2026, 3, 1, tzinfo=UTC))
HOUR = 3_600 * MICROSECONDS
POLICY = ContactPolicy()
EVENTS, CUSTOMERS, ORDERS, CALL = 40_000, 1_000, 5, 500
"""CALL: events that are heard together; the ledger is called for 8 units at a time only where decisions wait for it."""
REFRESHES = 3
REFRESHED = 250

COLUMNS: dict[str, Any] = {
    "spend": {"aggregate": "sum", "of": "amount", "windows": ["all", "7d"]},
    "visits": {"aggregate": "count", "windows": ["all", "1d"], "where": {"amount": {"minimum": 2.5}}},
    "typical": {"aggregate": "mean", "of": "amount", "windows": ["all"]},
    "least": {"aggregate": "min", "of": "amount", "windows": ["all"], "missing": "zero"},
    "most": {"aggregate": "max", "of": "amount", "windows": ["all"]},
    "latest_kind": {"aggregate": "last", "of": "kind", "windows": ["all"]},
    "latest_amount": {"aggregate": "last", "of": "amount", "windows": ["all"], "where": {"kind": ["card", "cash"]}},
    "shops": {"aggregate": "distinct", "of": "shop", "windows": ["all"]},
    "quiet": {"aggregate": "days_since", "windows": ["all"]},
    "by_card": {"aggregate": "share", "windows": ["all"], "where": {"kind": "card"}},
    "part": {
        "aggregate": "share",
        "of": "amount",
        "windows": ["all"],
        "group": {"by": "kind", "values": ["card", "wire"]},
    },
}
PAIRS: dict[str, Any] = {
    "bought": {"aggregate": "count", "windows": ["all"], "relative": ["share"]},
    "paid": {"aggregate": "sum", "of": "amount", "windows": ["all"]},
    "dearest": {"aggregate": "max", "of": "amount", "windows": ["all"]},
    "since": {"aggregate": "days_since", "windows": ["all"]},
}


def made(folder: Path) -> Workspace:
    """A workspace with a stream, and an attribute of every other customer."""
    folder.mkdir(exist_ok=True)
    stream = {"stream": "moves"}
    content: dict[str, Any] = {
        "workspace.yaml": {"name": "bank"},
        "features.yaml": {
            "customer": {"attributes": {"age": {"dtype": "number"}}},
            "streams": {"moves": {"numbers": ["amount"], "categories": ["kind", "shop"]}},
            "offer": {"shop": {"dtype": "category"}},
            "columns": {name: stream | column for name, column in COLUMNS.items()},
            "pairs": {name: stream | pair | {"key": "shop", "match": "shop"} for name, pair in PAIRS.items()},
        },
        "offers.yaml": {
            "placements": {"home": {}},
            "offers": [{"offer_id": f"o{i}", "attributes": {"shop": f"s{i}"}} for i in range(5)],
        },
        "model.yaml": {"name": "m", "label": {"outcome": "click"}},
    }
    for name, part in content.items():
        (folder / name).write_text(yaml.safe_dump(part))
    workspace = load(folder)
    moment: Any = pa.timestamp("us", "UTC")
    kinds: Any = pa.schema(
        [("customer_id", pa.string()), ("valid_from", moment), ("age", pa.float64()), ("imported_at", moment)]
    )
    began = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {"customer_id": f"c{at}", "valid_from": began, "age": float(at % 80), "imported_at": began}
        for at in range(0, CUSTOMERS, 2)
    ]
    (workspace.lake / "customers").mkdir(parents=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, kinds), workspace.lake / "customers" / "all.parquet")
    return workspace


def drawn(chance: random.Random, count: int, customers: int) -> list[tuple[str, RecentEvent]]:
    """Events over ten days, many at the same moment, with missing fields and amounts that have no exact binary form."""
    amounts = [None, 0.1, 0.2, 0.7, 2.5, -0.01, 1234567.89, 3.0]
    return [
        (
            f"c{chance.randrange(customers)}",
            event_of(
                number,
                "moves",
                START + chance.randrange(240) * HOUR + chance.choice([0, 0, 1, 500_000]),
                0,
                amount=chance.choice(amounts),
                kind=chance.choice(["card", "cash", "wire", None]),
                shop=chance.choice([*(f"s{i}" for i in range(9)), "é", None]),
            ),
        )
        for number in range(count)
    ]


def of_all(row: dict[str, Any]) -> dict[str, Any]:
    """What is known for good: an event may have left any other window since it was stored."""
    return {name: value for name, value in row.items() if not name.endswith(("_7d", "_1d"))}


async def replayed(
    workspace: Workspace, ledger: LmdbLedger, events: list[tuple[str, RecentEvent]], chance: random.Random
) -> tuple[list[tuple[str, RecentEvent]], int]:
    """Hear events in their order, each received a millisecond after the one before, some twice; refresh some customers
    now and then.
    """
    received = START + 200 * HOUR  # so that some events happen after they are received, as by a fast clock
    stamped: list[tuple[str, RecentEvent]] = []
    stops = sorted(chance.sample(range(1, len(events)), REFRESHES))
    for begin in range(0, len(events), CALL):
        heard = []
        for customer, event in events[begin : begin + CALL]:
            received += 1_000
            stamped.append((customer, replace_received(event, received)))
            heard.append(Heard(customer, event=stamped[-1][1]))
        heard += chance.sample(heard, 20)
        chance.shuffle(heard)
        await ledger.hear(heard, POLICY, received / MICROSECONDS)
        if stops and begin + CALL > stops[0]:
            stops.pop(0)
            received = whole_second(received) + MICROSECONDS
            write_lake(
                workspace, "streams.moves", [customer for customer, _ in stamped], [event for _, event in stamped]
            )
            await refresh(
                workspace, ledger, chance.sample([f"c{at}" for at in range(CUSTOMERS)], REFRESHED), received, 0
            )
    return stamped, received


def replace_received(event: RecentEvent, received: int) -> RecentEvent:
    return RecentEvent(event.key, event.stream, event.time, received, event.fields)


def stored(workspace: Workspace, customers: list[str]) -> tuple[Dictionary, dict[str, OnlineRow]]:
    """What the online store holds of customers, and the words of these rows."""

    async def reading() -> tuple[Dictionary, dict[str, OnlineRow]]:
        engine = open_engine(workspace.online_url, workspace.online, workspace.views, 1_000.0, workspace.project)
        found = {customer: engine.read_now(customer) or await engine.read(customer) for customer in customers}
        engine.close()
        await asyncio.sleep(0)
        return engine.words, found

    return asyncio.run(reading())
