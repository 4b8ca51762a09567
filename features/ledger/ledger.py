"""The ledger: one small interface in front of the stores that keep contact histories and budgets.

Taking is atomic over all workers and servers. Two ledgers implement it, held by one contract suite: `embedded` (LMDB,
beside the feature store and apart from it) and `redis` (Redis, Valkey, clusters).

A decision takes in this order: budgets first, then contacts; when contacts fell or the ledger does not answer, the
budgets are given back. Who does not know whether a take was done (StoreUnavailable) has to treat it as refused: what
may have been taken is released by the hold, and by the window of a `decisions` limit. The same take may be asked again
at any time: it is not taken twice.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from features.common.moments import Seconds
from features.contact_history.limits import ContactPolicy
from features.contact_history.takes import ContactEvent, Take, TakeResult
from features.ledger.budgets import BudgetBound, Fell, Moment
from features.ledger.recent import Heard, KeptArm, Known
from features.redis_store.address import SCHEMES
from features.workspace.store_kind import EMBEDDED, kind_of
from features.workspace.workspace import Workspace


class Ledger(Protocol):
    """Contact histories and budgets. All calls belong to one event loop thread, but for `sync` and `sweep`.

    What ends in `_now` answers without waiting, or gives None where a round trip is needed: then await the other.
    All raise StoreUnavailable, never anything else that a store may throw: then refuse whatever has a limit. ValueError
    is a fault of the caller. A ledger recovers by itself when its store does.
    """

    def read_now(self, customer_id: str) -> bytes | None:
        """Return the history of a customer, see `contacts`; empty for a stranger."""
        ...

    async def read(self, customer_id: str) -> bytes:
        """Return the same, within the deadline."""
        ...

    def take_now(self, take: Take) -> TakeResult | None:
        """Takes all contacts of a decision, or none."""
        ...

    async def take(self, take: Take, history: bytes | None = None) -> TakeResult:
        """Return the same, within the deadline. The history as it was read for this decision saves work where it has
        not changed since.
        """
        ...

    async def note(
        self, customer_id: str, policy: ContactPolicy, events: Sequence[ContactEvent], now: Seconds
    ) -> list[bool]:
        """Adds impressions and outcomes; for each whether it was new. May be repeated: nothing is counted twice."""
        ...

    async def link(self, source_id: str, target_id: str, policy: ContactPolicy, now: Seconds) -> None:
        """Moves the history of one id to another, for example an anonymous id's to the customer's. May be repeated."""
        ...

    def look_now(self, unit: str) -> Known | None:
        """History and what is new of a unit, or of the customer that it is linked to; None where a round trip is
        needed.
        """
        ...

    async def look(self, unit: str) -> Known:
        """Return the same, within the deadline."""
        ...

    def begin_look(self, unit: str) -> Future[object] | None:
        """Return a look that is on its way when this returns, for `end_look`; None where it cannot be: then `look`."""
        ...

    async def end_look(self, unit: str, begun: Future[object]) -> Known:
        """Return what `begin_look` asked for; a second round trip where the unit turns out to be linked."""
        ...

    async def hear(self, heard: Sequence[Heard], policy: ContactPolicy, now: Seconds) -> list[bool]:
        """Takes in what happened, of any number of units; for each whether it was new. May be repeated: nothing is
        counted twice.

        Entries of a unit that is linked go to its customer. All of one call is one transaction in the embedded ledger:
        keep calls short.
        """
        ...

    async def trim(self, unit: str, moment: int) -> None:
        """Drops the events of a unit that windows computed at `moment` contain; they have been passed over since then
        already.
        """
        ...

    async def settle(
        self, unit: str, wanted: Mapping[str, KeptArm], over: Mapping[str, KeptArm]
    ) -> Mapping[str, KeptArm]:
        """Keeps sticky assignments of a unit, or of the customer that it is linked to; what holds for those wanted, of
        all it keeps.

        The first write holds, atomically; see `recent_updates.settled`. May be repeated.
        """
        ...

    async def forget(self, customer_id: str) -> None:
        """Deletes the history of a customer, and what is new of them."""
        ...

    def take_budgets_now(self, budgets: Sequence[BudgetBound], moment: Moment) -> list[Fell] | None:
        """Reserves one show of each offer, or of none; for each offer which budget fell. A repeated call reserves
        again.
        """
        ...

    async def take_budgets(self, budgets: Sequence[BudgetBound], moment: Moment) -> list[Fell]:
        """Return the same, within the deadline."""
        ...

    async def give_back(self, offers: Sequence[int], moment: Moment) -> None:
        """Undoes a reservation of each offer that was made at `moment`."""
        ...

    async def confirm(self, offers: Sequence[int], moment: Moment) -> None:
        """Counts a reservation of each offer that was made at `moment` as shown. To be called once: for what `note`
        calls new.
        """
        ...

    def sync(self) -> None:
        """Makes durable what was taken; from any thread, once a second."""
        ...

    def sweep(self, horizon_seconds: float, now: Seconds) -> int:
        """Removes some histories that are beyond the horizon; how many. From any thread, now and then."""
        ...

    def close(self) -> None: ...


def ledger_of(workspace: Workspace, timeout_ms: float | None = None) -> Ledger:
    """Return the ledger of a workspace: in its Redis, or embedded in its data folder.

    Args:
        timeout_ms: instead of the workspace's own: work on all customers may wait longer than a request.
    """
    url = None if workspace.store_kind.ledger_in_data_folder else workspace.online_url
    timeout = workspace.settings.stores.online.timeout_ms if timeout_ms is None else timeout_ms
    return open_ledger(url, workspace.data / "ledger", timeout, workspace.project)


def open_ledger(url: str | None, path: Path, timeout_ms: float, project: str) -> Ledger:
    """Return the ledger at `url`, or the embedded one in the folder `path` when there is none.

    Args:
        url: as `stores.online.url`; None, empty or `embedded`: the embedded ledger.
        path: the folder of the embedded ledger, apart from the feature store's.
        timeout_ms: how long a call over the network may take.
        project: part of every key in Redis.

    Raises:
        ValueError: when the URL's scheme is not supported, or the URL is malformed.
    """
    if kind_of(url or EMBEDDED.name) is EMBEDDED:
        from features.ledger.lmdb_ledger import LmdbLedger

        return LmdbLedger(path)
    assert url
    if urlsplit(url).scheme in SCHEMES:
        from features.ledger.redis_ledger import RedisLedger

        return RedisLedger(url, timeout_ms, project)
    raise ValueError(
        f"the ledger's URL: expected {', '.join(f'{scheme}://' for scheme in SCHEMES)}, or nothing for the embedded"
        f" ledger; got the scheme {urlsplit(url).scheme!r}"
    )
