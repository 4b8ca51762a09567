"""A load generator in one process: open loop at a constant rate, or closed loop, over raw non-blocking sockets.

In the open loop a request has a time at which it is due, whether or not the server keeps up; its latency counts from
then (no coordinated omission). What was due and never answered is an infinite latency. Keep-alive, one request in
flight a connection.

    python -m benchmarks.load < plan.json > outcome.json

The load may not share a process with anything else: `run` starts it, and `lateness` tells how late it was itself.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import msgspec
import numpy as np

ROOT = Path(__file__).parents[1]
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
GRACE_SECONDS = 5.0
"""How long answers that were asked for in time may still arrive."""
KEPT_MAX = 20_000
_PR_SET_TIMERSLACK = 29


class Plan(msgspec.Struct, frozen=True):
    """What is asked, how often, for how long. `rate` in requests a second; None is the closed loop."""

    port: int
    bodies: str
    """File with one JSON body a line; they are sent in turn."""
    connections: int
    seconds: float
    rate: float | None = None
    keep_every: int = 0
    """Every so many answers one is kept whole, for the oracle; 0 keeps none."""
    path: str = "/v1/decisions"
    warm_seconds: float = 0.0
    """Time at the start that is not counted."""
    timings: bool = False
    """Keep the Server-Timing of every answer."""


class Kept(msgspec.Struct):
    """An answer as it came."""

    request: str
    status: int
    body: str


class Outcome(msgspec.Struct):
    """What came of a plan. Latencies are milliseconds, in the order of the requests; -1 is never."""

    sent: int
    seconds: float
    latencies: list[float]
    refused: int
    """Answers that are not successes."""
    lateness: list[float]
    """Milliseconds that the generator itself sent late, though a connection was free."""
    kept: list[Kept]
    timings: list[str]
    is_first: bool = False
    """Whether the generator came before all others on its core, see `go_first`."""

    def percentiles(self) -> dict[str, float]:
        """p50, p90, p99, p99.9 in milliseconds; infinite where too many were never answered.

        Raises:
            ValueError: nothing was sent, so nothing was measured.
        """
        return percentiles(self.latencies)

    @property
    def per_second(self) -> float:
        return sum(latency >= 0 for latency in self.latencies) / self.seconds


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Nearest-rank percentiles, so that each is a latency that occurred."""
    if not latencies:
        raise ValueError("expected latencies, got none: a check that ran nothing has failed")
    ordered = np.sort([np.inf if latency < 0 else latency for latency in latencies])
    return {
        f"p{part:g}": float(ordered[min(len(ordered) - 1, int(np.ceil(part / 100 * len(ordered))) - 1)])
        for part in PERCENTILES
    }


def run(plan: Plan) -> Outcome:
    """Run a plan in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load"]
    limit = plan.warm_seconds + plan.seconds + GRACE_SECONDS + 20
    found = subprocess.run(
        command, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, cwd=ROOT, timeout=limit, check=True
    )
    return msgspec.json.decode(found.stdout, type=Outcome)


class _Connection:
    """One keep-alive connection; `number` is the request that it waits for, -1 when it is free."""

    __slots__ = ("begun", "buffer", "need", "number", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.buffer, self.need, self.number, self.begun = b"", 0, -1, 0.0

    def fileno(self) -> int:
        return self.socket.fileno()

    def ask(self, request: bytes, number: int) -> None:
        self.number, self.buffer, self.need = number, b"", 0
        if self.socket.send(request) != len(request):
            raise ConnectionError("expected a request to fit the socket's buffer")

    def answered(self) -> bool:
        """Take what arrived; True when the answer is whole."""
        part = self.socket.recv(262_144)
        if not part:
            raise ConnectionError("the server closed a connection in the middle")
        self.buffer += part
        if not self.need:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return False
            fields = self.buffer[:head].lower()
            at = fields.find(b"content-length:")
            if at < 0:
                raise ConnectionError("expected a content-length in the answer")
            self.need = head + 4 + int(fields[at + 15 :].split(b"\r\n", 1)[0])
        return len(self.buffer) >= self.need


class _Generator:
    """State of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.bodies = Path(plan.bodies).read_text().splitlines()
        head = (
            f"POST {plan.path} HTTP/1.1\r\nhost: 127.0.0.1:{plan.port}\r\ncontent-type:"
            " application/json\r\ncontent-length: "
        )
        self.requests = [f"{head}{len(body.encode())}\r\n\r\n{body}".encode() for body in self.bodies]
        self.free = deque(_Connection(plan.port) for _ in range(plan.connections))
        self.busy: list[_Connection] = []
        self.due: list[float] = []
        self.latencies: list[float] = []
        self.outcome = Outcome(0, plan.seconds, [], 0, [], [], [])

    def run(self) -> Outcome:
        clock = time.perf_counter
        start = clock() + 0.01
        end, rate = start + self.plan.warm_seconds + self.plan.seconds, self.plan.rate
        total = None if rate is None else int((end - start) * rate)
        lateness = self.outcome.lateness
        exhausted = True
        while True:
            now = clock()
            while self.free:
                number = len(self.due)
                if total is None:
                    if now >= end:
                        break
                    due = now
                else:
                    due = start + number / (rate or 1.0)
                    if number >= total or due > now:
                        break
                    if not exhausted:  # a connection was free all along: the delay is ours
                        lateness.append((now - due) * 1e3)
                self.due.append(due)
                self.latencies.append(-1.0)
                connection = self.free.popleft()  # in turn, so that none idles until the server closes it
                connection.ask(self.requests[number % len(self.requests)], number)
                self.busy.append(connection)
            asked_all = now >= end if total is None else len(self.due) >= total
            if (asked_all and not self.busy) or now > end + GRACE_SECONDS:
                break
            wait = (
                GRACE_SECONDS
                if asked_all or not self.free or total is None
                else max(0.0, start + len(self.due) / (rate or 1.0) - clock())
            )
            exhausted = not self.free
            for connection in select.select(self.busy, (), (), wait)[0]:
                if connection.answered():
                    self._take(connection, clock())
        return self._finished(start, total)

    def _take(self, connection: _Connection, now: float) -> None:
        number, plan, outcome = connection.number, self.plan, self.outcome
        self.latencies[number] = (now - self.due[number]) * 1e3
        if connection.buffer[9:10] != b"2":
            outcome.refused += 1
        if plan.keep_every and number % plan.keep_every == 0 and len(outcome.kept) < KEPT_MAX:
            body = connection.buffer[connection.buffer.find(b"\r\n\r\n") + 4 :].decode()
            outcome.kept.append(Kept(self.bodies[number % len(self.bodies)], int(connection.buffer[9:12]), body))
        if plan.timings and now >= self.due[0] + plan.warm_seconds:
            head = connection.buffer[: connection.buffer.find(b"\r\n\r\n")].lower()
            at = head.find(b"server-timing:")
            if at >= 0:
                outcome.timings.append(head[at + 14 :].split(b"\r\n", 1)[0].decode().strip())
        self.busy.remove(connection)
        self.free.append(connection)

    def _finished(self, start: float, total: int | None) -> Outcome:
        """Counts what was due after the warm-up; what could not even be sent was due too."""
        outcome, warm = self.outcome, start + self.plan.warm_seconds
        outcome.latencies = [latency for latency, due in zip(self.latencies, self.due, strict=True) if due >= warm]
        outcome.latencies += [-1.0] * ((total or len(self.due)) - len(self.due))
        outcome.sent = len(outcome.latencies)
        return outcome


def go_first() -> bool:
    """Real-time priority for this process, where the system grants it: whether it did.

    A client on another machine does not wait until the server leaves it a core. What the generator itself takes from
    the server's cores is little, and is charged to the server.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, PermissionError):
        return False
    return True


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    is_first = plan.rate is not None and go_first()
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # the kernel may wake us 50 us late otherwise
    generator = _Generator(plan)
    gc.disable()
    outcome = generator.run()
    outcome.is_first = is_first
    sys.stdout.buffer.write(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main()
