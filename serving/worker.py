"""One worker process of the server: workspace, desk, decisions and front door, put together."""

from __future__ import annotations

import asyncio
import logging
import sys

from features.workspace import load
from serving import leash, memory
from serving.desk import Desk
from serving.journal import Journal
from serving.keys import Keys
from serving.lane import Lane
from serving.metrics import Metrics, memory_directory
from serving.routes import AsgiApp, Receive, Scope, Send
from serving.routes_v1 import Decisions
from serving.settings import Settings

SWITCH_SECONDS = 0.0002


class Worker:
    """What one process holds; all of it is loaded and rehearsed before the process takes requests."""

    def __init__(self, settings: Settings) -> None:
        _log_to_standard_error()
        leash.end_with_parent()
        self.settings = settings
        # The journal's and other helpers' threads may hold the interpreter for so long while a request waits; 5 ms is Python's own.
        sys.setswitchinterval(SWITCH_SECONDS)
        self.workspace = load(settings.workspace, sources=False)
        self.metrics = Metrics()
        self.desk = Desk(self.workspace, watch_seconds=settings.watch_seconds)
        self.journal = Journal.open(self.workspace.data / "journal")
        self.desk.on_build = lambda made: self.journal.keep(made.lineup)
        self.decisions = Decisions(self.desk, self.workspace, self.metrics, self.journal)

    def door(self, inner: AsgiApp) -> AsgiApp:
        """The front door: before BentoML's own application."""
        lane = Lane(
            self.decisions.routes(inner),
            Keys.from_environment(),
            metrics=self.metrics,
            ready=self.decisions.ready,
            inner=inner,
            drain_seconds=self.settings.drain_seconds,
        )
        self.metrics.attach(memory_directory(self.workspace.data))
        self.desk.load()
        memory.give_back()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "lifespan":
                await lane(scope, receive, send)
                return
            watching = asyncio.create_task(self.desk.watch())
            try:
                await lane(scope, receive, send)
            finally:
                watching.cancel()
                self.desk.close()
                self.journal.close()

        return app


def _log_to_standard_error() -> None:
    """Our own lines, whatever BentoML has made of the others."""
    handler, ours = logging.StreamHandler(sys.stderr), logging.getLogger("opportune")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
