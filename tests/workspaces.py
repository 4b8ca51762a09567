"""Small workspaces for tests: a telephone company with its customers, calls, payments, offers, decisions and outcomes.

`make_workspace` writes YAML, CSV and Parquet files with a signal to learn: who calls abroad a lot takes roaming offers,
who uses much data takes data offers, the app sells better than the shop, and cheap offers sell better than dear ones.
Every dtype, aggregate, scope and relative of `features.yaml` occurs at least once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import yaml

from features.common import clock
from tests.workspace_documents import CHANNELS, FEATURES, MODEL, OFFERS, POLICIES, TOPICS, WORKSPACE

DAYS = 200
DAY = timedelta(days=1)
COUNTRIES = ("at", "de", "it", "us")


def make_workspace(
    folder: Path,
    seed: int = 1,
    customers: int = 400,
    decisions: int = 6,
    offers: int = 10,
    days: int = DAYS,
    now: datetime | None = None,
    buckets: int = 1,
    settings: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
) -> Path:
    """Write a workspace into a folder, which is returned; the same arguments write the same files.

    Args:
        customers: how many; each one of twenty has no attributes, and each one of twenty no events.
        decisions: how many for each customer, over the `days` before `now`, each of 8 to 12 offers.
        offers: rows of the offers table; two more are in `offers.yaml`.
        now: end of the data; today's midnight when absent, so that the files change once a day.
        settings, model: keys of `workspace.yaml` and `model.yaml` to set beside the usual ones.
    """
    random = np.random.default_rng(seed)
    end = now or clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    files = {
        "workspace.yaml": WORKSPACE | {"buckets": buckets} | (settings or {}),
        "features.yaml": FEATURES,
        "offers.yaml": _by_hand(end, days),
        "policies.yaml": POLICIES,
        "model.yaml": MODEL | (model or {}),
    }
    for name, content in files.items():
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    table = _offers(random, end, offers, days)
    people = _people(random, customers)
    _write(folder / "data" / "customers.parquet", _customers(random, end, people, days))
    _write(folder / "data" / "offers.csv", table)
    _write(folder / "data" / "calls.parquet", _calls(random, end, people, days))
    _write(folder / "data" / "payments.csv", _payments(random, end, people, days))
    made, outcomes = _decisions(random, end, people, table, decisions, days)
    _write(folder / "data" / "decisions.parquet", made)
    _write(folder / "data" / "outcomes.parquet", outcomes)
    return folder


Rows = list[dict[str, Any]]


def _write(file: Path, rows: Rows) -> None:
    table = pa.Table.from_pylist(rows)
    if file.suffix == ".csv":
        with file.open("w") as handle:
            handle.write(",".join(table.column_names) + "\n")
            handle.writelines(",".join(map(_cell, row.values())) + "\n" for row in rows)
    else:
        pa.parquet.write_table(table, file)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "|".join(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _people(random: np.random.Generator, customers: int) -> Rows:
    """Customers with what drives them: one favourite topic, a taste for travel, silence of a few."""
    return [
        {
            "id": f"436{600_000 + number}",
            "topic": int(random.integers(len(TOPICS))),
            "abroad": float(random.beta(1, 3)),
            "silent": number % 20 == 7,
            "nameless": number % 20 == 13,
        }
        for number in range(customers)
    ]


def _customers(random: np.random.Generator, end: datetime, people: Rows, days: int) -> Rows:
    rows = []
    for number, person in enumerate(people):
        if person["nameless"]:
            continue
        row = {
            "msisdn": person["id"],
            "since": end - (days + 200) * DAY,
            "tariff": str(random.choice(["S", "M", "L"])),
            "monthly_fee": None if number % 11 == 0 else round(float(random.uniform(5, 60)), 2),
            "lines": None if number % 13 == 0 else int(random.integers(1, 5)),
            "business": bool(random.random() < 0.2),
            "contract_start": end - int(random.integers(300, 3000)) * DAY,
            "segment": "A" if person["abroad"] > 0.3 else "B",
        }
        rows.append(row)
        if number % 4 == 0:  # a change of tariff, half-way
            rows.append(row | {"since": end - (days // 2) * DAY, "tariff": "XL", "monthly_fee": 70.0})
    return rows


def _by_hand(end: datetime, days: int) -> dict[str, Any]:
    """The offers file, in which ages are the same on whatever day it is written, so that every day trains the same
    model.
    """
    first, *rest = OFFERS["offers"]
    launched = (end - (days // 2) * DAY).isoformat()
    return OFFERS | {"offers": [first | {"attributes": first["attributes"] | {"launched": launched}}, *rest]}


def _offers(random: np.random.Generator, end: datetime, offers: int, days: int) -> Rows:
    return [
        {
            "offer_id": f"offer-{number:02d}",
            "name": f"Offer {number}",
            "valid_from": None if number % 3 else end - (days + 30) * DAY,
            "valid_until": None if number % 4 else end + 60 * DAY,
            "value": 5 + number,
            "placements": ["home", "bill"] if number % 2 else [],
            "topic": TOPICS[number % len(TOPICS)],
            "countries": [COUNTRIES[number % 4], COUNTRIES[(number + 1) % 4]],
            "price": round(float(random.uniform(1, 30)), 2),
            "months": None if number % 5 == 0 else number % 24,
            "online_only": number % 3 == 0,
            "launched": end - int(random.integers(10, 900)) * DAY,
        }
        for number in range(offers)
    ]


def _moment(random: np.random.Generator, end: datetime, days: int) -> datetime:
    return end - timedelta(seconds=int(random.integers(1, days * 86_400)))


def _calls(random: np.random.Generator, end: datetime, people: Rows, days: int) -> Rows:
    rows = []
    for person in people:
        for _ in range(0 if person["silent"] else int(random.poisson(40))):
            topic = person["topic"] if random.random() < 0.6 else int(random.integers(len(TOPICS)))
            rows.append(
                {
                    "customer_id": person["id"],
                    "time": _moment(random, end, days + 40),
                    "minutes": None if random.random() < 0.05 else round(float(random.gamma(1.5, 8)), 2),
                    "megabytes": round(float(random.gamma(2, 20)), 3) if topic == 1 else None,
                    "topic": TOPICS[topic],
                    "country": COUNTRIES[int(random.integers(1, 4))] if random.random() < person["abroad"] else "at",
                }
            )
    return rows


def _payments(random: np.random.Generator, end: datetime, people: Rows, days: int) -> Rows:
    return [
        {
            "customer_id": person["id"],
            "time": _moment(random, end, days),
            "amount": round(float(random.uniform(5, 80)), 2),
            "method": str(random.choice(["card", "transfer"])),
        }
        for person in people
        if not person["silent"]
        for _ in range(6)
    ]


def _decisions(
    random: np.random.Generator, end: datetime, people: Rows, table: Rows, decisions: int, days: int
) -> tuple[Rows, Rows]:
    candidates = [
        *table,
        {"offer_id": "summer-data", "topic": "data", "price": 9.5},
        {"offer_id": "say-nothing", "topic": "voice", "price": 0.0},
    ]
    made, outcomes = [], []
    for person in people:
        for number in range(decisions):
            time, channel = _moment(random, end, days), str(random.choice(CHANNELS))
            size = min(len(candidates), int(random.integers(8, 13)))
            chosen = random.choice(len(candidates), size, replace=False)
            decision = {
                "decision_id": f"d-{person['id']}-{number}",
                "customer_id": person["id"],
                "time": time,
                "placement": "home",
                "channel": channel,
                "hour": float(time.hour),
                "roaming_now": bool(random.random() < person["abroad"]),
            }
            for at in chosen:
                offer = candidates[at]
                made.append(decision | {"offer_id": offer["offer_id"], "action_probability": 1 / len(chosen)})
                liked = offer["topic"] == TOPICS[person["topic"]]
                odds = (
                    -4.2
                    + 2.6 * liked
                    + 1.2 * (channel == "app")
                    - 0.04 * offer["price"]
                    + 2.0 * (offer["topic"] == "roaming") * person["abroad"]
                )
                if random.random() < 1 / (1 + np.exp(-odds)):
                    outcome = {
                        "decision_id": decision["decision_id"],
                        "customer_id": person["id"],
                        "offer_id": offer["offer_id"],
                    }
                    after = time + timedelta(seconds=int(random.integers(60, 6 * 86_400)))
                    if after < end:
                        outcomes.append(outcome | {"type": "accepted", "time": after, "value": float(offer["price"])})
    return made, outcomes
