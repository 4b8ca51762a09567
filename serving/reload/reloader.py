"""The desk of one worker: the engine, what is loaded, and the watch that brings in what is newer.

A bundle, a catalogue or a row of everyone that changes is loaded aside, rehearsed, and put in place by one assignment.
What cannot be loaded is refused with its reason; the last good state goes on serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from features.columns.rows import OnlineEngine, OnlineRow, StoreUnavailable
from features.common.errors import Failure
from features.common.moments import Micros, in_seconds
from features.common.timestamps import MICROSECONDS, now
from features.common.types import DecisionRequest
from features.events.journal import Settled
from features.lake.offers import read_catalogue
from features.ledger.history import Take
from features.ledger.ledger import Ledger, ledger_of
from features.ledger.recent import KeptArm, Known
from features.online.engines import open_engine
from features.workspace.workspace import Workspace
from serving.assignment.experiments import PendingAssignments
from serving.decision.effects import Effect, EffectResult, Reserve, Settle
from serving.reload.config_files import Stamp, ramps_again, read_again, stamp_of
from serving.reload.published import Published, glance, models, published
from serving.state.customer import CustomerState, customer_state
from serving.state.snapshot import Snapshot
from serving.stores.global_row import GlobalRow
from training.bundle import bundle

logger = logging.getLogger("opportune.desk")

NOTHING_PUBLISHED = "nothing was published yet: run `opportune up`, or `opportune publish`"

BUNDLE, CONFIG = REFUSED = ("bundle", "config")
"""What a desk may refuse: what was published, or what the workspace's files say."""

WATCH_SECONDS = 1.0
LEDGER_SECONDS = 1.0
"""How often what was taken is made durable."""
AGING_SECONDS = 600.0
"""Offer columns that are ages, or have a freshness limit, are laid again this often: they change with the clock alone.
"""


class Reloader:
    """State of one worker. All methods belong to the event loop's thread; `_look` and `_tried` may run in one other."""

    def __init__(
        self, workspace: Workspace, clock: Callable[[], Micros] = now, watch_seconds: float = WATCH_SECONDS
    ) -> None:
        self.workspace, self.clock, self.watch_seconds = workspace, clock, watch_seconds
        settings = workspace.settings
        self.engine: OnlineEngine = open_engine(
            workspace.online_url,
            workspace.online,
            workspace.views,
            settings.stores.online.timeout_ms,
            workspace.project,
            workspace.online_feast,
            settings.stores.online.near_cache_rows,
        )
        self.deadline_seconds = settings.serving.deadline_ms / 1_000
        self.loaded: Snapshot | None = None
        self.refusal: str | None = NOTHING_PUBLISHED
        self.on_load: Callable[[Snapshot], None] = lambda _: None
        self.on_refusal: Callable[[str], None] = lambda _: None
        """Told what was refused: BUNDLE or CONFIG."""
        self.on_build: Callable[[Snapshot], object] = lambda _: None
        """Called where a state is made, which may wait for a disk; what it refers to must be kept before it serves."""
        self.on_settled: Callable[[Settled], object] = lambda _: None
        """Told what the ledger holds of sticky assignments that were to be written down, before anybody decides by
        them.
        """
        self._stamp: Published | None = None
        self._seen: tuple[object, ...] = ()
        self._files = self._glanced = stamp_of(workspace)
        """Of the files that were last read, or refused; and as they were at the last glance."""
        self._wanted = workspace
        """What the files said last that was not refused; it serves as soon as it is loaded."""
        self._everyone = GlobalRow(workspace, self.engine)
        self._taken = False
        """Whether something was taken since the ledger was last made durable."""
        self._ledger_lacks, self._lacked = "", False
        """Why the ledger did not do what it was asked, until it does again; and whether that was since it was last
        looked after.
        """
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
        await self._everyone.ask_witnesses(self.deadline_seconds)
        seen, files = self._glance(), stamp_of(self.workspace)
        settled, self._glanced = files == self._glanced, files
        if settled and files != self._files:
            refused = await asyncio.to_thread(self._files_again, files)
            if refused:
                logger.error("the workspace's files are refused, what they said before serves on: %s", refused)
                self.on_refusal(CONFIG)
        elif seen == self._seen and not self._everyone.is_due:
            return
        self._seen = seen
        stamp = await asyncio.to_thread(self._look)
        if stamp is not None and stamp != self._stamp:
            self._put(stamp, await asyncio.to_thread(self._tried, stamp, self._wanted))

    async def _keep_ledger(self) -> None:
        while True:
            await asyncio.sleep(LEDGER_SECONDS)
            if self._taken:
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
        self._everyone.look()
        try:
            times = tuple(np.nan_to_num(self._everyone.row.event_times, nan=-1.0).tolist())
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
        known = (read_catalogue(workspace), self._everyone.row, self.engine.words, in_seconds(self.clock()))
        made = Snapshot(workspace, bundle.read(place), *known, models(workspace))
        for load in (*made.experiment_states.loads, made):
            self.on_build(load)
        with contextlib.suppress(StoreUnavailable):
            self.ledger.look_now("")  # opened before it is needed: one that is lost from now on is not begun anew
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
        self.deadline_seconds = tried.workspace.settings.serving.deadline_ms / 1_000
        self.on_load(tried)
        if before is None or replace(before, turn=stamp.turn) != stamp:  # that time goes by is no news
            logger.info(
                "bundle %s serves: %s version %s, %d offers, policies %s",
                *(stamp.bundle, tried.stamp.name, tried.stamp.version, len(tried.catalogue), tried.hub.config),
            )

    async def row(self, customer_id: str) -> OnlineRow | None:
        """Return what is known of a customer; None when the store does not say in time, or is empty."""
        try:
            found = self.engine.read_now(customer_id)
            if found is None:
                async with asyncio.timeout(self.deadline_seconds):
                    found = await self.engine.read(customer_id)
        except (StoreUnavailable, TimeoutError):
            self._everyone.doubt()
            return None
        return self._everyone.met(customer_id, found)

    def known_now(self, unit: str, loaded: Snapshot, now: Micros) -> CustomerState | None:
        """As `known` says it, where both stores answer at once; None where something must be waited for, or fails, and
        `known` is to be asked.

        Args:
            now: microseconds since 1970, of the decision.
        """
        if loaded.experiment_states.sticky:
            return None
        try:
            found = self.ledger.look_now(unit)
            row = None if found is None else self.engine.read_now(found.unit)
        except StoreUnavailable:
            return None
        if found is None or row is None:
            return None
        return customer_state(self._everyone.met(found.unit, row), found, unit, loaded.fold, now)

    async def known(
        self, unit: str, loaded: Snapshot, now: Micros | None = None, request: DecisionRequest | None = None
    ) -> CustomerState:
        """Return what is known of a unit, in one round trip, with what is new of it folded onto the row.

        The ledger is read no later than the row: an event leaves it only some time after the row holds the event.

        Args:
            now: microseconds since 1970, of the decision; the clock's own when absent.
            request: whose sticky assignments are wanted too, under all units that it names; None leaves them out.
        """
        now, trials = self.clock() if now is None else now, loaded.experiment_states
        if request is None or not trials.sticky:
            row, found = await self._read(unit)
            return customer_state(row, found, unit, loaded.fold, now)
        beside = trials.sticky_units(request)
        looks = asyncio.gather(*(self._glance_at(other) for other in beside))
        row, found = await self._read(unit)
        others = await looks
        if other := trials.account_unit(row, in_seconds(now)):
            beside, others = [*beside, other], [*others, await self._glance_at(other)]
        person = customer_state(row, found, unit, loaded.fold, now)
        looked = [one for one in others if one is not None]
        if found is None or len(looked) < len(others):
            return msgspec.structs.replace(person, sticky=None)
        arms = {other: one.recent.kept for other, one in zip(beside, looked, strict=True)}
        return msgspec.structs.replace(
            person,
            sticky=trials.sticky_arms(
                arms | {found.unit: found.recent.kept, unit: found.recent.kept}, found.unit, request
            ),
        )

    async def _read(self, unit: str) -> tuple[OnlineRow | None, Known | None]:
        """Row and ledger in one round trip; None for what does not say in time."""
        try:
            found = self.ledger.look_now(unit)
        except StoreUnavailable as lacks:
            self._without_ledger(lacks)
            return await self.row(unit), None
        if found is not None:
            return await self.row(found.unit), found
        # Both are on their way in the same turn of the loop; two tasks would cost 30 us more than that.
        begun = self.ledger.begin_look(unit)
        if begun is None:
            found, row = await asyncio.gather(self._looked(self.ledger.look(unit)), self.row(unit))
        else:
            try:
                row = await self.row(unit)
            except BaseException:
                begun.cancel()
                raise
            found = await self._looked(self.ledger.end_look(unit, begun))
        if found is not None and found.unit != unit:
            row = await self.row(found.unit)
        return row, found

    async def _glance_at(self, unit: str) -> Known | None:
        """Return what the ledger knows of a unit whose row is not wanted."""
        try:
            found = self.ledger.look_now(unit)
        except StoreUnavailable as lacks:
            self._without_ledger(lacks)
            return None
        return found or await self._looked(self.ledger.look(unit))

    async def _looked(self, looking: Awaitable[Known]) -> Known | None:
        try:
            async with asyncio.timeout(self.deadline_seconds):
                return await looking
        except (StoreUnavailable, TimeoutError) as lacks:
            self._without_ledger(lacks)
            return None

    async def take(self, asked: Effect, contacts: bytes | None) -> EffectResult:
        """Take contacts or budgets, or give back; None when the ledger does not answer in time.

        Args:
            contacts: the history that `known` gave: where it has not changed since, it saves the ledger work.
        """
        try:
            given = self._at_once(asked)
            if given is None:
                given = await self._asked(asked, contacts)
        except (StoreUnavailable, TimeoutError) as lacks:
            self._without_ledger(lacks)
            return None
        self._taken = True
        return given

    def _at_once(self, asked: Effect) -> EffectResult:
        """Return what the ledger grants without a wait; None where it must be waited for."""
        if isinstance(asked, Take):
            return self.ledger.take_now(asked)
        return self.ledger.take_budgets_now(asked.budgets, asked.moment) if isinstance(asked, Reserve) else None

    async def _asked(self, asked: Effect, contacts: bytes | None) -> EffectResult:
        ledger = self.ledger
        async with asyncio.timeout(self.deadline_seconds):
            if isinstance(asked, Take):
                return await ledger.take(asked, contacts)
            if isinstance(asked, Reserve):
                return await ledger.take_budgets(asked.budgets, asked.moment)
            if isinstance(asked, Settle):
                return await self._settled(asked)
            await ledger.give_back(asked.offers, asked.moment)
            return None

    async def _settled(self, asked: Settle) -> Mapping[str, KeptArm]:
        """Return what holds of the sticky assignments that are wanted."""
        settling = [self._settled_for(wanted) for wanted in asked.wanted]
        found = [await settling[0]] if len(settling) == 1 else await asyncio.gather(*settling)
        return {key: arm for arms in found for key, arm in arms.items()}

    async def _settled_for(self, wanted: PendingAssignments) -> dict[str, KeptArm]:
        """Return the same of one unit."""
        kept = await self.ledger.settle(*wanted)
        arms = {key: kept[key] for key in wanted.arms if key in kept}
        self.on_settled(Settled(wanted.unit, self.clock(), arms, wanted.over))
        return arms

    def _without_ledger(self, lacks: Exception) -> None:
        """Say once why what is limited is not shown."""
        self._lacked, why = True, str(lacks) or f"no answer within {self.deadline_seconds * 1_000:.0f} ms"
        if why != self._ledger_lacks:
            self._ledger_lacks = why
            logger.error("what has a limit is not shown, for the contact ledger fails: %s", why)

    @cached_property
    def ledger(self) -> Ledger:
        """Contact histories and budgets; opened by the first decision that needs them."""
        return ledger_of(self.workspace)

    def _tend_ledger(self) -> None:
        """Make durable what was taken, and remove some histories that nothing looks at any more; aside, for it waits
        for a disk.
        """
        loaded, self._taken, lacked, self._lacked = self.loaded, False, self._lacked, False
        if loaded is None:
            return
        try:
            self.ledger.sync()
            self.ledger.sweep(loaded.hub.contacting.policy.horizon_seconds, in_seconds(self.clock()))
        except StoreUnavailable as lacks:
            self._taken = True  # what is not durable is tried again
            self._without_ledger(lacks)
            return
        if self._ledger_lacks and not lacked:
            self._ledger_lacks = ""
            logger.info("the contact ledger does what it is asked again")

    def close(self) -> None:
        self.engine.close()
        if "ledger" in self.__dict__:
            self._tend_ledger()
            self.ledger.close()
