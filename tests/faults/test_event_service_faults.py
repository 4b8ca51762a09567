"""A running service whose disk is full or fails, whose ledger is lost, whose shipper is away, or that is told to stop:
no false 202, no event lost.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from features.common.timestamps import MICROSECONDS, from_microseconds, now
from features.common.types import EVENTS_MAX, Event
from features.events.log import EventLog, event_folder
from features.events.rows import event_item
from features.events.semantics import time_of
from pipelines.shipping import ship
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
from tests.serving.live import ROOT, Answer, Live, serving_copy, wait_for
from tests.trained import copy_of

SMALL_DISK_BYTES = 256 << 20
RECOVERED_SECONDS_MAX = 180.0
FRESH_SECONDS_MAX = 180.0
AHEAD_SECONDS = 3_600


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str]) -> int:
    drawn = int(os.environ.get("OPPORTUNE_SEED") or random.SystemRandom().randrange(1 << 32))
    seed_told(capsys, drawn)
    return drawn


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Live]:
    live = Live(folder).start()
    try:
        yield live
    finally:
        if live.process is not None and live.process.poll() is None:
            live.stop()


class Calls:
    """Calls of a customer, one an event, each acknowledged or not."""

    def __init__(self, live: Live, customer: str = "k1") -> None:
        self.live, self.customer, self.acknowledged = live, customer, list[str]()
        self.sent: list[dict[str, Any]] = []

    def post(self) -> Answer:
        """One more."""
        moment = from_microseconds(now()).isoformat(timespec="microseconds")
        name = f"{self.customer}-{len(self.sent)}"
        event = {
            "event_id": name,
            "type": "calls",
            "customer_id": self.customer,
            "occurred_at": moment,
            "fields": {"minutes": 1},
        }
        self.sent.append(event)
        answer = self.live.ask("POST", "/v1/events", {"events": [event]})
        if answer.status == 202:
            assert answer.json["stored"] == 1, answer
            self.acknowledged.append(name)
        return answer

    def post_again(self) -> None:
        """All that were sent, whatever came of them: then each is there once."""
        for begin in range(0, len(self.sent), EVENTS_MAX):
            part = self.sent[begin : begin + EVENTS_MAX]
            told = self.live.ask("POST", "/v1/events", {"events": part}).json
            assert told["stored"] + told["duplicates"] == len(part), told
        found = [row.event.event_id for row in log_of(loaded_again(self.live.workspace))]
        assert sorted(found) == sorted(event["event_id"] for event in self.sent)


def refused(answer: Answer) -> bool:
    """Whether it is the refusal that says when to come again; any other than that and 202 is a failure."""
    if answer.status == 202:
        return False
    assert answer.status == 503 and answer.json["type"].endswith(":events-unavailable"), answer
    assert int(answer.headers["retry-after"]) >= 1
    return True


def fails_and_recovers(live: Live, fault: contextlib.AbstractContextManager[object]) -> Calls:
    """While there is the fault, events are refused and decisions answered; without it, all goes on by itself. Events
    that were sent.
    """
    calls = Calls(live)
    assert not refused(calls.post())
    with fault:
        wait_for(lambda: refused(calls.post()), RECOVERED_SECONDS_MAX, "a refusal")
        for turn in range(20):
            assert refused(calls.post())
            live.decide(f"436{600_000 + turn}")
    seconds = wait_for(lambda: not refused(calls.post()), RECOVERED_SECONDS_MAX, "the way back")
    wait_for(
        lambda: "contacts_unavailable" not in live.decide()["degraded"], RECOVERED_SECONDS_MAX, "the ledger's way back"
    )
    for _ in range(20):
        assert not refused(calls.post())
    print(f"  recovered after {seconds:.1f} s;", end=" ")
    found = [row.event.event_id for row in log_of(loaded_again(live.workspace))]
    assert len(set(found)) == len(found) and set(calls.acknowledged) <= set(found)
    assert len(calls.sent) - len(calls.acknowledged) > 20 and len(calls.acknowledged) > 20
    calls.post_again()
    return calls


# The disk
# ------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_file_may_grow(live: Live) -> Iterator[None]:
    """What a full disk is to one process: EFBIG instead of ENOSPC, of any write that makes a file longer."""
    processes = live.serving()
    before = [resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)) for process in processes]
    try:
        yield
    finally:
        for process, limit in zip(processes, before, strict=True):
            resource.prlimit(process, resource.RLIMIT_FSIZE, limit)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of other processes can be set on Linux only")
def test_files_that_may_not_grow(trained_workspace: Path, tmp_path: Path) -> None:
    """Where no file may grow, events get 503 and Retry-After, never a false 202; decisions go on; all recovers by
    itself.
    """
    with serving(with_limits(serving_copy(trained_workspace, tmp_path / "shop"))) as live:
        calls = fails_and_recovers(live, no_file_may_grow(live))
        metrics = live.metrics()
    assert (
        sum(value for name, value in metrics.items() if name.startswith("opportune_event_log_unavailable_total")) > 20
    )
    assert metrics['opportune_events_total{result="stored"}'] >= len(calls.acknowledged)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "none", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not a byte is free, but what is freed meanwhile."""
    with tempfile.NamedTemporaryFile(dir=disk) as ballast:
        with contextlib.suppress(OSError):
            while True:
                os.write(ballast.fileno(), bytes(1 << 16))
        yield


@pytest.mark.skipif(shutil.which("mount") is None, reason="there is no mount")
def test_disk_is_full(trained_workspace: Path, small_disk: Path) -> None:
    """The same on a file system that is really full, with everything that the service writes on it."""
    with serving(with_limits(serving_copy(trained_workspace, small_disk / "shop"))) as live:
        fails_and_recovers(live, filled(small_disk))


@contextlib.contextmanager
def failing_syncs(live: Live) -> Iterator[None]:
    """Whatever the workers sync, the disk says EIO."""
    (process,) = live.serving()
    command = [
        "strace",
        "-f",
        "-q",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync,fdatasync,msync",
        "-e",
        "inject=fsync,fdatasync,msync:error=EIO",
    ]
    with subprocess.Popen([*command, "-p", str(process)], stderr=subprocess.PIPE) as tracer:
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)


def may_trace() -> str:
    """Why system calls of another process cannot be made to fail here; empty where they can."""
    if shutil.which("strace") is None:
        return "there is no strace"
    with subprocess.Popen(["sleep", "20"]) as asleep:
        tried = subprocess.run(
            ["timeout", "-s", "INT", "1", "strace", "-q", "-p", str(asleep.pid)], capture_output=True, check=False
        )
        asleep.kill()
    return tried.stderr.decode().strip() if b"ptrace" in tried.stderr else ""


def test_syncs_that_fail(trained_workspace: Path, tmp_path: Path) -> None:
    """When the disk refuses to make anything durable, no event is acknowledged; decisions go on; all recovers by
    itself.
    """
    if why := may_trace():
        pytest.skip(why)
    with serving(serving_copy(trained_workspace, tmp_path / "shop")) as live:
        fails_and_recovers(live, failing_syncs(live))


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
