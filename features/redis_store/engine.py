"""The Redis engine: rows from the hashes that Feast's own Redis store writes, in one round trip, without Feast.

One HMGET asks for all fields of all views of a customer. `feast_format` reads the values, `routing` finds the node,
`connection` keeps the connection and the deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import hiredis
import numpy as np
from numpy.typing import NDArray

from features.columns.rows import (
    CUSTOMER_JOIN_KEY,
    EVERYONE_JOIN_KEY,
    Dictionary,
    Floats,
    KeyedRow,
    OnlineRow,
    RowSchema,
    StoreUnavailable,
)
from features.columns.views import EVERYONE, View
from features.redis_store import feast_format
from features.redis_store.address import Address, command
from features.redis_store.feast_format import DamagedValue
from features.redis_store.routing import Routes, routes
from features.redis_store.tracking_cache import NearCache

EVERYONE_SECONDS_MAX = 2.0
"""Bound on the blocking read of everyone's row: it is large, and nobody waits for it."""
NAN = float("nan")


class _ViewFields(NamedTuple):
    """Where the fields of a view are in a reply: its time, its numbers in a row, the other scalars, its families."""

    time: int
    numbers: NDArray[np.intp]
    """Slots of the numbers, which begin right after the time."""
    scalars: tuple[tuple[int, int, Callable[[bytes], float]], ...]
    """Place in the reply, slot, decoder."""
    families: tuple[tuple[int, int, tuple[int, ...]], ...]
    """Position, place of the keys, places of the measures."""


class _Request:
    """The fields of a plan: what is asked, and how the reply is laid out."""

    def __init__(self, plan: RowSchema, decoders: dict[str, Callable[[bytes], float]]) -> None:
        self.plan = plan
        names: list[bytes] = []
        views = []
        for view in plan.views:
            time = len(names)
            numbers = [scalar.name for scalar in view.scalars if scalar.dtype == "number"]
            asked = numbers + [name for name, _ in view.fields if name not in numbers]
            names.append(feast_format.timestamp_name(view.name))
            names.extend(feast_format.field_name(view.name, name) for name in asked)
            at = {name: time + 1 + index for index, name in enumerate(asked)}
            slots = tuple(plan.scalars[f"{view.name}.{name}"] for name in numbers)
            others = [scalar for scalar in view.scalars if scalar.dtype != "number"]
            scalars = tuple((at[s.name], plan.scalars[f"{view.name}.{s.name}"], decoders[s.dtype]) for s in others)
            families = tuple(
                (plan.families[f"{view.name}.{f.name}"], at[f.keys_field], tuple(at[f.field(m)] for m in f.measures))
                for f in view.families
            )
            views.append(_ViewFields(time, np.array(slots, dtype=np.intp), scalars, families))
        self.views = tuple(views)
        self.names = names
        # All of the command but the key, made once.
        self._head = b"*%d\r\n$5\r\nHMGET\r\n" % (2 + len(names))
        self._tail = b"".join(b"\r\n$%d\r\n%b" % (len(name), name) for name in names) + b"\r\n"

    def payload(self, key: bytes) -> bytes:
        return b"%b$%d\r\n%b%b" % (self._head, len(key), key, self._tail)


class RedisEngine:
    """Reads what Feast's Redis store has written; see `OnlineEngine`.

    Args:
        url: see `address`.
        timeout_ms: how long one read may take; there are no retries.
        project: Feast's project: part of every key.
        near_cache_rows: how many rows to keep in this process, see `tracking_cache`; 0 is none.
        clock: seconds, as `time.monotonic`; what the ages of kept rows are told by.

    Attributes:
        near_hits, near_misses: calls of `read_now` that the near cache answered, and did not.
    """

    def __init__(
        self,
        url: str,
        views: tuple[View, ...],
        timeout_ms: float,
        project: str,
        near_cache_rows: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.words = Dictionary()
        self.plan = RowSchema.of(views)
        self.everyone_plan = RowSchema.of(views, "everyone")
        self.damaged = 0
        self._address = Address.parse(url)
        self._timeout_seconds = timeout_ms / 1_000
        self._project = project
        self._categories: dict[bytes, float] = {}
        self._texts: dict[bytes, int] = {}
        self._integers: dict[bytes, float] = {}
        decoders: dict[str, Callable[[bytes], float]] = {
            "integer": self._integer,
            "category": self._category,
            "boolean": feast_format.boolean,
            "time": feast_format.time,
        }
        self._customer = _Request(self.plan, decoders)
        self._everyone = _Request(self.everyone_plan, decoders)
        self._near = NearCache(near_cache_rows, clock) if near_cache_rows else None
        self.near_hits = self.near_misses = 0
        self._routes: Routes | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def read_now(self, customer_id: str) -> OnlineRow | None:
        """Return the row that the near cache keeps; None when it has none, or is off: a round trip is needed."""
        near = self._near
        if near is None:
            return None
        row = near.get(feast_format.entity_key(CUSTOMER_JOIN_KEY, customer_id, self._project))
        if row is None:
            self.near_misses += 1
        else:
            self.near_hits += 1
        return row

    async def read(self, customer_id: str) -> OnlineRow:
        """Return the row of one customer, within the timeout; from the store, whatever the near cache has."""
        if not self._customer.names:
            return self._row(self._customer, [])
        loop = asyncio.get_running_loop()
        if self._routes is None or self._loop is not loop:
            self._loop, self._routes = loop, routes(self._address, self._timeout_seconds, self._near)
            if self._near is not None:
                self._near.clear()
        key = feast_format.entity_key(CUSTOMER_JOIN_KEY, customer_id, self._project)
        if self._near is not None:
            return await self._read_and_keep(key, self._routes, self._near)
        return self._row(self._customer, await self._routes.call(key, self._customer.payload(key)))

    async def _read_and_keep(self, key: bytes, routes: Routes, near: NearCache) -> OnlineRow:
        reading, kept = near.begin(key), None
        try:
            row = self._row(self._customer, await routes.call(key, self._customer.payload(key), reading))
            # A key that is missing leaves no trace when its slot moves to another node, which then tells us nothing of
            # it.
            kept = row if row.known or not self._address.cluster else None
            return row
        finally:
            near.end(reading, kept)

    def everyone(self) -> OnlineRow:
        """Everyone's row on a connection of its own, blocking for at most `EVERYONE_SECONDS_MAX` a step."""
        if not self._everyone.names:
            return self._row(self._everyone, [])
        key = feast_format.entity_key(EVERYONE_JOIN_KEY, EVERYONE, self._project)
        return self._row(
            self._everyone, self._address.ask(command("HMGET", key, *self._everyone.names), EVERYONE_SECONDS_MAX)
        )

    def close(self) -> None:
        """Ends the connection; from any thread."""
        found, self._routes = self._routes, None
        if found is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(found.close)

    def _row(self, request: _Request, reply: object) -> OnlineRow:
        if isinstance(reply, hiredis.ReplyError):
            raise StoreUnavailable(f"the online store answered: {reply}")
        if not isinstance(reply, list) or len(reply) != len(request.names):
            raise StoreUnavailable("the online store answered what was not asked")
        plan = request.plan
        row = np.full(len(plan.scalars), NAN)
        events = [NAN] * len(plan.views)
        families: list[KeyedRow | None] = [None] * len(plan.families)
        for index, view in enumerate(request.views):
            stamp = reply[view.time]
            if stamp is None:
                continue
            try:
                events[index] = feast_format.timestamp(stamp)
            except DamagedValue:
                self.damaged += 1
                continue
            if len(view.numbers):
                row[view.numbers] = self._numbers(reply[view.time + 1 : view.time + 1 + len(view.numbers)])
            for place, slot, decode in view.scalars:
                value = reply[place]
                if value:
                    try:
                        row[slot] = decode(value)
                    except DamagedValue:
                        self.damaged += 1
            for position, keys, measures in view.families:
                families[position] = self._family(reply[keys], [reply[place] for place in measures])
        return OnlineRow(row, families, np.array(events, dtype=np.float64))

    def _numbers(self, data: list[bytes | None]) -> Floats | list[float]:
        found = feast_format.all_numbers(data)
        if found is not None:
            return found
        numbers = []
        for value in data:
            try:
                numbers.append(feast_format.number(value or b""))
            except DamagedValue:
                self.damaged += 1
                numbers.append(NAN)
        return numbers

    def _family(self, keys: bytes | None, measures: list[bytes | None]) -> KeyedRow | None:
        try:
            ids = None if keys is None else feast_format.texts(keys, self.words, self._texts)
        except DamagedValue:
            self.damaged += 1
            return None
        if ids is None:
            return None
        values = np.full((len(measures), len(ids)), np.nan)
        for measure, data in enumerate(measures):
            try:
                found = None if data is None else feast_format.numbers(data)
                if found is not None and len(found) != len(ids):
                    raise DamagedValue("a measure is not as long as its keys")
            except DamagedValue:
                self.damaged += 1
                continue
            if found is not None:
                values[measure] = found
        return KeyedRow(ids, values)

    def _integer(self, data: bytes) -> float:
        """Small counts are most of all integers: their few encodings are remembered."""
        found = self._integers.get(data)
        if found is None:
            found = feast_format.integer(data)
            if len(data) <= 3:
                self._integers[data] = found
        return found

    def _category(self, data: bytes) -> float:
        found = self._categories.get(data)
        if found is None:
            found = feast_format.category(data, self.words)
            if found == found:
                self._categories[data] = found
        return found
