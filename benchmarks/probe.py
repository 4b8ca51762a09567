"""A probe: while a load runs, a connection of its own asks now and then and keeps the answers, which are checked
afterwards.
"""

from __future__ import annotations

import http.client
import threading
from types import TracebackType

from benchmarks.load import Kept

EVERY_SECONDS = 0.1
KEPT_MAX = 200


class Probe:
    """Use as a context; `kept` holds what was answered, `lost` how many requests were not."""

    def __init__(self, port: int, bodies: list[str], step: int = 7_919) -> None:
        self.port, self.kept, self.lost = port, list[Kept](), 0
        self._bodies, self._step = bodies, step
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(15)

    def _run(self) -> None:
        connection, at = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10), 0
        while True:
            at = (at + self._step) % len(self._bodies)
            try:
                connection.request("POST", "/v1/decisions", self._bodies[at], {"content-type": "application/json"})
                answer = connection.getresponse()
                self.kept.append(Kept(self._bodies[at], answer.status, answer.read().decode()))
            except OSError:
                self.lost += 1
                connection.close()
            if len(self.kept) >= KEPT_MAX or self._stop.wait(EVERY_SECONDS):
                break
        connection.close()
