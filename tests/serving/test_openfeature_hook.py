"""What an OpenFeature client tracks is sent again to a busy service, and what is lost is counted."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from openfeature.evaluation_context import EvaluationContext
from openfeature.track import TrackingEventDetails

from tests.serving.openfeature_clients import hook_module

pytestmark = pytest.mark.slow


def test_python_sends_again() -> None:
    """A service that is busy gets the same event again; one that is refused, or a dead letter, is counted as lost."""
    got, answers = list[str](), iter([(503, 0), (429, 0), (202, 0), (401, 0), (202, 1)])

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (event,) = json.loads(self.rfile.read(int(self.headers["content-length"])))["events"]
            got.append(f"{self.path} {event['event_id']}")
            status, dead = next(answers)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps({"dead": dead}).encode())

        def log_message(self, *_: Any) -> None:
            """Nothing: the test looks at what came."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        lost = []
        for name in ("busy", "refused", "dead"):
            provider = hook_module().TrackingProvider(f"http://127.0.0.1:{server.server_port}/")
            provider.track("click", EvaluationContext("7"), TrackingEventDetails(attributes={"event_id": name}))
            provider.shutdown()
            lost.append(provider.lost)
        server.shutdown()
    assert got == ["/v1/events busy"] * 3 + ["/v1/events refused", "/v1/events dead"]
    assert lost == [0, 1, 1]
