"""A real server for tests: `opportune serve` with BentoML's supervisor and workers below it, and clients that load
it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from features.validation.load import load
from serving.settings import DRAIN_VARIABLE
from tests.environment import without_settings
from tests.stores import free_port
from tests.waiting import LIMIT_S, until
from training.bundle import bundle

ROOT = Path(__file__).parents[2]
READY_SECONDS_MAX = 300
COMPILES_SECONDS_MAX = 600
"""Where machine code is made anew, or a model is trained, on a machine that has other work."""
JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    """Status 0: no answer came; then the body says why."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    connection: http.client.HTTPConnection | None = None,
    **headers: str,
) -> Answer:
    """One request; `body` is bytes as they are, or something to encode. A connection that is given is kept."""
    begun = time.perf_counter()
    made = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
    fields = (JSON if content is not None else {}) | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        made.request(method, path, content, fields)
        answer = made.getresponse()
        return Answer(
            answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read(), time.perf_counter() - begun
        )
    except (OSError, http.client.HTTPException) as error:
        made.close()
        return Answer(0, {}, f"{type(error).__name__}: {error}".encode(), time.perf_counter() - begun)
    finally:
        if connection is None:
            made.close()


@dataclass
class Live:
    """A server on a free loopback port over a workspace; ended by `stop`, whatever a test has done to it."""

    workspace: Path
    workers: int = 1
    environment: dict[str, str] = field(default_factory=dict)
    port: int = 0
    command: tuple[str, ...] = ()
    """Instead of `opportune serve`; `{port}` stands for the port."""
    ready_seconds_max: float = READY_SECONDS_MAX
    process: subprocess.Popen[bytes] | None = None
    _output: Path | None = None
    _said: str = ""
    _met: dict[int, psutil.Process] = field(default_factory=dict)

    def start(self) -> Live:
        """Start and wait until it is ready."""
        self.port = self.port or free_port()
        verb = ("serve", "-w", str(self.workspace), "--port", str(self.port), "--workers", str(self.workers))
        command = [part.format(port=self.port) for part in self.command] or [
            sys.executable,
            "-m",
            "pipelines.main",
            *verb,
        ]
        environment = without_settings() | {DRAIN_VARIABLE: "0.2"} | self.environment
        with tempfile.NamedTemporaryFile(delete=False) as output:  # not a pipe: nobody reads while it runs
            self._output = Path(output.name)
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(
                lambda: self.process.poll() is not None or ask(self.port, "GET", "/readyz").status == 200,
                self.ready_seconds_max,
            )
            assert self.process.poll() is None, f"the server ended: {self.said}"
            wait_for(lambda: len(self.serving()) == self.workers)
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def said(self) -> str:
        """What it wrote so far."""
        if self._output is not None and self._output.exists():
            self._said = self._output.read_text(errors="replace")
        return self._said

    def tree(self) -> list[psutil.Process]:
        """All processes below ours, remembered for `stop`."""
        if self.process is None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._met[child.pid] = child
        return [child for child in self._met.values() if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]

    def serving(self) -> list[int]:
        """Process ids of the workers that answer requests."""
        return [child.pid for child in self.tree() if "_bentoml_impl.worker.service" in _command(child)]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return ask(self.port, method, path, body, **headers)

    def decide(self, customer: str = "436600000", **fields: Any) -> Any:
        """The answer to one decision, which must be a success."""
        answer = self.ask("POST", "/v1/decisions", decision(customer, **fields))
        assert answer.status == 200, answer
        return answer.json

    def metrics(self) -> dict[str, float]:
        """Every series, by its name with labels, as Prometheus would read it."""
        answer = self.ask("GET", "/metrics")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, see that it and all below it do; the exit status."""
        assert self.process is not None
        left = self.tree()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(30)
            _, alive = psutil.wait_procs(left, 10)
            assert not alive, f"still run after the stop: {alive}"
        finally:
            for child in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            _ = self.said  # kept before its file goes
            if self._output is not None:
                self._output.unlink(missing_ok=True)
        if self.process.returncode:
            print(self.said)  # shown where a test fails over it
        return self.process.returncode


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def decision(customer: str = "436600000", **fields: Any) -> dict[str, Any]:
    """A request that the workspaces of `tests.workspaces` understand."""
    return {"customer_id": customer, "placement": "home", "context": {"channel": "app", "hour": 18}} | fields


def idle_seconds(port: int) -> float:
    """Ask once, then wait until the server closes the connection; for how long it was idle."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        begun = time.monotonic()
        while connection.recv(65_536):
            pass
        return time.monotonic() - begun


def wait_for(truth: Callable[[], bool], seconds: float = LIMIT_S, what: str = "what was waited for") -> float:
    """Return once it is true, with the seconds that it took; fail after a limit that a busy machine keeps."""
    return until(truth, what, seconds, every_s=0.05)


@contextlib.contextmanager
def load_on(port: int, connections: int = 4, pause: float = 0.002) -> Iterator[list[Answer]]:
    """Clients that go on asking for decisions over kept connections; yields what they have got so far."""
    seen: list[Answer] = []
    ended = threading.Event()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        turn = 0
        while not ended.wait(pause):
            turn += 1
            seen.append(
                ask(port, "POST", "/v1/decisions", decision(f"436{600_000 + (number * 37 + turn) % 300}"), connection)
            )
        connection.close()

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(connections)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)


def serving_copy(workspace: Path, target: Path) -> Path:
    """What a server needs of a workspace, to change or damage; no lake, no registry."""
    import shutil

    target.mkdir(parents=True)
    for file in workspace.glob("*.yaml"):
        shutil.copy(file, target)
    made, data = load(target, sources=False), load(workspace, sources=False).data
    for name in ("bundles", "online"):
        shutil.copytree(data / name, made.data / name)
    for file in data.glob("*.json"):
        shutil.copy(file, made.data)
    return target


def another_bundle(workspace: Path, version: str, shift: float = 0.3) -> Path:
    """A second bundle beside the one that serves: the same forest with another calibration, not switched to yet."""
    made = load(workspace, sources=False)
    place = bundle.current(made.bundles)
    assert place is not None
    found = bundle.read(place)
    calibration = type(found.calibration)("sigmoid", 1.0, shift)
    golden = [
        msgspec.structs.replace(case, propensities=calibration.probabilities(bundle.numbers(list(case.raw))).tolist())
        for case in found.golden
    ]
    contents: dict[str, bytes | Path] = {name: place / name for name in bundle.FILES}
    contents |= {"calibration.json": msgspec.json.encode(calibration), "golden.json": msgspec.json.encode(golden)}
    return bundle.write(made.bundles, contents, msgspec.structs.replace(found.manifest, version=version, files={}))
