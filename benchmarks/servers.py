"""The servers that are compared: each a process tree of its own on a loopback port, started cold, watched and ended by
its id.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from features.workspace.workspace import Workspace
from tests.stores import free_port

ROOT = Path(__file__).parents[1]
START_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 15.0
POLL_SECONDS = 0.02


class NotReady(RuntimeError):
    """A server ended, or was not ready in time."""


@dataclass
class Server:
    """A running rival. `start_seconds` is the time from its start until it said that it is ready."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    ready_path: str
    start_seconds: float = field(default=0.0)

    def wait_ready(self) -> None:
        """Raises NotReady with the end of the log."""
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS_MAX:
            if self.process.poll() is not None:
                break
            if self._ready():
                self.start_seconds = time.monotonic() - began
                return
            time.sleep(POLL_SECONDS)
        tail = self.log.read_text(errors="replace")[-2_000:]
        raise NotReady(f"{self.name}: expected readiness within {START_SECONDS_MAX:.0f} s, got:\n{tail}")

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", self.ready_path)
            return connection.getresponse().status < 500
        except OSError:
            return False
        finally:
            connection.close()

    def memory(self) -> dict[str, float]:
        """RSS, PSS and USS in MB of the worker that answers: the largest process of the tree."""
        return max((_memory(pid) for pid in _tree(self.process.pid)), key=lambda found: found["rss"])

    def loop_lag(self) -> dict[float, float]:
        """Of a server of ours: the share of the event loop's timers that woke later than so many seconds; the timer
        counts in ms itself.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        found = re.findall(r'^opportune_loop_lag_seconds_bucket\{le="([^"]+)"\} (\d+)$', text, re.MULTILINE)
        total = int(found[-1][1])
        return {
            float(limit): 1 - int(count) / total for limit, count in found if float(limit) in (1e-3, 2e-3, 5e-3, 1e-2)
        }

    def stop(self) -> None:
        """End it and all that it started, politely first."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own session: nobody else's processes
        except ProcessLookupError:
            pass
        self.process.wait()


def _tree(root: int) -> list[int]:
    found = [root]
    for pid in found:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        if children.exists():
            found += [int(child) for child in children.read_text().split()]
    return found


def _memory(pid: int) -> dict[str, float]:
    kilobytes: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        kilobytes[name.rstrip(":")] = int(value)
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"rss": kilobytes["Rss"] / 1024, "pss": kilobytes["Pss"] / 1024, "uss": private / 1024}


def _start(name: str, command: list[str], port: int, ready_path: str, log: Path, **environment: str) -> Server:
    log.parent.mkdir(parents=True, exist_ok=True)
    home = log.parent / "bentoml"
    home.mkdir(exist_ok=True)
    fixed = {
        "TZ": "UTC",
        "OMP_NUM_THREADS": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(home),
        "FEAST_USAGE": "False",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=dict(os.environ) | fixed | environment,
            start_new_session=True,
        )
    return Server(name, port, process, log, ready_path)


def ours(workspace: Workspace, name: str, workers: int = 1) -> Server:
    """(d): as `opportune serve` starts it."""
    port = free_port()
    environment = {
        "OPPORTUNE_WORKSPACE": str(workspace.folder),
        "OPPORTUNE_WORKERS": str(workers),
        "OPPORTUNE_DRAIN_SECONDS": "0",
    }
    return _start(
        name,
        _bentoml("serving.service:Opportune", port),
        port,
        "/readyz",
        workspace.data / "logs" / "bench.log",
        **environment,
    )


def obvious(workspace: Workspace, name: str, workers: int = 1) -> Server:
    """(c): the obvious composition on the same workspace."""
    port = free_port()
    environment = {"OPPORTUNE_WORKSPACE": str(workspace.folder), "BENCH_WORKERS": str(workers)}
    return _start(
        name,
        _bentoml("benchmarks.obvious:Obvious", port),
        port,
        "/readyz",
        workspace.data / "logs" / "obvious.log",
        **environment,
    )


def bare_echo(answer: Path, name: str, workers: int = 1) -> Server:
    """(a): bare uvicorn, on uvloop and httptools."""
    port = free_port()
    command = [
        "uvicorn",
        "benchmarks.bare_echo:app",
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    return _start(
        name,
        [*command, "--port", str(port), "--workers", str(workers)],
        port,
        "/",
        answer.parent / "bare-echo.log",
        BENCH_ANSWER=str(answer),
    )


def door_echo(answer: Path, name: str, workers: int = 1) -> Server:
    """(b): an echo behind our front door in BentoML."""
    port = free_port()
    environment = {"BENCH_ANSWER": str(answer), "BENCH_WORKERS": str(workers)}
    return _start(
        name,
        _bentoml("benchmarks.door_echo:Echo", port),
        port,
        "/readyz",
        answer.parent / "door-echo.log",
        **environment,
    )


def _bentoml(service: str, port: int) -> list[str]:
    return ["bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]


@contextmanager
def running(*servers: Server) -> Iterator[tuple[Server, ...]]:
    """Servers that are ready; all are ended, whatever happens."""
    try:
        for server in servers:
            server.wait_ready()
        yield servers
    finally:
        for server in servers:
            server.stop()
