"""Probes tell of draining, which a signal to stop begins."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.serving import edge_server as edge
from tests.serving.edge_server import GOOD, post, problem, raw, split
from tests.serving.raw_requests import TYPE, get
from tests.waiting import LIMIT_S


def test_probes_and_draining() -> None:
    """/readyz says why not, and while draining it is 503 and every answer ends its connection; /livez stays 200."""
    reason: list[str | None] = ["No bundle yet."]
    app = edge.front_door(ready=lambda: reason[0])
    with edge.served(app) as port:
        answer = raw(port, get("/readyz"))
        assert problem(answer) == (503, "not-ready")
        assert json.loads(split(answer)[2])["detail"] == "No bundle yet."
        assert split(answer)[1]["retry-after"] == "1"
        reason[0] = None
        assert split(raw(port, get("/readyz")))[0] == 200
        app.drain()
        assert problem(raw(port, get("/readyz"))) == (503, "draining")
        for request in (
            post(GOOD, TYPE, close=False),
            post(b"{", TYPE, close=False),
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ):
            answer = raw(port, request, patience=LIMIT_S)
            assert split(answer)[0] in (200, 400)
            assert b"\r\nconnection: close\r\n" in answer


STOPPING = """
import sys, uvicorn
from serving import uvicorn_protocol
from tests.serving import edge_server as edge
uvicorn_protocol.install()
uvicorn.run(edge.front_door(drain_seconds=1.0), port=int(sys.argv[1]), log_config=None)
"""


def test_sigterm_drains_first() -> None:
    """After SIGTERM the server goes on answering for its grace, ends each connection, says so in /readyz, and then
    exits by itself.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-c", STOPPING, str(port)], cwd=Path(__file__).parents[3])
    try:
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                assert split(raw(port, get("/readyz")))[0] == 200
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
        while split(raw(port, get("/readyz")))[0] == 200:
            assert time.monotonic() < deadline, "the server did not begin to drain"
            time.sleep(0.01)
        assert problem(raw(port, get("/readyz"))) == (503, "draining")
        answer = raw(port, post(GOOD, TYPE, close=False))
        assert split(answer)[0] == 200
        assert b"\r\nconnection: close\r\n" in answer
        assert server.wait(10) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait(10)
