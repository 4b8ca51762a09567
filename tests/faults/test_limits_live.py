"""Many clients hammer one customer after the other on real servers: what answers show never exceeds a limit or a budget.

Limits and budgets are counted from the answers alone. By default 50,000 requests go to four runs; OPPORTUNE_LIMIT_REQUESTS sets
how many go to each.
"""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from features.offers import read_catalogue
from features.workspace import ONLINE_URL_VARIABLE, load
from serving.decide import CONTACTS_UNAVAILABLE
from tests.serving.hammer import CONSTANT, Asked, Log, hammering
from tests.serving.live import Live, serving_copy, wait_for
from tests.stores import Server, find_server
from tests.trained import copy_of

REQUESTS = int(os.environ.get("OPPORTUNE_LIMIT_REQUESTS", "12500"))
SEED = int(os.environ.get("OPPORTUNE_SEED", str(random.SystemRandom().randrange(1 << 30))))
CLIENTS = 64
RUN_SECONDS_MAX = 200
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0

needs_redis = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")

FREE = {"except_groups": ["voice", "rare"], "count": "decisions"}
LIMITS: dict[str, Any] = {
    "an_offer": FREE | {"max": 5, "window": "1h", "per": "offer"},
    "a_group": FREE | {"max": 11, "window": "1d", "per": "group"},
    "anything": FREE | {"max": 26, "window": "1m", "per": "any"},
    "web_only": FREE | {"max": 9, "window": "1h", "per": "any", "channel": "web"},
    "each_channel": FREE | {"max": 4, "window": "1h", "per": "group", "channel": "each", "groups": ["roaming"]},
    "held": FREE | {"max": 3, "window": "1d", "per": "offer", "count": "impressions", "offers": ["offer-05"]},
}
WINDOWS = {"an_offer": HOUR, "a_group": DAY, "anything": MINUTE, "web_only": HOUR, "each_channel": HOUR, "held": DAY}
BUDGETS = {"rare-day": {"daily": 700}, "rare-ever": {"lifetime": 500}, "rare-stock": {"stock": 300}}
"""Of offers that everybody is shown first at the placement `bill`, as long as there are any."""


def limited(folder: Path) -> Path:
    """A workspace with limits of every kind and budgets; the offers of the group `voice` have neither."""
    offers, settings = (yaml.safe_load((folder / name).read_text()) for name in ("offers.yaml", "workspace.yaml"))
    rare = [
        {"offer_id": name, "value": 1_000_000 * (9 - at), "group": "rare", "placements": ["bill"], "budget": budget}
        for at, (name, budget) in enumerate(BUDGETS.items())
    ]
    (folder / "offers.yaml").write_text(yaml.safe_dump(offers | {"group": "topic", "offers": [*offers["offers"], *rare]}))
    (folder / "policies.yaml").write_text(yaml.safe_dump({"limits": LIMITS}))
    # More time than a server should need: four workers, a store and the clients share what may be two cores.
    settings |= {"serving": {"deadline_ms": 1_000}, "stores": {"online": {"timeout_ms": 500}}}
    (folder / "workspace.yaml").write_text(yaml.safe_dump(settings))
    return folder


def most_within(times: Iterable[float], window: float) -> int:
    """The largest number of moments in any (t - window, t]."""
    ordered = sorted(times)
    return max((at + 1 - bisect_right(ordered, t - window) for at, t in enumerate(ordered)), default=0)


class Shown(NamedTuple):
    """An offer in an answer."""

    asked: Asked
    offer: str
    group: str


class Counts:
    """What answers have shown, held against limits and budgets by counting."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.groups = {offer.offer_id: offer.group for offer in read_catalogue(load(folder, sources=False))}
        self.asked = [asked for asked in log.look() if asked.status]
        self.lost = len(log.asked) - len(self.asked)
        self.shown = [Shown(asked, offer, self.groups[offer]) for asked in self.asked for offer in asked.offers]

    def of_limits(self) -> dict[str, int]:
        """The most that any customer was shown in any window, by limit."""
        by_limit: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for asked, offer, group in self.shown:
            if group in ("voice", "rare"):
                continue
            keys = [("an_offer", offer), ("a_group", group), ("anything",)]
            keys += [("web_only",)] * (asked.channel == "web") + [("held",)] * (offer == "offer-05")
            keys += [("each_channel", asked.channel)] * (group == "roaming")
            for key in keys:
                by_limit[(*key, asked.customer)].append(asked.time)
        found = dict.fromkeys(LIMITS, 0)
        for (name, *_), times in by_limit.items():
            found[name] = max(found[name], most_within(times, WINDOWS[name]))
        return found

    def of_budgets(self) -> dict[str, int]:
        """How often each offer that has a budget was shown; a daily one in a day of the workspace's time zone, here at most one change."""
        return Counter(shown.offer for shown in self.shown if shown.group == "rare")

    def never_exceeded(self, budgets_begun_anew: int = 1) -> None:
        """No limit and no budget was exceeded, and each was reached."""
        assert {asked.status for asked in self.asked} == {200}
        assert self.of_limits() == {name: limit["max"] for name, limit in LIMITS.items()}
        allowed = {name: next(iter(budget.values())) for name, budget in BUDGETS.items()}
        found = self.of_budgets()
        # What a worker or a store had reserved when it went is neither shown nor free before the hold is over.
        assert all(allowed[name] - 2 * CLIENTS <= found[name] <= allowed[name] for name in allowed), found
        assert self.lost or found == allowed

    def told(self, what: str) -> None:
        workers, customers = {asked.worker for asked in self.asked}, {asked.customer for asked in self.asked}
        seconds = max(asked.end for asked in self.asked) - min(asked.begin for asked in self.asked)
        constant = sum(asked.customer == CONSTANT for asked in self.asked)
        print(f"\n  {what}: {len(self.asked)} answers of {len(workers)} workers in {seconds:.0f} s, {self.lost} lost,", end=" ")
        print(f"{len(customers)} customers, {constant} to one; {len(self.shown)} offers shown; OPPORTUNE_SEED={SEED}", end=" ")


def hammered(servers: list[Live], file: Path, between: Callable[[Log], None] = lambda _: None) -> Log:
    """All clients until all is asked, with what happens in between."""
    log = Log(file)
    process = hammering([server.port for server in servers], file, CLIENTS, REQUESTS, SEED)
    try:
        wait_for(lambda: log.count() > REQUESTS // 5, 60, "a fifth of the answers")
        between(log)
        wait_for(lambda: not process.is_alive(), RUN_SECONDS_MAX, "the last answer")
        assert process.exitcode == 0
    finally:
        process.kill()
        process.join()
        process.close()
    return log
