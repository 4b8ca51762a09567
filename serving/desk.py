"""The desk of one worker: the engine, what is loaded, and the watch that brings in what is newer.

A bundle, a catalogue or a row of everyone that changes is loaded aside, rehearsed, and put in place by one assignment. What
cannot be loaded is refused with its reason; the last good state goes on serving.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from features.engines import open_engine
from features.moments import MICROSECONDS, now
from features.offers import catalogue_file, read_catalogue
from features.online import FamilyRow, OnlineEngine, OnlineRow, Plan, StoreUnavailable
from features.workspace import Workspace
from serving.loaded import Loaded
from training import bundle
from training.bundle import BadBundle

logger = logging.getLogger("opportune.desk")

WATCH_SECONDS = 1.0
EVERYONE_SECONDS = 30.0
"""How often the row of everyone is read again: it changes with each materialization."""

_REFUSED = (BadBundle, OSError, ValueError, msgspec.MsgspecError)


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What is on disk: when any of it changes, it is loaded again."""

    bundle: str
    catalogue: int
    everyone: tuple[float, ...]


class Desk:
    """State of one worker. All methods belong to the event loop's thread; only `_build` runs in another."""

    def __init__(self, workspace: Workspace, clock: Callable[[], int] = now) -> None:
        self.workspace, self.clock = workspace, clock
        settings = workspace.settings
        self.engine: OnlineEngine = open_engine(
            workspace.online_url, workspace.online, workspace.views, settings.stores.online.timeout_ms, workspace.project
        )
        self.deadline_seconds = settings.serving.deadline_ms / 1_000
        self.loaded: Loaded | None = None
        self.refusal: str | None = "nothing was published yet: run `opportune up`, or `opportune publish`"
        self.on_load: Callable[[Loaded], None] = lambda _: None
        self._stamp: _Stamp | None = None
        self._everyone_plan = Plan.of(workspace.views, "everyone")
        self._everyone_read, self._away = 0.0, ""
        self._everyone = self._nobody()

    def load(self) -> None:
        """Load what is on disk, blocking; for the start."""
        stamp = self._look()
        if stamp is not None and stamp != self._stamp:
            self._put(stamp, self._tried(stamp))
        gc.collect()
        gc.freeze()  # what lives as long as the worker need not be looked at by every collection

    async def watch(self) -> None:
        """Bring in what is newer, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            stamp = self._look()
            if stamp is not None and stamp != self._stamp:
                self._put(stamp, await asyncio.to_thread(self._tried, stamp))

    def _look(self) -> _Stamp | None:
        if time.monotonic() - self._everyone_read > EVERYONE_SECONDS or not self._everyone.known:
            self._everyone_read = time.monotonic()
            try:
                self._everyone = self.engine.everyone() if self._everyone_plan.views else self._everyone
                self._away = ""
            except StoreUnavailable as away:
                if str(away) != self._away:  # once, not with every look
                    self._away = str(away)
                    logger.warning("the row of everyone stays as it was: %s", away)
        place, offers = bundle.current(self.workspace.bundles), catalogue_file(self.workspace)
        if place is None or not offers.exists():
            return None
        times = tuple(np.nan_to_num(self._everyone.event_times, nan=-1.0).tolist())
        return _Stamp(place.name, offers.stat().st_mtime_ns, times)

    def _tried(self, stamp: _Stamp) -> Loaded | str:
        """A new state, or why there is none. Runs aside; touches nothing that serves."""
        try:
            return self._build(self.workspace.bundles / stamp.bundle)
        except _REFUSED as refusal:
            return str(refusal)

    def _build(self, place: Path) -> Loaded:
        found = bundle.read(place)
        offers = read_catalogue(catalogue_file(self.workspace))
        return Loaded(self.workspace, found, offers, self._everyone, self.engine.words, self.clock() / MICROSECONDS)

    def _put(self, stamp: _Stamp, tried: Loaded | str) -> None:
        self._stamp = stamp  # what was refused is not tried again until it changes
        if isinstance(tried, str):
            logger.error("bundle %s is refused, the last good one serves on: %s", stamp.bundle, tried)
            self.refusal = None if self.loaded else tried
            return
        self.loaded, self.refusal = tried, None
        self.on_load(tried)
        logger.info("bundle %s serves: %s version %s, %d offers", stamp.bundle, tried.stamp.name, tried.stamp.version, len(tried.catalogue))

    async def row(self, customer_id: str) -> OnlineRow | None:
        """What is known of a customer; None when the store does not say in time."""
        try:
            found = self.engine.read_now(customer_id)
            if found is not None:
                return found
            async with asyncio.timeout(self.deadline_seconds):
                return await self.engine.read(customer_id)
        except (StoreUnavailable, TimeoutError):
            return None

    def _nobody(self) -> OnlineRow:
        """The row of everyone before it was read."""
        plan = self._everyone_plan
        families: list[FamilyRow | None] = [None] * len(plan.families)
        return OnlineRow(np.full(len(plan.scalars), np.nan), families, np.full(len(plan.views), np.nan))

    def close(self) -> None:
        self.engine.close()
