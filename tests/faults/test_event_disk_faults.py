"""A running service whose disk is full or fails takes no event that it cannot keep, goes on deciding, and recovers by
itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.event_service import RECOVERED_SECONDS_MAX, Calls, refused, serving
from tests.faults.loss_accounting import (
    loaded_again,
    log_of,
    with_limits,
)
from tests.serving.live import Live, serving_copy, wait_for

SMALL_DISK_BYTES = 256 << 20


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
