"""The processes of a running service: BentoML's server and the background worker, started, watched and stopped together."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from features.failures import Failure
from features.workspace import Workspace

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 15
ROOT = Path(__file__).parents[1]


class ServerFailed(Failure):
    """The server did not become ready, or ended."""


@dataclass
class Running:
    """Processes that belong together; what one of them says goes to its own log file."""

    workspace: Workspace
    port: int
    host: str = "127.0.0.1"
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def log(self, name: str) -> Path:
        return self.workspace.data / "logs" / f"{name}.log"

    def start(self, name: str, command: list[str], **environment: str) -> None:
        """Start a child in a session of its own, so that Ctrl-C reaches it through us alone."""
        file = self.log(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as log:
            self.children[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT, env=_environment(self.workspace) | environment, start_new_session=True
            )

    def start_server(self, workers: int) -> None:
        """BentoML's own command serves: supervision, workers and graceful stop are its."""
        command = [sys.executable, "-m", "bentoml", "serve", "serving.service:Opportune", "--host", self.host, "--port", str(self.port)]
        self.start("server", command, OPPORTUNE_WORKERS=str(workers))

    def start_worker(self) -> None:
        self.start("worker", [sys.executable, "-m", "pipelines.worker", str(self.workspace.folder)])

    def wait_ready(self) -> None:
        """Return when the server says it is ready.

        Raises:
            ServerFailed: it ended, or is not ready in time; with the last lines of its log.
        """
        deadline = time.monotonic() + START_SECONDS_MAX
        said = "nothing"
        while time.monotonic() < deadline:
            if self.children["server"].poll() is not None:
                raise ServerFailed(f"expected the server to run, got its end:\n{self.tail('server')}")
            status, body = self.ask("GET", "/readyz")
            if status == 200:
                return
            said = body.decode(errors="replace")[:300] or said
            time.sleep(0.1)
        raise ServerFailed(f"expected the server to be ready within {START_SECONDS_MAX} s, got: {said}\n{self.tail('server')}")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """One request to the server; status 0 when it does not answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            content = None if body is None else msgspec.json.encode(body)
            connection.request(method, path, content, {} if content is None else {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def tail(self, name: str, lines: int = 12) -> str:
        try:
            return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    def wait(self) -> None:
        """Return when the server ends; a background worker that ends is started again."""
        while self.children["server"].poll() is None:
            worker = self.children.get("worker")
            if worker is not None and worker.poll() is not None:
                time.sleep(1)
                self.start_worker()
            time.sleep(0.5)
        raise ServerFailed(f"expected the server to run, got its end:\n{self.tail('server')}")

    def stop(self) -> None:
        """End all children: asked first, killed when they do not listen."""
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


def _environment(workspace: Workspace) -> dict[str, str]:
    """What a child may see: ours, one thread for numerics, BentoML's own files inside the data folder, and no telemetry."""
    home = workspace.data / "bentoml"
    home.mkdir(parents=True, exist_ok=True)
    return dict(os.environ) | {
        "OPPORTUNE_WORKSPACE": str(workspace.folder.resolve()),
        "TZ": "UTC",
        "OMP_NUM_THREADS": "1",
        "BENTOML_HOME": str(home.resolve()),
        "BENTOML_DO_NOT_TRACK": "True",
        "PYTHONUNBUFFERED": "1",
    }
