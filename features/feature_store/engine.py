"""The Feast engine: rows from any online store that Feast knows, read with the store's own `online_read`. The slow,
general one.

What a Feast store may do while it reads is not ours to know: it may block without a limit, throw anything, and not be
safe for several threads. So it reads in threads of its own (`readers`), each with a store object and connections of its
own; the event loop waits for a result no longer than the deadline. Each view is one read, so that a row is consistent
by view and not as a whole.

A circuit breaker stands in front, as before Redis: after `FAILURES_MAX` failures in a row requests fail at once, while
one read at a time is tried in the background, with a growing, jittered pause. One that succeeds closes the breaker
half.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from feast import RepoConfig
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from features.columns.rows import (
    CUSTOMER_JOIN_KEY,
    EVERYONE_JOIN_KEY,
    Dictionary,
    OnlineRow,
    RowSchema,
    StoreUnavailable,
)
from features.columns.views import EVERYONE, View
from features.feature_store.reader_pool import HANG_SECONDS_MAX, Readers
from features.feature_store.rows import Read, ViewFields, row_of, tables_of
from features.feature_store.store_config import KEY_VERSION
from features.workspace.workspace import is_sqlite

FAILURES_MAX = 3
PAUSE_SECONDS = 0.05
PAUSE_SECONDS_MAX = 1.0
EVERYONE_SECONDS_MAX = 2.0
"""Bound on the blocking read of everyone's row: it is large, and nobody waits for it."""
MESSAGE_CHARACTERS_MAX = 300
"""Of what a store says of its failure: some print whole statements."""


class _Request(NamedTuple):
    """What is read of one entity."""

    plan: RowSchema
    tables: tuple[ViewFields, ...]
    join_key: str


class FeastEngine:
    """Reads what Feast has written; see `OnlineEngine`.

    Args:
        section: Feast's `online_store` section, placeholders filled in.
        timeout_ms: how long one read may take; there are no retries.
        project: Feast's project.
        repository: the folder that Feast's other settings lie in: relative paths of a section start there.
        hang_seconds: how long a read may block its thread before another thread takes its place.

    Raises:
        ValueError: when the process is not in UTC. A section that Feast refuses (`store_config.refusals`) throws what
            Feast throws.
    """

    def __init__(
        self,
        section: dict[str, Any],
        views: tuple[View, ...],
        timeout_ms: float,
        project: str,
        repository: Path | None = None,
        hang_seconds: float = HANG_SECONDS_MAX,
    ) -> None:
        if time.timezone or time.daylight:
            # Feast's SQLite store reads event times in the zone of the process: ages would be hours off.
            raise ValueError(f"expected a process in UTC (TZ=UTC), got one in {time.localtime().tm_zone}")
        self.words = Dictionary()
        self.plan = RowSchema.of(views)
        self.everyone_plan = RowSchema.of(views, "everyone")
        self.damaged = 0
        self._timeout_seconds = timeout_ms / 1_000
        self._hang_seconds = hang_seconds
        self._customer = _Request(self.plan, tables_of(self.plan, CUSTOMER_JOIN_KEY), CUSTOMER_JOIN_KEY)
        self._everyone = _Request(
            self.everyone_plan, tables_of(self.everyone_plan, EVERYONE_JOIN_KEY), EVERYONE_JOIN_KEY
        )
        config = _configuration(section, project, repository)
        self._readers = Readers(partial(_Store.tried, config, self._customer), _Store.close, hang_seconds=hang_seconds)
        self._counting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trying: asyncio.Task[None] | None = None
        self._closed = False
        self.failures = 0
        self.open = False
        """Whether the breaker is open: requests fail at once."""
        self.why = ""

    def read_now(self, customer_id: str) -> OnlineRow | None:
        """Always None: a store may block."""
        return None

    async def read(self, customer_id: str) -> OnlineRow:
        """Return the row of one customer, within the timeout."""
        loop = asyncio.get_running_loop()
        if self.open:
            self._try(loop)
            raise StoreUnavailable(self.why)
        job = self._submit(self._customer, customer_id)
        if job is None:
            return self.plan.nobody()
        asked = asyncio.wrap_future(job)
        late = loop.call_later(self._timeout_seconds, asked.cancel)
        asked.add_done_callback(partial(self._settled, late))
        # A wait leaves the read alone when this request is given up: it still counts for or against the store.
        await asyncio.wait((asked,))
        if asked.cancelled():
            raise StoreUnavailable(self._lateness())
        return asked.result()

    def everyone(self) -> OnlineRow:
        """Everyone's row, blocking for at most `EVERYONE_SECONDS_MAX`."""
        if self.open:
            raise StoreUnavailable(self.why)
        job = self._submit(self._everyone, EVERYONE)
        if job is None:
            return self.everyone_plan.nobody()
        try:
            return job.result(EVERYONE_SECONDS_MAX)
        except TimeoutError:
            job.cancel()
            raise StoreUnavailable(f"the online store did not answer within {EVERYONE_SECONDS_MAX:.0f} s") from None

    def close(self) -> None:
        """Ends the threads, each after the read that it is at; from any thread."""
        self._closed = True
        self._readers.close()
        if self._trying is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._trying.cancel)

    def _submit(self, request: _Request, entity: str) -> Future[OnlineRow] | None:
        """Return the row to come; None where nothing can be stored under such an id, or nothing is wanted."""
        try:
            key = _key(request, entity)
        except ValueError:  # half a surrogate pair, which no protobuf holds
            return None
        return (
            self._readers.submit(lambda store: self._row(request, store.read(request, key))) if request.tables else None
        )

    def _row(self, request: _Request, reads: list[Read]) -> OnlineRow:
        row, damaged = row_of(request.plan, reads, self.words)
        if damaged:
            with self._counting:
                self.damaged += damaged
        return row

    def _lateness(self) -> str:
        return f"the online store did not answer within {self._timeout_seconds * 1_000:.0f} ms"

    def _settled(self, late: asyncio.TimerHandle, asked: asyncio.Future[OnlineRow]) -> None:
        late.cancel()
        error = StoreUnavailable(self._lateness()) if asked.cancelled() else asked.exception()
        if error is None:
            self.failures = 0
            return
        self.failures += 1
        self.why = str(error)
        if self.failures >= FAILURES_MAX:
            self.open = True
            self._try(asked.get_loop())

    def _try(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._closed and (self._trying is None or self._trying.done() or self._loop is not loop):
            self._loop, self._trying = loop, loop.create_task(self._keep_trying())

    async def _keep_trying(self) -> None:
        tries = 0
        while not self._closed:
            pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS * 2 ** min(tries, 10))
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - keeps workers from coming back in step, no secret
            tries += 1
            try:
                job = self._submit(self._customer, "")
                if job is not None:
                    # Long enough to be stood in for, where it hangs: one that is tried holds one thread, not all of
                    # them.
                    await asyncio.wait_for(asyncio.wrap_future(job), self._hang_seconds)
            except StoreUnavailable as error:
                self.why = str(error)
                continue
            except TimeoutError:
                continue
            self.open = False
            # Half closed: one more failure opens it again.
            self.failures = FAILURES_MAX - 1
            return


def _key(request: _Request, entity: str) -> EntityKey:
    return EntityKey(join_keys=[request.join_key], entity_values=[Value(string_val=entity)])


class _Store:
    """A Feast store of one thread. It is thrown away with its connections after a failure: most do not mend their
    own.
    """

    def __init__(self, config: RepoConfig) -> None:
        self._config = config
        self._file = Path(config.online_store.path) if is_sqlite({"type": config.online_store.type}) else None
        self._opened: OnlineStore | None = None
        self._identity: tuple[int, int] | None = None

    @classmethod
    def tried(cls, config: RepoConfig, request: _Request) -> _Store:
        """Return a store that has read once, or tried to: no customer waits for its connections."""
        made = cls(config)
        with suppress(StoreUnavailable):
            made.read(request, _key(request, ""))
        return made

    def read(self, request: _Request, key: EntityKey) -> list[Read]:
        """Read once a view, in the plan's order.

        Raises:
            StoreUnavailable: with whatever the store has thrown.
        """
        # Edge of the process: a store is foreign code and throws what its driver throws; no class of ours or Feast's
        # covers it.
        try:
            store = self._current()
            return [store.online_read(self._config, table.feast, [key], table.fields)[0] for table in request.tables]
        except Exception as error:
            self.close()
            text = f"{type(error).__name__}: {error}".replace(
                key.entity_values[0].string_val or "\0", "…"
            )  # logs name no customer
            raise StoreUnavailable(f"the online store failed: {text[:MESSAGE_CHARACTERS_MAX]}") from error

    def close(self) -> None:
        """Lets go of the store. Feast has no blocking close; where a store keeps its one connection, it is closed
        here.
        """
        store, self._opened = self._opened, None
        close: Callable[[], object] | None = getattr(getattr(store, "_conn", None), "close", None)
        if close is not None:
            with suppress(Exception):  # the same edge: a connection that is broken may say so once more
                close()

    def _current(self) -> OnlineStore:
        if self._file is not None:
            # An open SQLite file outlives its deletion, and a missing one is made anew by who only wants to read it.
            found = self._file.stat()
            if self._identity != (found.st_dev, found.st_ino):
                self.close()
                self._identity = found.st_dev, found.st_ino
        if self._opened is None:
            self._opened = get_online_store_from_config(self._config.online_store)
        return self._opened


def _configuration(section: dict[str, Any], project: str, repository: Path | None) -> RepoConfig:
    """Return what a read needs of Feast's configuration; the offline store's name alone, so that it is not loaded."""
    return RepoConfig(
        project=project,
        provider="local",
        registry="unread",
        offline_store="duckdb",
        online_store=dict(section),
        entity_key_serialization_version=KEY_VERSION,
        repo_path=repository,
    )
