"""The online engines in the same clothes: how a contract case writes with Feast, reads with the engine, and
compares.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from feast import FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import DoubleList, StringList, Value

from features.columns.rows import OnlineEngine, OnlineRow, StoreUnavailable
from features.columns.views import View
from features.feature_store.store_config import prepare
from features.online.engines import open_engine
from tests.features.feast_fixtures import feast_store
from tests.stores import Server

TIMEOUT_MS = 25.0
# A shared machine may stall a test for longer than an engine may wait: contract cases that expect an answer wait
# longer.
PATIENT_MS = 2_000.0
RECOVERY_SECONDS_MAX = 120.0
NEAR_CACHE_ROWS = 100
_numbers = itertools.count()


class Arena:
    """One engine kind with a place of its own for each case."""

    def __init__(self, kind: str, folder: Path, server: Server | None) -> None:
        self.kind = kind
        self.folder = folder
        self.server = server
        self.project = f"shop{next(_numbers)}"
        self.runner = asyncio.Runner()
        self.engines: list[OnlineEngine] = []

    @property
    def url(self) -> str:
        return "" if self.server is None else self.server.url

    @property
    def online(self) -> dict[str, Any]:
        """Feast's settings of the online store."""
        if self.kind == "feast":
            return {"type": "sqlite", "path": str(self.folder / "online.db")}
        if self.server is None:
            return {
                "type": "features.feature_store.lmdb_online_store.LmdbOnlineStore",
                "path": str(self.folder / "online"),
            }
        return {"type": "redis", "connection_string": f"127.0.0.1:{self.server.port}"}

    def store(self, *views: View, created: bool = False) -> FeatureStore:
        prepare(self.online)
        return feast_store(self.folder, self.online, views, created, self.project)

    def engine(self, *views: View, timeout_ms: float = PATIENT_MS) -> OnlineEngine:
        feast = self.online if self.kind == "feast" else None
        rows = NEAR_CACHE_ROWS if self.kind == "redis near" else 0
        engine = open_engine(self.url, self.folder / "online", views, timeout_ms, self.project, feast, rows)
        self.engines.append(engine)
        return engine

    def kept(self, seconds: float) -> float:
        """The event time that the store keeps of a moment: Feast's SQLite store keeps whole seconds."""
        return moment(math.floor(seconds) if self.kind == "feast" else seconds).timestamp()

    def read(self, engine: OnlineEngine, customer_id: str) -> OnlineRow:
        if self.kind == "redis near":
            return self.run(self._read_near(engine, customer_id))  # type: ignore[no-any-return]
        return engine.read_now(customer_id) or self.run(engine.read(customer_id))

    async def _read_near(self, engine: OnlineEngine, customer_id: str) -> OnlineRow:
        """The row that the near cache keeps, once the server has told what changed: replies and news come in one
        order.
        """
        with suppress(StoreUnavailable):
            await engine.read("nobody asks for this one")
        row = engine.read_now(customer_id) or await engine.read(customer_id)
        return engine.read_now(customer_id) or row

    def run(self, work: Awaitable[Any]) -> Any:
        async def running() -> Any:
            return await work

        return self.runner.run(running())

    def close(self) -> None:
        for engine in self.engines:
            engine.close()
        self.runner.run(asyncio.sleep(0))
        self.runner.close()

    @property
    def _place(self) -> Path:
        return self.folder / ("online.db" if self.kind == "feast" else "online")

    def break_it(self) -> None:
        """Takes the store away."""
        if self.server is None:
            self._place.rename(self.folder / "away")
        else:
            self.server.pause()

    def mend_it(self) -> None:
        if self.server is None:
            (self.folder / "away").rename(self._place)
        else:
            self.server.resume()

    def empty_it(self) -> None:
        """What a restart without persistence leaves."""
        if self.kind == "feast":
            with closing(sqlite3.connect(self._place)) as connection, connection:
                for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    connection.execute(f'DELETE FROM "{name}"')
        elif self.server is None:
            shutil.rmtree(self._place)
        else:
            assert self.server.ask("FLUSHALL") == b"+OK\r\n"

    def unavailable(self, engine: OnlineEngine, customer_id: str = "1") -> float:
        """Reads until the engine says that the store is gone; the longest single read in seconds."""
        longest, end = 0.0, time.monotonic() + RECOVERY_SECONDS_MAX
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                self.read(engine, customer_id)
            except StoreUnavailable:
                return max(longest, time.monotonic() - start)
            longest = max(longest, time.monotonic() - start)
            self.run(asyncio.sleep(0.01))
        raise AssertionError("the engine did not notice that its store is gone")

    def recovers(
        self, engine: OnlineEngine, customer_id: str = "1", good: Callable[[OnlineRow], bool] = lambda row: row.known
    ) -> float:
        """Seconds until the engine answers again, as is good."""
        start = time.monotonic()
        while time.monotonic() < start + RECOVERY_SECONDS_MAX:
            try:
                if good(self.read(engine, customer_id)):
                    return time.monotonic() - start
            except StoreUnavailable:
                pass
            self.run(asyncio.sleep(0.01))
        raise AssertionError("the engine did not recover")


def proto(kind: str, value: Any) -> Value:
    """A Feast value of one of our kinds; None is null."""
    if value is None:
        return Value()
    make: Any = {
        "number": lambda: Value(double_val=value),
        "integer": lambda: Value(int64_val=value),
        "category": lambda: Value(string_val=value),
        "boolean": lambda: Value(bool_val=value),
        "time": lambda: Value(unix_timestamp_val=value),
        "texts": lambda: Value(string_list_val=StringList(val=value)),
        "numbers": lambda: Value(double_list_val=DoubleList(val=value)),
    }
    return make[kind]()


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(1_760_000_000 + seconds, UTC)


Rows = list[tuple[str, dict[str, Any], float]]


def write(store: FeatureStore, view: View, rows: Rows, created: list[float] | None = None) -> None:
    """Writes values as they are, without what pandas makes of them: (entity, values by field, seconds) a row."""
    kinds = dict(view.fields)
    join_key = "customer_id" if view.entity == "customer" else "everyone_id"
    data = [
        (
            EntityKey(join_keys=[join_key], entity_values=[Value(string_val=entity)]),
            {name: proto(kinds[name], value) for name, value in values.items()},
            moment(seconds),
            None if created is None else moment(created[index]),
        )
        for index, (entity, values, seconds) in enumerate(rows)
    ]
    store._get_provider().online_store.online_write_batch(store.config, store.get_feature_view(view.name), data, None)


def sdk(store: FeatureStore, views: tuple[View, ...], entity: str) -> dict[str, Any]:
    """What Feast's SDK says of an entity: `view__field` -> value."""
    join_key = "customer_id" if views[0].entity == "customer" else "everyone_id"
    names = [f"{view.name}:{name}" for view in views for name, _ in view.fields]
    answer = store.get_online_features(names, [{join_key: entity}], full_feature_names=True).to_dict()
    return {name: values[0] for name, values in answer.items()}


def same_as_sdk(engine: OnlineEngine, row: OnlineRow, store: FeatureStore, views: tuple[View, ...], entity: str) -> int:
    """Compares a row with Feast's SDK, value by value; the number of values compared."""
    said = sdk(store, views, entity)
    compared = slot = position = 0
    for view in views:
        for scalar in view.scalars:
            same_scalar(engine, row.numbers[slot], said[f"{view.name}__{scalar.name}"], scalar.dtype)
            slot += 1
            compared += 1
        for family in view.families:
            keys = said[f"{view.name}__{family.keys_field}"]
            found = row.families[position]
            position += 1
            if keys is None:
                assert found is None
                continue
            assert found is not None
            assert found.keys.dtype == np.uint32
            assert [engine.words.texts[i] for i in found.keys] == keys
            assert found.values.shape == (len(family.measures), len(keys))
            for measure, values in zip(family.measures, found.values, strict=True):
                expected = said[f"{view.name}__{family.field(measure)}"]
                np.testing.assert_array_equal(
                    values, np.full(len(keys), np.nan) if expected is None else np.array(expected, dtype=float)
                )
                compared += len(keys)
    assert compared > 0
    return compared


def same_scalar(engine: OnlineEngine, found: float, expected: Any, dtype: str) -> None:
    if expected is None:
        assert np.isnan(found)
    elif dtype == "category":
        assert engine.words.texts[int(found)] == expected
    elif dtype == "time":
        assert found == expected.timestamp()
    else:
        np.testing.assert_array_equal(found, float(expected))
