"""Made-up experiments in DuckDB tables that look as the lake's views do."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from features.common.timestamps import DAY_SECONDS, MICROSECONDS, parse_moment
from pipelines.experiments.cohort import Question

KEY, ARMS = "louder", ("as_it_is", "louder")
START = parse_moment("2026-10-01")
DAY = DAY_SECONDS * MICROSECONDS
NOW = START + 40 * DAY
WEEK_SECONDS = 7 * DAY_SECONDS
EMPTY: dict[str, dict[str, pa.DataType]] = {
    "exposures": {
        "customer_id": pa.string(),
        "experiment": pa.string(),
        "arm": pa.string(),
        "time": pa.timestamp("us", "UTC"),
        "probability": pa.float64(),
        "decision_id": pa.string(),
        "channel": pa.string(),
        "degraded": pa.list_(pa.string()),
        "took_us": pa.int64(),
    },
    "outcomes": {
        "customer_id": pa.string(),
        "type": pa.string(),
        "time": pa.timestamp("us", "UTC"),
        "value": pa.float64(),
    },
    "impressions": {"customer_id": pa.string(), "time": pa.timestamp("us", "UTC")},
    "consents": {
        "customer_id": pa.string(),
        "time": pa.timestamp("us", "UTC"),
        "purpose": pa.string(),
        "allowed": pa.bool_(),
    },
}
Rows = dict[str, list[dict[str, Any]]]


def lake_of(rows: Rows) -> duckdb.DuckDBPyConnection:
    """A connection with the four views, empty where no rows are given."""
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    for name, fields in EMPTY.items():
        con.register(name, pa.Table.from_pylist(rows.get(name, []), pa.schema(list(fields.items()))))
    return con


def question(**changes: Any) -> Question:
    """A week of purchases, as of the fortieth day."""
    usual = {
        "experiment": KEY,
        "arms": ARMS,
        "control": ARMS[0],
        "outcome": "conversion",
        "window_seconds": WEEK_SECONDS,
        "now": NOW,
    }
    return Question(**(usual | changes))


def made(
    seed: int,
    units: int = 6_000,
    rates: tuple[float, ...] = (0.1, 0.1),
    shares: tuple[float, ...] = (0.5, 0.5),
    dismissals: tuple[float, ...] = (0.05, 0.05),
    days: int = 30,
) -> Rows:
    """Units that are exposed once, over so many days, see it, and convert, spend and dismiss as their arm says; some
    did so before.
    """
    rng, rows = np.random.default_rng(seed), Rows(exposures=[], outcomes=[], impressions=[], consents=[])
    arms = rng.choice(len(rates), units, p=shares)
    at = START + np.sort(rng.integers(0, days * DAY, units))
    eager = rng.random(units) < 0.3
    draws = rng.random((units, 4))
    for number in range(units):
        arm, time, who = int(arms[number]), int(at[number]), f"c{number}"
        rows["exposures"].append(
            exposure(who, time, ARMS[arm], shares[arm], channel=("app", "web", "shop")[number % 3])
        )
        rows["impressions"].append({"customer_id": who, "time": time + MICROSECONDS})
        for which, rate, kind, moved in (
            (0, rates[arm] * (2 if eager[number] else 4 / 7), "conversion", DAY),
            (1, 0.1 * (5 if eager[number] else 4 / 7), "conversion", -DAY),
            (2, dismissals[arm], "dismissal", DAY),
        ):
            if draws[number, which] < rate:
                value = float(np.round(5 + 20 * draws[number, 3], 2)) if kind == "conversion" else None
                rows["outcomes"].append({"customer_id": who, "type": kind, "time": time + moved, "value": value})
    return rows


def exposure(who: str, time: int, arm: str, probability: float | None = 0.5, **more: Any) -> dict[str, Any]:
    """A row."""
    usual = {
        "customer_id": who,
        "experiment": KEY,
        "arm": arm,
        "time": time,
        "probability": probability,
        "decision_id": f"{time:x}-{who}",
    }
    return usual | {"channel": "app", "degraded": [], "took_us": 400} | more
