"""The closed loop: wrk where it is installed, else our own generator, which costs more itself; the report says
which.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from benchmarks import load

SCRIPT = Path(__file__).parent / "post.lua"
HOW_TO_GET = "wrk is not installed (Debian, Ubuntu: apt-get install wrk; macOS: brew install wrk)"
_MARK = "BENCH "


class Result(msgspec.Struct, frozen=True, rename={"p999": "p99.9"}):
    """Latencies in milliseconds. `failed` counts errors and answers whose status is not 2xx."""

    requests: int
    seconds: float
    failed: int
    p50: float
    p90: float
    p99: float
    p999: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class LoadFailed(RuntimeError):
    """The load did not run as planned: nothing was measured, or answers were errors."""


def generator() -> str:
    """What makes the closed-loop load, with its version."""
    program = shutil.which("wrk")
    if program is None:
        return f"own (benchmarks/load.py); {HOW_TO_GET}"
    return (
        subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
        .stdout.split("\n")[0]
        .split("[")[0]
        .strip()
    )


def run(port: int, bodies: Path, connections: int, seconds: float) -> Result:
    """Ask as fast as answers come.

    Raises:
        LoadFailed: no answer came, or one was an error.
    """
    result = (
        _wrk(port, bodies, connections, seconds) if shutil.which("wrk") else _own(port, bodies, connections, seconds)
    )
    if not result.requests or result.failed:
        raise LoadFailed(
            f"expected answers without errors from port {port}, got {result.requests} with {result.failed} errors"
        )
    return result


def _wrk(port: int, bodies: Path, connections: int, seconds: float) -> Result:
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{max(1, round(seconds))}s",
        "--timeout",
        "10s",
        "-s",
        str(SCRIPT),
        f"http://127.0.0.1:{port}/v1/decisions",
    ]
    found = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
        env=dict(os.environ) | {"BENCH_BODIES": str(bodies)},
    )
    marked = [line for line in found.stdout.splitlines() if line.startswith(_MARK)]
    if not marked:
        raise LoadFailed(f"expected an outcome of wrk, got: {(found.stderr or found.stdout)[-500:]}")
    return msgspec.json.decode(marked[0].removeprefix(_MARK), type=Result)


def _own(port: int, bodies: Path, connections: int, seconds: float) -> Result:
    outcome = load.run(load.Plan(port, str(bodies), connections, seconds))
    found = outcome.percentiles()
    unanswered = sum(latency < 0 for latency in outcome.latencies)
    return Result(
        outcome.sent,
        outcome.seconds,
        outcome.refused + unanswered,
        found["p50"],
        found["p90"],
        found["p99"],
        found["p99.9"],
    )
