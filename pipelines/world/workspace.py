"""A simulated world as a workspace: the files and tables that any business has. What is true of it stays outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml
from numpy.typing import NDArray

from features.columns.catalogue import UNBOUNDED
from features.common.files import write_whole
from features.common.timestamps import rfc3339
from features.config.documents import BadWorkspace, Fault
from pipelines.world.history import Purchases, WorldHistory, draw_history, draw_purchases
from pipelines.world.outcomes import AT_ONCE
from pipelines.world.settings import (
    CATEGORIES,
    CHANNELS,
    NOW,
    PLACEMENT,
    SEGMENTS,
    SLATE_OFFERS,
    WINDOW_DAYS,
    Integers,
    WorldSettings,
)
from pipelines.world.world import World, hour_of, weekend

WORLD_FILE = "world.json"
"""The settings: of them the world is made again, with its truth, and the run that follows the history."""

CLICK, ACCEPTANCE, DISMISSAL = "click", "acceptance", "dismissal"
HISTORY_DECISION = "h{:07d}"

WORKSPACE: dict[str, Any] = {
    "name": "simulated-world",
    "currency": "EUR",
    "sources": {
        **{name: f"data/{name}.parquet" for name in ("customers", "offers", "decisions", "impressions", "outcomes")},
        "streams": {name: f"data/{name}.parquet" for name in ("purchases", "complaints")},
    },
    "demo": {"now": rfc3339(NOW)},
}

FEATURES: dict[str, Any] = {
    "customer": {
        "attributes": {
            "segment": {"dtype": "category"},
            "birth_year": {"dtype": "integer", "unit": "year"},
            "consents": {"dtype": "boolean", "model": False, "purposes": ["service"]},
        }
    },
    "consent": {"personalization": {"column": "consents", "unknown": "allowed"}},
    "streams": {
        "purchases": {"numbers": ["amount"], "categories": ["category"]},
        "complaints": {"categories": ["topic"]},
    },
    "offer": {"category": {"dtype": "category"}, "price": {"dtype": "number", "unit": "EUR"}},
    "context": {
        "channel": {"dtype": "category", "values": list(CHANNELS), "default": "web", "purposes": ["service"]},
        "hour": {"dtype": "number", "minimum": 0, "maximum": 24, "purposes": ["service"]},
        "weekend": {"dtype": "boolean", "purposes": ["service"]},
    },
    "columns": {
        "purchases": {"stream": "purchases", "aggregate": "count", "windows": ["30d", "all"]},
        "spend": {"stream": "purchases", "aggregate": "sum", "of": "amount", "windows": ["30d"], "unit": "EUR"},
        "amount": {"stream": "purchases", "aggregate": "mean", "of": "amount"},
        "last_complaint": {"stream": "complaints", "aggregate": "days_since"},
        "acceptances": {"stream": "outcomes", "aggregate": "count", "windows": ["90d"], "where": {"type": ACCEPTANCE}},
        "clicks": {"stream": "outcomes", "aggregate": "count", "windows": ["30d"], "where": {"type": CLICK}},
        "seen": {"stream": "impressions", "aggregate": "count", "windows": ["30d"]},
    },
    # No relative columns: the history knows the four offers that were shown, a decision considers all that are valid.
    "pairs": {
        "bought": {
            "stream": "purchases",
            "aggregate": "count",
            "windows": ["60d", "all"],
            "key": "category",
            "match": "category",
            "reason": "bought_category",
        },
        "taken": {
            "stream": "outcomes",
            "aggregate": "count",
            "windows": ["90d"],
            "where": {"type": ACCEPTANCE},
            "key": "offer_category",
            "match": "category",
        },
        "popular": {
            "stream": "outcomes",
            "aggregate": "count",
            "windows": ["all"],
            "where": {"type": ACCEPTANCE},
            "key": "offer_id",
            "match": "offer_id",
            "scope": "everyone",
            "model": False,
        },
    },
}

OFFERS: dict[str, Any] = {
    "group": "category",
    "category": "category",
    "placements": {PLACEMENT: {"limit": SLATE_OFFERS, "description": "Where all offers of the world are shown."}},
    "treatments": [{"payload": {"headline": "{name}", "price": "{price}"}}],
}

MODEL: dict[str, Any] = {
    "name": "simulated-world-acceptance",
    "label": {"outcome": ACCEPTANCE, "within": f"{WINDOW_DAYS}d"},
    "parameters": {"num_leaves": 15, "learning_rate": 0.05, "min_data_in_leaf": 60, "lambda_l2": 5},
    "rounds_max": 400,
    "patience_rounds": 40,
    "gates": {"better_than_popularity": False},  # a small world teaches little, and the report says how little
}

Cells = Any
"""A column of Arrow: its type parameter says nothing here."""

FILES = {
    "workspace.yaml": WORKSPACE,
    "features.yaml": FEATURES,
    "offers.yaml": OFFERS,
    "policies.yaml": {},
    "model.yaml": MODEL,
}


def write_workspace(world: World, folder: Path) -> None:
    """Write a complete workspace into a folder that is new or empty; the same settings write the same bytes.

    Raises:
        BadWorkspace: the folder has something in it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise BadWorkspace(
            [Fault(str(folder), "$", "a new or empty folder", "one with files in it", remedy="Name another folder.")]
        )
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        text = f"# Written by `opportune simulate-world`: a world whose truth is known, seed {world.settings.seed}.\n"
        (folder / name).write_text(text + (yaml.safe_dump(content, sort_keys=False) if content else ""))
    history = draw_history(world)
    tables = {
        "customers": _customers(world),
        "offers": _offers(world),
        "decisions": _decisions(world, history),
        "impressions": _impressions(world, history),
        "outcomes": _outcomes(world, history),
        "purchases": _purchases(world, draw_purchases(world).between(world.settings.begin, NOW)),
        "complaints": _complaints(world),
    }
    for name, table in tables.items():
        pa.parquet.write_table(table, data / f"{name}.parquet")
    # Last, so that a folder with it is whole.
    write_whole(folder / WORLD_FILE, msgspec.json.format(msgspec.json.encode(world.settings), indent=2) + b"\n")


def read_settings(folder: Path) -> WorldSettings | None:
    """Return the settings of the world in a folder; None where the folder is new or empty.

    Raises:
        BadWorkspace: it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    file = folder / WORLD_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=WorldSettings)
    except (OSError, msgspec.MsgspecError) as error:
        remedy = "Name another folder: this one is not a world that was written whole."
        raise BadWorkspace(
            [Fault(str(file), "$", "the settings of a simulated world", str(error), remedy=remedy)]
        ) from error


def _times(moments: Integers) -> Cells:
    return pa.array(moments, pa.timestamp("us", "UTC"))


def _ids(texts: list[str], which: NDArray[np.integer]) -> Cells:
    return pa.array(np.array(texts, object)[which], pa.string())


def _bounded(moments: Integers) -> Cells:
    return pa.array(moments, pa.timestamp("us", "UTC"), mask=np.abs(moments) == UNBOUNDED)


def _customers(world: World) -> pa.Table:
    people = world.customers
    there = np.flatnonzero(~people.new & ~people.bot)
    return pa.table(
        {
            "customer_id": _ids(people.ids, there),
            "valid_from": _times(people.joined[there]),
            "segment": _ids(list(SEGMENTS), people.segment_seen[there]),
            "birth_year": pa.array(people.birth_year[there]),
            "consents": pa.array(people.consents[there]),
        }
    )


def _offers(world: World) -> pa.Table:
    offers = world.offers
    names = [f"{CATEGORIES[category]} {at}" for at, category in enumerate(offers.category)]
    return pa.table(
        {
            "offer_id": pa.array(offers.ids),
            "name": pa.array(names),
            "valid_from": _bounded(offers.begins),
            "valid_until": _bounded(offers.ends),
            "value": pa.array(offers.value),
            "category": _ids(list(CATEGORIES), offers.category),
            "price": pa.array(offers.price),
        }
    )


def _shown(world: World, history: WorldHistory, rows: Integers, ranks: Integers) -> dict[str, Cells]:
    """Return whose decisions, and which offers, of some of what was shown."""
    return {
        "decision_id": pa.array([HISTORY_DECISION.format(row) for row in rows]),
        "customer_id": _ids(world.customers.ids, history.visits.who[rows]),
        "offer_id": _ids(world.offers.ids, history.slates[rows, ranks]),
    }


def _decisions(world: World, history: WorldHistory) -> pa.Table:
    visits = history.visits
    rows, ranks = (part.ravel() for part in np.indices(history.slates.shape))
    at = visits.at[rows]
    return pa.table(
        _shown(world, history, rows, ranks)
        | {
            "time": _times(at),
            "placement": pa.array([PLACEMENT] * len(rows)),
            "action_probability": pa.array(SLATE_OFFERS / history.eligible[rows]),
            "channel": _ids(list(CHANNELS), visits.channel[rows]),
            "hour": pa.array(hour_of(at)),
            "weekend": pa.array(weekend(at)),
        }
    )


def _impressions(world: World, history: WorldHistory) -> pa.Table:
    rows, ranks = np.nonzero(history.outcomes.seen)
    visits = history.visits
    keep = visits.at[rows] + AT_ONCE < NOW
    rows, ranks = rows[keep], ranks[keep]
    return pa.table(
        _shown(world, history, rows, ranks)
        | {
            "time": _times(visits.at[rows] + AT_ONCE),
            "placement": pa.array([PLACEMENT] * len(rows)),
            "channel": _ids(list(CHANNELS), visits.channel[rows]),
        }
    )


def _outcomes(world: World, history: WorldHistory) -> pa.Table:
    """Return what had happened by the end of history; acceptances that are still to come are missing, as in life."""
    found, tables = history.outcomes, []
    for kind, happened, delay in (
        (CLICK, found.clicked, np.full(found.delay.shape, 2 * AT_ONCE)),
        (ACCEPTANCE, found.accepted, found.delay),
        (DISMISSAL, found.dismissed, np.full(found.delay.shape, 2 * AT_ONCE)),
    ):
        at = history.visits.at[:, None] + delay
        rows, ranks = np.nonzero(happened & (at < NOW))
        value = world.offers.value[history.slates[rows, ranks]]
        given = pa.array(value, mask=np.full(len(rows), kind != ACCEPTANCE))
        part = _shown(world, history, rows, ranks)
        tables.append(
            pa.table(part | {"type": pa.array([kind] * len(rows)), "time": _times(at[rows, ranks]), "value": given})
        )
    return pa.concat_tables(tables)


def _purchases(world: World, bought: Purchases) -> pa.Table:
    return pa.table(
        {
            "customer_id": _ids(world.customers.ids, bought.who),
            "time": _times(bought.at),
            "amount": pa.array(bought.amount),
            "category": _ids(list(CATEGORIES), bought.category),
        }
    )


def _complaints(world: World) -> pa.Table:
    people = world.customers
    who = np.flatnonzero(people.complaint < NOW)
    topics = pa.array(["service"] * len(who), pa.string())
    return pa.table({"customer_id": _ids(people.ids, who), "time": _times(people.complaint[who]), "topic": topics})
