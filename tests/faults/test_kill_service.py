"""`kill -9` of the whole service under load: servers, the background worker, the tree of BentoML. OPPORTUNE_SEED draws
the same rounds again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from features.events import consumers
from features.events.log import event_folder
from pipelines.shipping import ship
from tests.depth import rounds
from tests.faults.forked_service import BACKGROUND, SERVER, Nursery, nursery
from tests.faults.loss_accounting import (
    different,
    loaded_again,
    modelled,
    reckon_journal,
    reckon_lake,
    reckon_log,
    seed_told,
    seen,
    with_limits,
)
from tests.faults.traffic import Crowd, Told, shopping
from tests.serving.live import ROOT, Live, ask, serving_copy, wait_for
from tests.trained import copy_of

ROUNDS, TREE_ROUNDS = rounds(25), rounds(2)
SERVERS = 2
KILLED_AFTER_SECONDS = 0.25
"""At most, after the first answer of a round."""
WORKER_STARTED_SECONDS = 5.0
"""The background worker as it is takes some seconds to start, and three until it ships."""
FIRST_ROUNDS, FIRST_PARTS = rounds(6), (0.1, 1.1)
"""Killed after such parts of the time that a start takes on this machine."""
STORES = ("events", "journal", "ledger")
STARTING = 0.2
"""The share of rounds that end while processes start, whether or not one has answered."""
HEARD_SECONDS_MAX = 180.0


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    drawn = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    seed_told(capsys, drawn)
    return drawn


def victims(service: Nursery, chance: random.Random) -> list[int]:
    """Whom a round kills: everything, all servers, one of them, or the background worker."""
    everybody = sorted(service.alive)
    servers = [process for process in everybody if service.alive[process] == SERVER]
    background = [process for process in everybody if service.alive[process] == BACKGROUND]
    return chance.choices((everybody, servers, [chance.choice(servers)], background), (50, 20, 15, 15))[0]


def one_round(service: Nursery, crowd: Crowd, chance: random.Random) -> int:
    """Let all live for a while, kill some, and let others take their places; how many were killed."""
    before = crowd.answers
    if chance.random() > STARTING:
        wait_for(lambda: crowd.answers > before, what="an answer")
    time.sleep(chance.uniform(0.0, KILLED_AFTER_SECONDS))
    chosen = victims(service, chance)
    kinds = [service.alive[process] for process in chosen]
    assert service.end(chosen) == [-signal.SIGKILL] * len(chosen), service.log.read_text()[-3_000:]
    for kind in kinds:
        service.bear(kind)
    return len(chosen)


@pytest.mark.slow
def test_whole_service_is_killed_again_and_again(
    trained_workspace: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """No acknowledged event or answered decision is lost or doubled in log, journal, lake or ledger; what each customer
    did is known exactly.
    """
    begun, chance = time.monotonic(), random.Random(seed)
    folder = with_limits(copy_of(trained_workspace, tmp_path / "shop"))
    workspace = loaded_again(folder)
    before = seen(workspace)
    with nursery(folder, tmp_path / "said") as service:
        for kind in (*[SERVER] * SERVERS, BACKGROUND):
            service.bear(kind)
        with shopping(service.port, seed) as crowd:
            wait_for(lambda: crowd.answers > 0, what="the first answer")
            killed = sum(one_round(service, crowd, chance) for _ in range(ROUNDS))
            killing = time.monotonic() - begun
        told = crowd.told()
        assert service.killed == killed >= ROUNDS
        nothing_false(told, ROUNDS)
        # All of the dead are adopted and buried, so all is heard; rows, recent events and histories together are what
        # the log says.
        wait_for(lambda: not unheard(folder, SERVERS), HEARD_SECONDS_MAX, "that all is heard")
        rows = reckon_log(workspace, told)
        expected = modelled(rows, before)
        wait_for(lambda: not different(seen(workspace), expected), HEARD_SECONDS_MAX, "that the ledger knows all")
        wait_for(lambda: workspace_refreshed(folder) >= rows[-1].seq, HEARD_SECONDS_MAX, "a refresh of all")
        assert not different(seen(workspace), expected)
        assert service.end(sorted(service.alive), signal.SIGKILL) == [-signal.SIGKILL] * (SERVERS + 1)
    lines, torn = reckon_journal(workspace, told.decided)
    ship.ship(workspace)
    tables = reckon_lake(workspace, rows, lines)
    assert not different(seen(workspace), expected)
    with capsys.disabled():
        print(f"\n  {ROUNDS} rounds, {killed} processes killed in {killing:.0f} s: {told};")
        print(
            f"  log {len(rows)}, journal {len(lines)} ({torn} torn ends), lake {dict(tables)};"
            f" {time.monotonic() - begun:.0f} s in all",
            end=" ",
        )


@pytest.mark.slow
def test_first_moments(trained_workspace: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Killed while they make journal, event log and ledger for the first time, servers that come after them take events
    and decide.
    """
    chance = random.Random(seed)
    folder = with_limits(serving_copy(trained_workspace, tmp_path / "shop"))
    workspace = loaded_again(folder)
    made: Counter[str] = Counter()
    with nursery(folder, tmp_path / "said") as service:
        begun = time.monotonic()
        born = [service.bear(SERVER) for _ in range(SERVERS)]
        assert ask(service.port, "GET", "/readyz").status == 200
        took = time.monotonic() - begun
        service.end(born)
        for turn in range(FIRST_ROUNDS):
            for name in STORES:
                shutil.rmtree(workspace.data / name, ignore_errors=True)
            born = [service.bear(SERVER) for _ in range(SERVERS)]
            time.sleep(took * chance.uniform(*FIRST_PARTS))
            assert service.end(born) == [-signal.SIGKILL] * SERVERS
            made.update(name for name in STORES if (workspace.data / name).exists())
            born = [service.bear(SERVER) for _ in range(SERVERS)]
            with shopping(service.port, seed + turn, shoppers=2) as crowd:
                wait_for(lambda: all(one.acknowledged and one.decided for one in crowd.shoppers), what="answers")
            told = crowd.told()
            assert not told.refused and not told.degraded and not told.waiting
            reckon_journal(workspace, told.decided)
            reckon_log(workspace, told)
            assert service.end(born) == [-signal.SIGKILL] * SERVERS
    with capsys.disabled():
        print(f"\n  of {FIRST_ROUNDS} first starts of {took:.2f} s that were killed, there were {dict(made)}", end=" ")
    assert any(0 < count < FIRST_ROUNDS for count in made.values()), (
        f"all were killed before, or after, the moments that are meant: {made}"
    )


def kill_tree(live: Live, worker: subprocess.Popen[bytes]) -> int:
    """SIGKILL to BentoML's supervisor, all below it and the background worker, at once; how many there were."""
    assert live.process is not None
    below = live.tree()
    for process in (live.process, worker, *below):
        process.kill()
    assert [one.wait(30) for one in (live.process, worker)] == [-signal.SIGKILL] * 2, live.said
    _, left = psutil.wait_procs(below, 30)
    assert not left
    return len(below) + 2


@pytest.mark.slow
def test_tree_of_the_real_server_is_killed(
    trained_workspace: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same of `opportune serve` as it is, with its supervisor and the background worker beside it: all of it killed
    at once, some times.
    """
    begun, chance, killed = time.monotonic(), random.Random(seed), 0
    folder = with_limits(copy_of(trained_workspace, tmp_path / "shop"))
    workspace = loaded_again(folder)
    before = seen(workspace)
    live = Live(folder, workers=2).start()
    try:
        with shopping(live.port, seed) as crowd:
            for _ in range(TREE_ROUNDS):
                with subprocess.Popen(
                    [sys.executable, "-m", "pipelines.worker", str(folder)], cwd=ROOT, stderr=subprocess.DEVNULL
                ) as worker:
                    answers = crowd.answers
                    wait_for(lambda answers=answers: crowd.answers > answers, what="an answer")  # type: ignore[misc]
                    time.sleep(chance.uniform(0.0, WORKER_STARTED_SECONDS))
                    killed += kill_tree(live, worker)
                live.start()
        told = crowd.told()
        assert killed >= TREE_ROUNDS * 4
        nothing_false(told, TREE_ROUNDS)
        rows = reckon_log(workspace, told)
        expected = modelled(rows, before)
        wait_for(lambda: not different(seen(workspace), expected), HEARD_SECONDS_MAX, "that the ledger knows all")
    finally:
        assert live.stop() == 0
    lines, torn = reckon_journal(workspace, told.decided)
    ship.ship(workspace)
    reckon_lake(workspace, rows, lines)
    with capsys.disabled():
        print(f"\n  {TREE_ROUNDS} rounds, {killed} processes killed: {told};")
        print(
            f"  log {len(rows)}, journal {len(lines)} ({torn} torn ends); {time.monotonic() - begun:.0f} s in all",
            end=" ",
        )


def nothing_false(told: Told, rounds: int) -> None:
    """Clients saw answers, or connections that ended; all that waited was answered in the end."""
    assert {status for status, _ in told.refused} <= {0, 503}, [
        refused for refused in told.refused if refused[0] not in (0, 503)
    ][:3]
    assert not told.waiting
    assert len(told.acknowledged) > 10 * rounds and len(told.decided) > rounds, str(told)


def unheard(folder: Path, alive: int) -> bool:
    """Whether a dead worker has still to be adopted."""
    return len(list(event_folder(loaded_again(folder).data).glob(f"*{consumers.ALIVE}"))) > alive


def workspace_refreshed(folder: Path) -> int:
    """Place in the event log up to which rows were brought up to date."""
    from pipelines.materialize import steps

    return steps.state_of(loaded_again(folder)).refreshed
