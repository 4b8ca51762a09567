"""Many clients hammer one customer after the other on real servers: what answers show never exceeds a limit or a
budget.

Limits and budgets are counted from the answers alone. A run takes tens of seconds where nothing else runs, most of it
to make what is served: 20,000 requests for each ledger while all goes well, some 12,000 more around a fault.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.validation.load import load
from features.workspace.workspace import ONLINE_URL_VARIABLE
from serving.decision.answer import CONTACTS_UNAVAILABLE
from tests.depth import rounds
from tests.faults.limit_counts import CLIENTS, hammered, limited
from tests.serving.live import Live, serving_copy, wait_for
from tests.serving.load_client import Log
from tests.stores import Server, find_server
from tests.trained import copy_of

REQUESTS, REQUESTS_WITH_FAULT = rounds(20_000), rounds(12_000)

needs_redis = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")

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
