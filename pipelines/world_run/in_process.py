"""Decisions in this process: the desk of a worker, with a ledger of its own that hears events; no server, and simulated
time is exact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from features.common.moments import Micros, in_seconds
from features.common.timestamps import now
from features.common.types import Decision, DecisionRequest, Event
from features.events.semantics import EventSchema
from features.ledger.ledger import open_ledger
from features.workspace.workspace import Workspace
from pipelines.world.port import DeciderRefused, Told
from pipelines.world_run.records import LoopRecords
from serving.decision.case import DecisionInputs
from serving.decision.decide import deciding
from serving.hub.request_check import BadContext, BadRequest, UnknownPlacement
from serving.reload.reloader import Reloader

WORKER = "world"
LEDGER_TIMEOUT_MS = 1_000


class DeskPort:
    """Decides as a worker would, and hears events as one would, without the event log.

    The ledger begins empty in a folder that goes with the port: a run leaves nothing behind, and the next one is the
    same.

    Args:
        moment: when the run begins, in the world's time.
        shift: microseconds that the workspace's time is ahead of the world's.
        real: decide at the real clock, whatever the world's time.
        kept: leave decisions and events in the workspace's journal and event log, as a server does.

    Raises:
        DeciderRefused: nothing that is published can serve.
    """

    def __init__(
        self, workspace: Workspace, moment: int, shift: int = 0, real: bool = False, kept: bool = False
    ) -> None:
        self.told: Told | None = None
        self.name = "desk"
        self._now, self._shift, self._count, self._received = now() if real else Micros(moment + shift), shift, 0, 0
        self._real, self._loop = real, LoopRecords(workspace, lambda: self._now) if kept else None
        self._folder = TemporaryDirectory(prefix="opportune-world-")
        self._runner = asyncio.Runner()
        self._reloader = Reloader(workspace, clock=lambda: self._now)
        self._reloader.stores.ledger = open_ledger(
            None, Path(self._folder.name) / "ledger", LEDGER_TIMEOUT_MS, workspace.project
        )
        if self._loop is not None:
            loop = self._loop
            self._reloader.on_build = lambda made: loop.keep(made.offer_table)
        self._reloader.load()
        if self._reloader.loaded is None:
            refusal = self._reloader.refusal
            self.close()
            raise DeciderRefused(f"expected a published model that can serve, got none: {refusal}")
        self._loaded = self._reloader.loaded
        self._happenings = EventSchema(workspace, self._loaded.catalogue.offers)

    def turn(self, moment: int) -> int:
        self._now = now() if self._real else Micros(moment + self._shift)
        return self._now

    def decide(self, request: DecisionRequest) -> Decision:
        try:
            return self._runner.run(self._decided(request))
        except (UnknownPlacement, BadContext, BadRequest) as error:
            raise DeciderRefused(
                f"expected the workspace that this world wrote, got one that takes no such request: {error}"
            ) from error

    async def _decided(self, request: DecisionRequest) -> Decision:
        stores, at, record = self._reloader.stores, self._now, None if self._loop is None else self._loop.record
        self._count += 1
        customer = await stores.customers.known(request.unit, self._loaded, at, request)
        name = f"{at:x}-{WORKER}-{self._count:x}"
        steps = deciding(DecisionInputs(request, self._loaded, customer, at, name, record=record))
        try:
            effect = next(steps)
            while True:
                effect = steps.send(await stores.effects.run(effect, customer.contacts))
        except StopIteration as done:
            decision: Decision = done.value
            return decision

    def tell(self, events: Sequence[Event]) -> None:
        heard = []
        for event in events:
            poison = self._happenings.poison(event, self._now)
            if poison is not None:
                raise DeciderRefused(
                    f"expected the workspace that this world wrote, got one that takes no such `{event.type}`:"
                    f" {poison.expected}"
                )
            self._received = max(self._received + 1, self._now)  # ascending, as an event log gives it
            heard.append(self._happenings.heard(event, self._received))
        if self._loop is not None:
            self._loop.log(events)
        policy = self._loaded.hub.contacting.policy
        self._runner.run(self._reloader.stores.ledger.hear(heard, policy, in_seconds(self._now)))

    def close(self) -> None:
        if self._loop is not None:
            self._loop.close()
        self._reloader.close()
        self._runner.close()
        self._folder.cleanup()
