"""Connections without a request: how long they stay open, and that a balancer closes first."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from features.events.journal import read_lines
from features.validation.load import load
from serving import settings
from serving.journal.files import OPEN, SEALED
from tests.serving import edge_server as edge
from tests.serving.live import Live, idle_seconds
from tests.trained import copy_of

BALANCER_SECONDS = 60.0
"""For which AWS, Google Cloud, nginx and HAProxy keep an idle connection to a server, or less."""


def test_the_default_outlives_balancers() -> None:
    """A balancer that keeps connections as usual is the first to close."""
    assert settings.KEEP_ALIVE_SECONDS > BALANCER_SECONDS


def test_idle_connections_are_closed_after_the_setting() -> None:
    """Over a socket: not before, and every request begins the time anew."""
    with edge.served(edge.front_door(), keep_alive_seconds=0.6) as port:
        assert 0.55 < idle_seconds(port) < 5
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            begun = time.monotonic()
            for _ in range(5):
                connection.sendall(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
                time.sleep(0.2)
            assert time.monotonic() - begun > 0.6


@pytest.mark.slow
def test_serve_takes_the_option(trained_workspace: Path, tmp_path: Path) -> None:
    """`opportune serve --keep-alive` reaches the workers, and goes before the environment; what it prints at its start
    decides for nobody.
    """
    folder = copy_of(trained_workspace, tmp_path / "shop")
    environment = {settings.KEEP_ALIVE_VARIABLE: "600"}
    verb = (
        sys.executable,
        "-m",
        "pipelines.main",
        "serve",
        "-w",
        str(folder),
        "--port",
        "{port}",
        "--keep-alive",
        "1.5",
    )
    live = Live(folder, command=verb, environment=environment).start()
    try:
        assert 1.4 < idle_seconds(live.port) < 300
    finally:
        live.stop()
    journals = [file for file in (load(folder).data / "journal").iterdir() if file.is_file()]
    assert journals and not [line for file in journals if file.suffix in (OPEN, SEALED) for line in read_lines(file)]
