"""A running service whose ledger is lost, whose shipper is away, whose clock runs back, or that is told to stop: no
false 202, no event lost.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from features.common.timestamps import MICROSECONDS, from_microseconds, now
from features.common.types import Event
from features.events.log import EventLog, event_folder
from features.events.rows import event_item
from features.events.semantics import time_of
from pipelines.shipping import ship
from tests.faults.event_service import RECOVERED_SECONDS_MAX, Calls, refused, serving
from tests.faults.forked_service import BACKGROUND, SERVER, nursery
from tests.faults.loss_accounting import (
    different,
    loaded_again,
    log_of,
    modelled,
    reckon_journal,
    reckon_lake,
    reckon_log,
    seed_told,
    seen,
    with_limits,
)
from tests.faults.traffic import shopping
from tests.serving.live import ROOT, Live, serving_copy, wait_for
from tests.trained import copy_of

FRESH_SECONDS_MAX = 180.0
AHEAD_SECONDS = 3_600


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    drawn = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    seed_told(capsys, drawn)
    return drawn


# What is behind the log
# ----------------------------------------------------------------------------------------------------


def test_ledger_is_lost(trained_workspace: Path, tmp_path: Path) -> None:
    """Without its ledger the service keeps events and says that they are not heard; when it is back, they are, without
    being sent again.
    """
    folder = with_limits(serving_copy(trained_workspace, tmp_path / "shop"))
    workspace = loaded_again(folder)
    before = seen(workspace)
    place = workspace.data / "ledger" / "data.mdb"
    with serving(folder) as live:
        calls = Calls(live)
        assert calls.post().json["degraded"] == []
        place.rename(place.with_suffix(".away"))
        wait_for(lambda: calls.post().json["degraded"] == ["contacts_unavailable"], RECOVERED_SECONDS_MAX, "the notice")
        for _ in range(20):
            assert calls.post().json["degraded"] == ["contacts_unavailable"]
            assert "contacts_unavailable" in live.decide()["degraded"]
        place.with_suffix(".away").rename(place)
        expected = modelled(log_of(workspace), before)
        assert expected["k1"].calls == len(calls.acknowledged) == len(calls.sent)
        wait_for(lambda: not different(seen(workspace), expected), RECOVERED_SECONDS_MAX, "that all is heard")
        assert calls.post().json["degraded"] == []


@pytest.mark.slow
def test_shipper_is_away_and_comes_back(
    trained_workspace: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What happened while no background worker ran is in the lake once it does, each once; from then on events are
    there within seconds.
    """
    folder = with_limits(copy_of(trained_workspace, tmp_path / "shop"))
    workspace = loaded_again(folder)
    before = seen(workspace)
    with serving(folder) as live:
        with shopping(live.port, seed) as crowd:
            wait_for(lambda: crowd.answers > 1_500, RECOVERED_SECONDS_MAX, "events without a shipper")
        told = crowd.told()
        assert not told.refused and not told.degraded
        rows, (lines, _) = reckon_log(workspace, told), reckon_journal(workspace, told.decided)
        with subprocess.Popen(
            [sys.executable, "-m", "pipelines.worker", str(folder)], cwd=ROOT, stderr=subprocess.DEVNULL
        ) as worker:
            try:
                begun = time.monotonic()
                wait_for(lambda: in_lake(workspace) >= len(rows), FRESH_SECONDS_MAX, "the catch-up")
                caught_up, took, calls = time.monotonic() - begun, [], Calls(live)
                for _ in range(4):
                    assert not refused(calls.post())
                    took.append(
                        wait_for(
                            lambda: in_lake(workspace) >= len(rows) + len(calls.acknowledged),
                            FRESH_SECONDS_MAX,
                            "the lake",
                        )
                    )
                live.decide("k1")
            finally:
                worker.terminate()
                assert worker.wait(RECOVERED_SECONDS_MAX) == 0
    ship.ship(workspace)
    rows = log_of(workspace)
    reckon_lake(workspace, rows, reckon_journal(workspace, told.decided)[0])
    assert not different(seen(workspace), modelled(rows, before))
    with capsys.disabled():
        print(
            f"\n  caught up with {told.accepted} events and {len(lines)} decisions after {caught_up:.1f} s, start"
            " included;",
            end=" ",
        )
        print(f"event to lake {', '.join(f'{seconds:.1f}' for seconds in took)} s", end=" ")


def in_lake(workspace: Any) -> int:
    """Up to which event of the log the lake has all, as their count."""
    from pipelines.shipping.state import state_of

    shipped = state_of(workspace).events
    return sum(row.seq <= shipped for row in log_of(workspace))


@pytest.mark.slow
def test_clock_runs_back(trained_workspace: Path, tmp_path: Path, seed: int) -> None:
    """A service whose machine's clock was an hour ahead before goes on counting exactly: in log, lake, rows and
    ledger.
    """
    folder = with_limits(copy_of(trained_workspace, tmp_path / "shop"))
    workspace = loaded_again(folder)
    before, fast = seen(workspace), lambda: now() + AHEAD_SECONDS * MICROSECONDS
    log = EventLog(event_folder(workspace.data), clock=fast)
    early = Event("from-the-future", "calls", from_microseconds(now()), "nobody", fields={"minutes": 1.0})
    assert [result.outcome for result in log.append([event_item(early, time_of(early))])] == ["stored"]
    log.barrier()
    log.close()
    with nursery(folder, tmp_path / "said") as service:
        for kind in (SERVER, SERVER, BACKGROUND):
            service.bear(kind)
        with shopping(service.port, seed) as crowd:
            wait_for(lambda: crowd.answers > 1_000, what="answers")
        told = crowd.told()
        assert not told.refused
        rows = log_of(workspace)  # whose moments ascend
        assert told.acknowledged == {row.event.event_id for row in rows} - {early.event_id}
        expected = modelled(rows, before)
        wait_for(lambda: not different(seen(workspace), expected), RECOVERED_SECONDS_MAX, "that all is heard")
        wait_for(lambda: in_lake(workspace) == len(rows), RECOVERED_SECONDS_MAX, "that all is shipped")
        assert not different(seen(workspace), expected)
    ship.ship(workspace)
    reckon_lake(workspace, rows, reckon_journal(workspace, told.decided)[0])


# A stop
# --------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stop_under_load_loses_nothing(trained_workspace: Path, tmp_path: Path, seed: int) -> None:
    """SIGTERM while events come in: the exit status is 0, and each that was acknowledged is in the log and known to the
    next service.
    """
    folder = with_limits(serving_copy(trained_workspace, tmp_path / "shop"))
    workspace = loaded_again(folder)
    before = seen(workspace)
    live = Live(folder, workers=2).start()
    try:
        with shopping(live.port, seed, pause=0.002) as crowd:
            wait_for(lambda: crowd.answers > 500, what="answers")
            assert live.stop() == 0, live.said
            live.start()
        told = crowd.told()
        assert not told.waiting and {status for status, _ in told.refused} <= {0}, told.refused[:3]
        rows = reckon_log(workspace, told)
        expected = modelled(rows, before)
        wait_for(lambda: not different(seen(workspace), expected), RECOVERED_SECONDS_MAX, "that all is heard")
        reckon_journal(workspace, told.decided)
    finally:
        assert live.stop() == 0
