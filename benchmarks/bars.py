"""The bars: what must be reached, as the issue "A whole decision within a millisecond" says, and what was measured."""

from __future__ import annotations

import math
from typing import Literal

import msgspec


class Bar(msgspec.Struct, frozen=True):
    """One figure of the table. `better` says which way is good."""

    key: str
    name: str
    bar: float
    reach: float
    unit: str
    better: Literal["higher", "lower"]


BARS = (
    Bar("throughput", "throughput, one worker, 50 offers, against the obvious composition", 25, 40, "x", "higher"),
    Bar("latency", "p50, one connection, 50 offers, against the obvious composition", 15, 25, "x faster", "higher"),
    Bar("echo", "p50, 50 offers, against the bare echo", 3, 2, "x", "lower"),
    Bar("inside", "decision inside the server, 200 offers, p50", 0.20, 0.12, "ms", "lower"),
    Bar("open_p99", "p99 over HTTP at half of the peak load, 200 offers", 1.0, 0.6, "ms", "lower"),
    Bar("redis_echo", "with Redis on loopback, 50 offers: p50 against the bare echo", 8, 5, "x", "lower"),
    Bar(
        "redis_throughput",
        "with Redis on loopback, 50 offers: throughput against the obvious composition",
        12,
        25,
        "x",
        "higher",
    ),
    Bar("kernel", "kernel against Booster.predict, 200 offers", 20, 35, "x", "higher"),
    Bar("large", "10,000 offers in one decision, p50", 5, 2, "ms", "lower"),
    Bar("hub", "decision hub, 60 rules and 10 limits on 200 offers: p50 more than without", 0.15, 0.08, "ms", "lower"),
    Bar("experiment", "each further running experiment in a decision, 200 offers", 5, 3, "us", "lower"),
    Bar("experiments", "20 running experiments, 200 offers: a decision more than without", 0.10, 0.06, "ms", "lower"),
    Bar("flag", "single OFREP evaluation, p50 against the bare echo", 3, 2, "x", "lower"),
    Bar("flags", "OFREP, 20 flags and one placement of 50 offers at once: p50", 1, 0.7, "ms", "lower"),
    Bar("events", "events in batches of 100, durable, two workers", 20_000, 40_000, "/s", "higher"),
    Bar("event_single", "single events, p50", 5, 2, "ms", "lower"),
    Bar("event_known", "event to the next decision, p99", 50, 10, "ms", "lower"),
    Bar("events_beside", "p99 of decisions beside 5,000 events/s, against without", 1.5, 1.2, "x", "lower"),
    Bar("memory", "memory of a worker (RSS)", 220, 150, "MB", "lower"),
    Bar("start", "start to ready with a warm cache", 5, 3, "s", "lower"),
)
"""One entry for each figure of the tables "Must reach"; the row about Redis and the one about memory and start hold two
each.
"""


class Measured(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bar with its measured value; without one it is not reached, and `reason` says why there is none."""

    name: str
    value: float | None
    bar: float
    unit: str
    ok: bool
    reach: float
    better: str
    key: str
    reason: str = ""


def judged(values: dict[str, float], reasons: dict[str, str]) -> list[Measured]:
    """Every bar beside what was measured; nothing is assumed of what was not."""
    made = []
    for bar in BARS:
        value = values.get(bar.key)
        if value is None or not math.isfinite(value):
            reason = reasons.get(bar.key, "it was not measured in this run")
            made.append(Measured(bar.name, None, bar.bar, bar.unit, False, bar.reach, bar.better, bar.key, reason))
            continue
        ok = value >= bar.bar if bar.better == "higher" else value <= bar.bar
        made.append(Measured(bar.name, value, bar.bar, bar.unit, ok, bar.reach, bar.better, bar.key))
    return made
