"""Limits and budgets of a workspace, clients that hammer its servers, and what their answers show, counted."""

from __future__ import annotations

import os
import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import yaml

from features.lake.offers import read_catalogue
from features.validation.load import load
from tests.serving.live import Live, wait_for
from tests.serving.load_client import CONSTANT, Asked, Log, hammering

SEED = int(os.environ.get("OPPORTUNE_SEED", str(random.SystemRandom().randrange(1 << 30))))
CLIENTS = 64
RUN_SECONDS_MAX = 600
ZONE = ZoneInfo("Europe/Vienna")
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0

SOLD = {"except_groups": ["voice", "rare"], "count": "decisions"}
ALL = {"placements": ["home", "bill"], "count": "decisions", "per": "any"}
LIMITS: dict[str, Any] = {
    "an_offer": SOLD | {"max": 5, "window": "1h", "per": "offer"},
    "a_group": SOLD | {"max": 11, "window": "1d", "per": "group"},
    "each_channel": SOLD
    | {"max": 4, "window": "1h", "per": "group", "channel": "each", "groups": ["roaming"], "except_groups": []},
    "held": {"max": 3, "window": "1d", "per": "offer", "count": "impressions", "offers": ["offer-05"]},
    "anything": ALL | {"max": 60, "window": "1m"},
    "web_only": ALL | {"max": 9, "window": "1h", "channel": "web"},
}
"""At the placement `help`, which shows the group `voice`, none of them holds."""
WINDOWS = {"an_offer": HOUR, "a_group": DAY, "anything": MINUTE, "web_only": HOUR, "each_channel": HOUR, "held": DAY}
BUDGETS = {"rare-day": {"daily": 300}, "rare-ever": {"lifetime": 200}, "rare-stock": {"stock": 100}}
"""Of offers that everybody is shown first at the placement `bill`, as long as there are any."""


def limited(folder: Path) -> Path:
    """A workspace with limits of every kind, budgets, and a placement where there are none."""
    offers, settings = (yaml.safe_load((folder / name).read_text()) for name in ("offers.yaml", "workspace.yaml"))
    rare = [
        {"offer_id": name, "value": 1_000_000 * (9 - at), "group": "rare", "placements": ["bill"], "budget": budget}
        for at, (name, budget) in enumerate(BUDGETS.items())
    ]
    offers["placements"]["help"] = {"limit": 2, "groups": ["voice"]}
    (folder / "offers.yaml").write_text(
        yaml.safe_dump(offers | {"group": "topic", "offers": [*offers["offers"], *rare]})
    )
    (folder / "policies.yaml").write_text(
        yaml.safe_dump({"limits": LIMITS, "arbitration": {"offers": {"offer-05": 1_000}}})
    )
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
        assert {asked.status for asked in self.asked} == {200}, next(
            asked for asked in self.asked if asked.status != 200
        )
        self.shown = [Shown(asked, offer, self.groups[offer]) for asked in self.asked for offer in asked.offers]

    def of_limits(self) -> dict[str, int]:
        """The most that any customer was shown in any window, by limit."""
        by_limit: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for asked, offer, group in self.shown:
            if asked.placement == "help":
                continue
            keys = [("anything",)] + [("web_only",)] * (asked.channel == "web") + [("held",)] * (offer == "offer-05")
            keys += [("each_channel", asked.channel)] * (group == "roaming")
            if group not in ("voice", "rare"):
                keys += [("an_offer", offer), ("a_group", group)]
            for key in keys:
                by_limit[(*key, asked.customer)].append(asked.time)
        found = dict.fromkeys(LIMITS, 0)
        for (name, *_), times in by_limit.items():
            found[name] = max(found[name], most_within(times, WINDOWS[name]))
        return found

    def of_budgets(self) -> dict[str, int]:
        """How often each offer that has a budget was shown; of a daily one, the day on which it was shown most."""
        found: Counter[tuple[str, str]] = Counter()
        for asked, offer, group in self.shown:
            if group == "rare":
                day = datetime.fromtimestamp(asked.time, ZONE).date().isoformat() if "daily" in BUDGETS[offer] else ""
                found[offer, day] += 1
        return {
            name: max((count for (offer, _), count in found.items() if offer == name), default=0) for name in BUDGETS
        }

    def hold(self, reserved_max: int = 0) -> None:
        """No limit and no budget was exceeded, and each was reached.

        Args:
            reserved_max: what may be neither shown nor free, because a worker or the store was killed that had just
                reserved it.
        """
        assert self.of_limits() == {name: limit["max"] for name, limit in LIMITS.items()}
        for name, shown in self.of_budgets().items():
            allowed = next(iter(BUDGETS[name].values()))
            assert allowed - reserved_max <= shown <= allowed, (name, shown, allowed)

    def told(self, what: str) -> None:
        workers, customers = {asked.worker for asked in self.asked}, {asked.customer for asked in self.asked}
        seconds = max(asked.end for asked in self.asked) - min(asked.begin for asked in self.asked)
        constant = sum(asked.customer == CONSTANT for asked in self.asked)
        print(
            f"\n  {what}: {len(self.asked)} answers of {len(workers)} workers in {seconds:.0f} s, {self.lost} lost,",
            end=" ",
        )
        print(
            f"{len(customers)} customers, {constant} to one; {len(self.shown)} offers shown; OPPORTUNE_SEED={SEED}",
            end=" ",
        )


def hammered(
    servers: list[Live], file: Path, requests: int, between: Callable[[Log], object] = lambda _: None
) -> Counts:
    """What all clients were answered until there were enough answers, with what happens after a third of them."""
    log = Log(file)
    process = hammering([server.port for server in servers], file, CLIENTS, SEED)
    try:
        wait_for(lambda: log.count() > requests // 3, RUN_SECONDS_MAX, "a third of the answers")
        between(log)
        wait_for(lambda: log.count() >= requests, RUN_SECONDS_MAX, "the last answer")
        assert process.is_alive()
    finally:
        process.kill()
        process.join()
        process.close()
    return Counts(servers[0].workspace, log)
