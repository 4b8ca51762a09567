"""One worker process of the server: workspace, reloader, decisions and front door, put together."""

from __future__ import annotations

import asyncio
import logging
import sys

from features.common.clock import notice
from features.events.log import event_folder
from features.events.writer import EventWriter
from features.validation.load import load
from serving.api.decisions import Decisions
from serving.api.erasure import Forgetting
from serving.api.experiments import ExperimentRoutes
from serving.api.flags import Flags
from serving.api.preview import Enquiry
from serving.api.split_metrics import split_lines
from serving.events.delivery import EventContext, EventDelivery, Understandings
from serving.events.events import Events
from serving.http.app import FrontDoor
from serving.http.auth import Keys
from serving.http.routing import AsgiApp, Receive, Scope, Send
from serving.journal.journal import Journal
from serving.openapi.contract import ContractDocument
from serving.reload.reloader import Reloader
from serving.runtime import memory, parent_watch
from serving.runtime.metrics import Metrics
from serving.runtime.slots_folder import memory_directory
from serving.settings import Settings, origins_for
from serving.state.snapshot import Snapshot

logger = logging.getLogger("opportune.worker")

SWITCH_SECONDS = 0.0002
VERBS = "pipelines.main"
"""The module of the command line."""


class Worker:
    """What one process holds; all of it is loaded and rehearsed before the process takes requests."""

    def __init__(self, settings: Settings) -> None:
        _log_to_standard_error()
        if moved := notice():
            logger.warning("%s", moved)
        parent_watch.end_with_parent()
        self.settings = settings
        # The journal's and other helpers' threads may hold the interpreter for so long while a request waits; 5 ms is
        # Python's own.
        sys.setswitchinterval(SWITCH_SECONDS)
        self.workspace = load(settings.workspace, sources=False)
        self.metrics = Metrics()
        self.metrics.beside(lambda: split_lines(self.workspace.data))
        self.reloader = Reloader(self.workspace, watch_seconds=settings.watch_seconds)
        self.journal = Journal.open(self.workspace.data / "journal")
        self.decisions = Decisions(self.reloader, self.workspace, self.metrics, self.journal)
        enquiry = Enquiry(self.reloader)
        self.experiments = ExperimentRoutes(enquiry)
        self.flags = Flags(enquiry, self.decisions, settings.ofrep_per_second)
        self.log = EventWriter(event_folder(self.workspace.data))
        self._understandings = Understandings(self.workspace)
        self.hearing = EventDelivery(self._understanding, lambda: self.reloader.stores.ledger, self.log, self.metrics)
        self.events = Events(self._understanding, self.hearing, self.log, self.metrics)
        # A process of its own: forgetting rewrites files for seconds. The verb stands right of us: it is named, not
        # imported.
        self.forgetting = Forgetting(
            [sys.executable, "-m", VERBS, "forget", "-", "-w", str(self.workspace.folder.resolve()), "--json"]
        )
        self.reloader.on_build = self._built
        self.reloader.stores.effects.on_settled = self.journal.append

    def _built(self, made: Snapshot) -> None:
        self.journal.keep(made.offer_table)
        self._understandings.prepare(made)

    def _understanding(self) -> EventContext:
        return self._understandings.of(self.reloader.loaded)

    def door(self, inner: AsgiApp) -> AsgiApp:
        """Return the front door: before BentoML's own application."""
        keys = Keys.from_environment()
        origins = origins_for(self.settings, keys)
        contract = ContractDocument(
            keys,
            lambda: None if self.reloader.loaded is None else self.reloader.loaded.workspace,
            origins=origins is not None,
        )
        front_door = FrontDoor(
            (
                *self.decisions.routes(inner),
                *self.events.routes(),
                *self.experiments.routes(),
                *self.flags.routes(),
                self.forgetting.route(),
            ),
            keys,
            metrics=self.metrics,
            ready=self.decisions.ready,
            inner=inner,
            drain_seconds=self.settings.drain_seconds,
            origins=origins,
            document=contract.render,
        )
        self.metrics.attach(memory_directory(self.workspace.data))
        self.reloader.load()
        memory.give_back()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "lifespan":
                await front_door(scope, receive, send)
                return
            beside = [asyncio.create_task(work) for work in (self.reloader.watch(), self.hearing.run())]
            for task in beside:
                task.add_done_callback(_tell_failure)
            try:
                await front_door(scope, receive, send)
            finally:
                for task in beside:
                    task.cancel()
                self.log.close()
                self.reloader.close()
                self.journal.close()

        return app


def _tell_failure(task: asyncio.Task[None]) -> None:
    """Tasks beside the requests never end by themselves: where one does, somebody must hear of it."""
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.error("a task of this worker failed: %s", type(failure).__name__, exc_info=failure)


def _log_to_standard_error() -> None:
    """Our own lines, whatever BentoML has made of the others."""
    handler, ours = logging.StreamHandler(sys.stderr), logging.getLogger("opportune")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
