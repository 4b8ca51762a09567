"""A service whose processes are killed and born again within a quarter of a second: they are forked from one that has
imported everything.

Run as a program it is that one. Servers are workers of the real service, `serving.worker.Worker`, under uvicorn; only
BentoML, its supervisor and its own routes are left out. All listen on one socket, which outlives them: who connects
while all are dead is answered by the next. The third kind does what the background worker does, in the same order and
without its pauses.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.environment import without_settings

SERVER, BACKGROUND = "server", "background"
ROOT = Path(__file__).parents[2]
STOP_SECONDS_MAX = 120.0
BEHIND_SECONDS = 0.05
"""Between two turns of the background worker."""


class Nursery:
    """Forks processes of a service over a workspace, and kills them.

    Attributes:
        alive: kind of each process that was not killed, by its id.
        killed: how many were.
    """

    def __init__(self, workspace: Path, log: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.alive: dict[int, str] = {}
        self.killed = 0
        self.log = log
        environment = without_settings() | {"OMP_NUM_THREADS": "1"}
        handle = self._listener.fileno()
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.forked_service", str(handle), str(workspace)],
                cwd=ROOT, env=environment, pass_fds=[handle], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=said, text=True,
            )  # fmt: skip
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the nursery ended: {self.log.read_text()[-2_000:]}"
        return line.strip()

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def bear(self, kind: str) -> int:
        """Fork a process; returns at once with its id."""
        born = int(self._ask(kind))
        self.alive[born] = kind
        return born

    def end(self, processes: list[int], number: int = signal.SIGKILL) -> list[int]:
        """Send all of them a signal and wait until they are gone; their exit codes, -9 of one that was killed."""
        codes = [int(code) for code in self._ask(f"end {int(number)} {' '.join(map(str, processes))}").split()]
        for process in processes:
            del self.alive[process]
        self.killed += codes.count(-signal.SIGKILL)
        return codes

    def close(self) -> None:
        """Kill what lives, and the nursery."""
        try:
            if self.alive and self._process.poll() is None:
                self.end(list(self.alive))
        finally:
            self._process.kill()
            self._process.communicate()
            self._listener.close()


@contextlib.contextmanager
def nursery(workspace: Path, log: Path) -> Iterator[Nursery]:
    """One that is closed in the end."""
    made = Nursery(workspace, log)
    try:
        yield made
    finally:
        made.close()


# What follows runs in the forked processes
# ---------------------------------------------------------------------------------


def serve(listener: socket.socket, workspace: Path) -> None:
    """A worker of the server, until SIGTERM."""
    import uvicorn

    from serving import uvicorn_protocol
    from serving.http.routing import Receive, Scope, Send
    from serving.settings import Settings
    from serving.worker import Worker

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan", "nothing is passed through to BentoML here"
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})

    uvicorn_protocol.install()
    app = Worker(Settings(workspace, drain_seconds=0.0, watch_seconds=0.2)).door(inner)
    uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_keep_alive=5)).run(sockets=[listener])


def work(_: socket.socket, workspace: Path) -> None:
    """Ships, refreshes and merges, again and again."""
    from features.common.errors import Failure
    from features.common.timestamps import now
    from features.validation.load import load
    from pipelines import worker
    from pipelines.shipping import compact, ship

    made = load(workspace, sources=False)
    turns: tuple[Callable[[], object], ...] = (
        lambda: ship.ship(made),
        lambda: compact.compact(made, now()),
        lambda: worker.refresh_changed(made),
    )
    while True:
        for turn in turns:
            try:
                turn()
            except (Failure, OSError) as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            time.sleep(BEHIND_SECONDS)


def main() -> None:
    """Forks one for each line that names a kind, and ends those that a line names by their ids."""
    listener, workspace = socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2])

    import serving.worker  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        what, *rest = line.split()
        if what == "end":
            number, *processes = map(int, rest)
            for process in processes:
                os.kill(process, number)
            print(*(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes), flush=True)
            continue
        born = os.fork()
        if not born:
            os.dup2(2, 1)  # what the nursery says is not for its children to say
            os.close(0)
            try:
                {SERVER: serve, BACKGROUND: work}[what](listener, workspace)
            finally:
                os._exit(0 if sys.exc_info()[0] is None else 1)
        print(born, flush=True)


if __name__ == "__main__":
    main()
