"""The processes of a running service: BentoML's server and the background worker, started, watched and stopped
together.
"""

from __future__ import annotations

import fcntl
import http.client
import ipaddress
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from features.common.errors import Failure
from features.common.files import ROOT, make_private
from features.config.model_parameters import main_names
from features.workspace.workspace import Workspace
from pipelines.deploy.addresses import require_free
from pipelines.materialize.steps import Busy
from serving.http.auth import FILE_VARIABLE
from serving.runtime.parent_watch import PARENT_VARIABLE
from serving.settings import KEEP_ALIVE_SECONDS, KEEP_ALIVE_VARIABLE, WORKERS_VARIABLE

START_SECONDS_MAX = 300
"""On a new machine the first start compiles the kernel, beside whatever else the machine does; one that ends is noticed
at once.
"""
STOP_SECONDS_MAX = 15
FINISH_SECONDS_MAX = 8
"""After the drain, requests that are still being answered have so long."""
LOOK_SECONDS = 0.5
RESTART_SECONDS, RESTART_SECONDS_MAX = 1.0, 60.0
"""A background worker that ends is started again after so long; each time after twice as long."""
TAIL_LINES = 12
LEAVES_USUAL = 31
"""What LightGBM takes for `num_leaves` where a model.yaml says nothing."""


class ServerFailed(Failure):
    """The server did not become ready, or ended."""


@contextmanager
def only_one(workspace: Workspace) -> Iterator[None]:
    """Be the only `opportune up` of a workspace: two would refresh its features against each other.

    Raises:
        Busy: another one runs.
    """
    make_private(workspace.data)
    with (workspace.data / "up.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            who = file.read().strip()
            raise Busy(
                f"another `opportune up` runs on {workspace.folder} ({f'process {who}' if who else 'a process'}): "
                "end it first, or start one more server beside it with `opportune serve --port`"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@dataclass
class Running:
    """Processes that belong together; what one of them says goes to its own log file."""

    workspace: Workspace
    port: int
    host: str = "127.0.0.1"
    """An IP address."""
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS
    output: int | None = None
    """A file descriptor that all of them write their logs to; None: each has a file of its own."""
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _restart_at: float = 0.0
    _restart_seconds: float = RESTART_SECONDS

    @property
    def base(self) -> str:
        """Return the address for people; all addresses are shown as this machine."""
        host = self._reachable()
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def _reachable(self) -> str:
        address = ipaddress.ip_address(self.host)
        return ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else self.host

    def log(self, name: str) -> Path:
        return self.workspace.data / "logs" / f"{name}.log"

    def start(self, name: str, command: list[str], **environment: str) -> None:
        """Start a child in a session of its own, so that Ctrl-C reaches it through us alone; it ends when we are
        gone.
        """
        with self.log(name).open("ab") if self.output is None else os.fdopen(os.dup(self.output), "ab") as log:
            self.children[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=_environment(self.workspace) | environment,
                start_new_session=True,
            )

    def start_server(self, workers: int) -> None:
        """Start BentoML's own command, which brings supervision, workers and graceful stop."""
        require_free(self.host, self.port)
        self._new_log("server")
        command = [
            sys.executable,
            "-m",
            "bentoml",
            "serve",
            "serving.service:Opportune",
            "--host",
            self.host,
            "--port",
            str(self.port),
        ]
        settings = {WORKERS_VARIABLE: str(workers), KEEP_ALIVE_VARIABLE: f"{self.keep_alive_seconds:g}"}
        self.start("server", [*command, "--timeout-graceful-shutdown", str(FINISH_SECONDS_MAX)], **settings)

    def start_worker(self) -> None:
        """Start the background worker."""
        self._new_log("worker")
        self._spawn_worker()

    def _spawn_worker(self) -> None:
        self.start("worker", [sys.executable, "-m", "pipelines.worker", str(self.workspace.folder)])

    def _new_log(self, name: str) -> None:
        """Begin a log for this start; keep the one before."""
        if self.output is not None:
            return
        file = self.log(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            file.replace(file.with_suffix(".before.log"))

    def wait_ready(self) -> None:
        """Return when the server says it is ready.

        Raises:
            ServerFailed: it ended, or is not ready in time; with the last lines of its log.
        """
        deadline = time.monotonic() + START_SECONDS_MAX
        said = "nothing"
        while time.monotonic() < deadline:
            self._require_server()
            status, body = self.ask("GET", "/readyz")
            if status == 200:
                return
            said = body.decode(errors="replace")[:300] or said
            time.sleep(0.1)
        raise ServerFailed(
            f"expected the server to be ready within {START_SECONDS_MAX} s, got: {said}\n{self.tail('server')}"
        )

    def _require_server(self) -> None:
        if self.children["server"].poll() is not None:
            raise ServerFailed(
                "expected the server to run, got its end; the last lines of"
                f" {self.log('server')}:\n{self.tail('server')}"
            )

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Send one request to the server; return status and body, status 0 when it does not answer."""
        connection = http.client.HTTPConnection(self._reachable(), self.port, timeout=5)
        try:
            content = None if body is None else msgspec.json.encode(body)
            connection.request(method, path, content, {} if content is None else {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def tail(self, name: str) -> str:
        """Return the last lines that a child has said."""
        try:
            if self.output is not None:
                return "(above)"
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-TAIL_LINES:])
        except OSError:
            return "(no log)"

    def wait(self) -> None:
        """Watch over the children; returns only by raising.

        Raises:
            ServerFailed: the server ended. A background worker that ends is started again.
        """
        while True:
            self._require_server()
            self._revive_worker()
            time.sleep(LOOK_SECONDS)

    def _revive_worker(self) -> None:
        worker = self.children.get("worker")
        if worker is None or worker.poll() is None:
            return
        now = time.monotonic()
        if not self._restart_at:
            self._restart_at = now + self._restart_seconds
            self._restart_seconds = min(2 * self._restart_seconds, RESTART_SECONDS_MAX)
        elif now >= self._restart_at:
            self._restart_at = 0.0
            self._spawn_worker()

    def stop(self) -> None:
        """End all children: asked first, killed when they do not listen. What they have started ends with them."""
        for child in self.children.values():
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS_MAX
        for child in self.children.values():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


@contextmanager
def warming(workspace: Workspace, *, wanted: bool) -> Iterator[Callable[[], None]]:
    """Compile the server's code in a process beside the block, if it is wanted; the function that is yielded waits for
    it.

    A process that fails costs nothing but time: whoever needs the code compiles it. So does a model of other trees than
    expected.
    """
    if not wanted:
        yield lambda: None
        return
    leaves_max = main_names(workspace.model.parameters).get("num_leaves", LEAVES_USUAL)
    command = [sys.executable, "-m", "serving.precompile", str(leaves_max)]
    nowhere = subprocess.DEVNULL
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environment(workspace),
        stdin=nowhere,
        stdout=nowhere,
        stderr=nowhere,
        start_new_session=True,
    )

    def wait() -> None:
        child.wait()

    try:
        yield wait
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def _environment(workspace: Workspace) -> dict[str, str]:
    """Return what a child may see: ours, one thread for numerics, BentoML's own files inside the data folder, and no
    telemetry.
    """
    home = workspace.data / "bentoml"
    home.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ) | {
        "OPPORTUNE_WORKSPACE": str(workspace.folder.resolve()),
        "TZ": "UTC",
        "OMP_NUM_THREADS": "1",
        "BENTOML_HOME": str(home.resolve()),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONUNBUFFERED": "1",
        PARENT_VARIABLE: str(os.getpid()),
    }
    if environment.get(FILE_VARIABLE):  # named from where the user stands; a child stands elsewhere
        environment[FILE_VARIABLE] = str(Path(environment[FILE_VARIABLE]).resolve())
    return environment
