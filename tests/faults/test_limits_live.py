"""Many clients hammer one customer after the other on real servers: what answers show never exceeds a limit or a
budget.

Limits and budgets are counted from the answers alone. A run takes tens of seconds where nothing else runs, most of it
to make what is served: 20,000 requests for each ledger while all goes well, some 12,000 more around a fault.
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
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
import yaml

from features.lake.offers import read_catalogue
from features.validation.load import load
from features.workspace.workspace import ONLINE_URL_VARIABLE
from serving.decision.answer import CONTACTS_UNAVAILABLE
from tests.depth import rounds
from tests.serving.live import Live, serving_copy, wait_for
from tests.serving.load_client import CONSTANT, Asked, Log, hammering
from tests.stores import Server, find_server
from tests.trained import copy_of

REQUESTS, REQUESTS_WITH_FAULT = rounds(20_000), rounds(12_000)
SEED = int(os.environ.get("OPPORTUNE_SEED", str(random.SystemRandom().randrange(1 << 30))))
CLIENTS = 64
RUN_SECONDS_MAX = 600
ZONE = ZoneInfo("Europe/Vienna")
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0

needs_redis = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")

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


# Embedded
# -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(trained_workspace: Path, tmp_path: Path) -> Iterator[Live]:
    server = Live(limited(serving_copy(trained_workspace, tmp_path / "shop")), workers=2).start()
    yield server
    server.stop()


def answering(live: Live) -> set[str]:
    """The workers that answer now."""
    return {live.decide()["decision_id"].split("-")[1] for _ in range(20)}


@pytest.mark.slow
def test_two_workers_never_exceed_a_limit(embedded: Live, tmp_path: Path) -> None:
    """64 clients on two workers that share the embedded ledger: each limit and budget is reached, and none is
    exceeded.
    """
    counts = hammered([embedded], tmp_path / "log", REQUESTS)
    counts.told("embedded")
    counts.hold()
    assert len({asked.worker for asked in counts.asked}) == 2
    assert not counts.lost and not any(asked.degraded for asked in counts.asked)


@pytest.mark.slow
def test_a_killed_worker_exceeds_no_limit(embedded: Live, tmp_path: Path) -> None:
    """kill -9 of a worker in the middle of takes: nobody waits for its lock, nothing is shown too often, another takes
    its place.
    """

    def kill(log: Log) -> None:
        victim, *_ = embedded.serving()
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: log.count(killed) > 500, what="answers while one is away")
        wait_for(lambda: victim not in embedded.serving() and len(embedded.serving()) == 2, what="another worker")
        wait_for(lambda: len(answering(embedded)) == 2, what="answers of both")

    counts = hammered([embedded], tmp_path / "log", REQUESTS_WITH_FAULT, kill)
    counts.told("embedded, a worker killed")
    counts.hold(reserved_max=CLIENTS)
    assert 0 < counts.lost <= CLIENTS
    assert not any(asked.degraded for asked in counts.asked)


# Redis
# --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server]]:
    """A workspace whose customers are in a Valkey of its own that keeps what it was told, also when it is killed.

    What is appended is in the page cache before it is answered, and so outlives the process: no sync is needed for
    that.
    """
    server = Server(tmp_path_factory.mktemp("valkey"), "--appendonly", "yes", "--appendfsync", "no").start()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv(ONLINE_URL_VARIABLE, server.url)
        from pipelines.materialize import steps

        folder = copy_of(trained_workspace, tmp_path_factory.mktemp("limits") / "shop")
        assert steps.materialize(load(folder)) > 10
    yield folder, server
    server.stop()


@pytest.fixture
def remote(filled: tuple[Path, Server], tmp_path: Path) -> Iterator[tuple[list[Live], Server]]:
    """Two servers of two workers each on one store, which remembers nothing of an earlier test."""
    folder, store = filled
    store.ask(
        "EVAL", "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end", "0", "contacts:*"
    )
    store.ask("DEL", "budgets:{fernruf}")
    servers: list[Live] = []
    try:
        for name in ("one", "two"):
            copied = limited(serving_copy(folder, tmp_path / name))
            servers.append(Live(copied, workers=2, environment={ONLINE_URL_VARIABLE: store.url}).start())
        yield servers, store
    finally:
        for server in servers:
            server.stop()


@needs_redis
@pytest.mark.slow
def test_two_servers_never_exceed_a_limit(remote: tuple[list[Live], Server], tmp_path: Path) -> None:
    """64 clients on two servers of two workers that share a Valkey: each limit and budget is reached, and none is
    exceeded.
    """
    servers, _ = remote
    counts = hammered(servers, tmp_path / "log", REQUESTS)
    counts.told("Valkey")
    counts.hold()
    assert (
        len({port for port, _ in {asked.worker for asked in counts.asked}}) == 2
    )  # of a server's workers one may idle
    assert not counts.lost and not any(asked.degraded for asked in counts.asked)


@needs_redis
@pytest.mark.slow
def test_a_killed_store_fails_closed_and_comes_back(remote: tuple[list[Live], Server], tmp_path: Path) -> None:
    """While the store is away what is limited is not shown, all else is, with 200; it is back within two seconds, with
    its memory.
    """
    servers, store = remote
    moments = []

    def kill(log: Log) -> None:
        store.kill()
        moments.append(time.monotonic())
        wait_for(
            lambda: log.count(moments[0]) > 2_000 and time.monotonic() > moments[0] + 1.5,
            what="answers while it is away",
        )
        moments.append(time.monotonic())
        store.start()
        moments.append(time.monotonic())
        wait_for(
            lambda: log.count(moments[2]) > REQUESTS_WITH_FAULT // 3 and time.monotonic() > moments[2] + 2.0,
            60,
            "answers when it is back",
        )

    counts = hammered(servers, tmp_path / "log", REQUESTS_WITH_FAULT, kill)
    counts.told("Valkey, killed")
    away, starting, back = moments
    seen = [shown for shown in counts.shown if shown.asked.begin > away and shown.asked.end < starting]
    blind = [asked for asked in counts.asked if asked.begin > away and asked.end < starting]
    assert len(blind) > 1_000 and all(CONTACTS_UNAVAILABLE in asked.degraded for asked in blind)
    assert {(shown.asked.placement, shown.group) for shown in seen} == {("help", "voice")}
    assert all(len(asked.offers) == 2 for asked in blind if asked.placement == "help")
    whole = [asked for asked in counts.asked if asked.begin > starting and not asked.degraded]
    recovered = [
        min(asked.end for asked in whole if asked.worker == worker) - back
        for worker in {asked.worker for asked in counts.asked}
    ]
    print(f"recovered after {', '.join(f'{seconds:.2f}' for seconds in sorted(recovered))} s", end=" ")
    assert len(recovered) >= 2 and max(recovered) < 2  # the kernel deals out connections: a worker may have had none
    counts.hold(reserved_max=CLIENTS)
    assert not counts.lost
