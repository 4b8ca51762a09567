"""The reloader of one worker: the snapshot that serves, and the watch that brings in what is newer.

A bundle, a catalogue or a row of everyone that changes is loaded aside, rehearsed, and put in place by one assignment.
What cannot be loaded is refused with its reason; the last good state goes on serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from features.columns.rows import StoreUnavailable
from features.common.errors import Failure
from features.common.moments import Micros, in_seconds
from features.common.timestamps import MICROSECONDS, now
from features.lake.offers import read_catalogue
from features.workspace.workspace import Workspace
from serving.reload.config_files import Stamp, ramps_again, read_again, stamp_of
from serving.reload.published import Published, glance, models, published
from serving.state.snapshot import Snapshot
from serving.stores.stores import Stores
from training.bundle import bundle

logger = logging.getLogger("opportune.desk")

NOTHING_PUBLISHED = "nothing was published yet: run `opportune up`, or `opportune publish`"

BUNDLE, CONFIG = REFUSED = ("bundle", "config")
"""What a reloader may refuse: what was published, or what the workspace's files say."""

WATCH_SECONDS = 1.0
LEDGER_SECONDS = 1.0
"""How often what was taken is made durable."""
AGING_SECONDS = 600.0
"""Offer columns that are ages, or have a freshness limit, are laid again this often: they change with the clock alone.
"""


class Reloader:
    """Holds what serves. All methods belong to the event loop's thread; `_look` and `_tried` may run in one other."""

    def __init__(
        self, workspace: Workspace, clock: Callable[[], Micros] = now, watch_seconds: float = WATCH_SECONDS
    ) -> None:
        self.workspace, self.clock, self.watch_seconds = workspace, clock, watch_seconds
        self.stores = Stores(workspace, clock)
        self.loaded: Snapshot | None = None
        self.refusal: str | None = NOTHING_PUBLISHED
        self.on_load: Callable[[Snapshot], None] = lambda _: None
        self.on_refusal: Callable[[str], None] = lambda _: None
        """Told what was refused: BUNDLE or CONFIG."""
        self.on_build: Callable[[Snapshot], object] = lambda _: None
        """Called where a state is made, which may wait for a disk; what it refers to must be kept before it serves."""
        self._stamp: Published | None = None
        self._seen: tuple[object, ...] = ()
        self._files = self._glanced = stamp_of(workspace)
        """Of the files that were last read, or refused; and as they were at the last glance."""
        self._wanted = workspace
        """What the files said last that was not refused; it serves as soon as it is loaded."""
        self._aging = any(
            column.match and (column.dtype == "age" or column.freshness_seconds)
            for column in workspace.contract.of_kind("offer")
        )

    def load(self) -> None:
        """Load what is on disk, blocking; for the start."""
        stamp = self._look()
        if stamp is not None and stamp != self._stamp:
            self._put(stamp, self._tried(stamp, self._wanted))
        gc.collect()
        gc.freeze()  # what lives as long as the worker need not be looked at by every collection

    async def watch(self) -> None:
        """Bring in what is newer, and keep the ledger, until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._watch())
            both.create_task(self._keep_ledger())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.watch_seconds)
            await self.look()

    async def look(self) -> None:
        """Bring in what is newer, once.

        A file is read when it was left alone from one look to the next: one that is being written may lack its last
        rules.
        """
        await self.stores.global_row.ask_witnesses(self.stores.deadline.seconds)
        seen, files = self._glance(), stamp_of(self.workspace)
        settled, self._glanced = files == self._glanced, files
        if settled and files != self._files:
            refused = await asyncio.to_thread(self._files_again, files)
            if refused:
                logger.error("the workspace's files are refused, what they said before serves on: %s", refused)
                self.on_refusal(CONFIG)
        elif seen == self._seen and not self.stores.global_row.is_due:
            return
        self._seen = seen
        stamp = await asyncio.to_thread(self._look)
        if stamp is not None and stamp != self._stamp:
            self._put(stamp, await asyncio.to_thread(self._tried, stamp, self._wanted))

    async def _keep_ledger(self) -> None:
        while True:
            await asyncio.sleep(LEDGER_SECONDS)
            if self.stores.access.used:
                await asyncio.to_thread(self._tend_ledger)

    def _glance(self) -> tuple[object, ...]:
        """Return what tells that a look is worth its price: when the files were written, and the turn of the clock.

        A few microseconds, on the loop's own thread. A look each second in another thread cost requests up to 2.5 ms:
        at each of its system calls the two threads hand the interpreter over.
        """
        return (*glance(self.workspace, self._stamp), self._turn())

    def _turn(self) -> int:
        return int(self.clock() / MICROSECONDS // AGING_SECONDS) if self._aging else 0

    def _look(self) -> Published | None:
        """Return what there is to load; None when there is nothing, or it cannot be said."""
        self.stores.global_row.look()
        try:
            times = tuple(np.nan_to_num(self.stores.global_row.row.event_times, nan=-1.0).tolist())
            return published(self._wanted, times, self._turn())
        except (OSError, ValueError) as error:
            logger.warning("cannot see what is published: %s", error)
            return None

    def _files_again(self, files: Stamp) -> str:
        """Read the workspace's files again; why they are refused, or nothing.

        Args:
            files: what they were at the last glance; when they changed while they were read, they are left for another.
        """
        tried = read_again(self.workspace)
        if stamp_of(self.workspace) != files:
            return ""
        self._files = files
        if isinstance(tried, str):
            self._wanted = ramps_again(self._wanted)
            return tried
        self._wanted = tried
        return ""

    def _tried(self, stamp: Published, workspace: Workspace) -> Snapshot | str:
        """Return a new state, or why there is none. Runs aside; touches nothing that serves."""
        try:
            return self._build(workspace, self.workspace.bundles / stamp.bundle)
        except (Failure, OSError, msgspec.MsgspecError) as refusal:
            return str(refusal)
        except Exception as fault:  # noqa: BLE001 (what lies on disk may be foreign: whatever it breaks is why it is refused)
            return f"it cannot be used: {type(fault).__name__}: {fault}"

    def _build(self, workspace: Workspace, place: Path) -> Snapshot:
        known = (
            read_catalogue(workspace),
            self.stores.global_row.row,
            self.stores.engine.words,
            in_seconds(self.clock()),
        )
        made = Snapshot(workspace, bundle.read(place), *known, models(workspace))
        for load in (*made.experiment_states.loads, made):
            self.on_build(load)
        with contextlib.suppress(StoreUnavailable):
            # Opened before it is needed: one that is lost from now on is not begun anew.
            self.stores.ledger.look_now("")
        return made

    def _put(self, stamp: Published, tried: Snapshot | str) -> None:
        before, self._stamp = self._stamp, stamp  # what was refused is not tried again until it changes
        if isinstance(tried, str):
            last = "the last good one serves on" if self.loaded else "nothing serves"
            what = (
                BUNDLE if before is None or before.bundle != stamp.bundle or before.config == stamp.config else CONFIG
            )
            logger.error(
                "%s is refused, %s: %s",
                f"bundle {stamp.bundle}" if what == BUNDLE else "what the files say",
                last,
                tried,
            )
            self.refusal = None if self.loaded else tried
            self.on_refusal(what)
            return
        self.loaded, self.refusal, self.workspace = tried, None, tried.workspace
        self.stores.deadline.seconds = tried.workspace.settings.serving.deadline_ms / 1_000
        self.on_load(tried)
        if before is None or replace(before, turn=stamp.turn) != stamp:  # that time goes by is no news
            logger.info(
                "bundle %s serves: %s version %s, %d offers, policies %s",
                *(stamp.bundle, tried.stamp.name, tried.stamp.version, len(tried.catalogue), tried.hub.config),
            )

    def _tend_ledger(self) -> None:
        """Make the ledger durable; aside, for it waits for a disk."""
        loaded = self.loaded
        if loaded is not None:
            self.stores.access.tend(loaded.hub.contacting.policy.horizon_seconds, in_seconds(self.clock()))

    def close(self) -> None:
        """Make the ledger durable, and close the stores."""
        if self.stores.access.is_open:
            self._tend_ledger()
        self.stores.close()
