"""A foreign store that does as a test tells it, the engine over it, and the threads of all engines."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from feast.protos.feast.types.Value_pb2 import Value

from features.columns.rows import StoreUnavailable
from features.feature_store.engine import FeastEngine
from tests.features.fake_feast_store import ACTS, Read
from tests.features.feast_fixtures import view
from tests.features.store_cases import PATIENT_MS, moment

SHOP = view(
    "shop",
    {"age": "number", "visits": "integer", "city": "category", "since": "time"},
    {"by_group": ["spend", "count"]},
)
EVERYONE = view("everyone_shop", {"age": "number"}, entity="everyone")
SECONDS_MAX = 120.0
SOON_MS = 50.0
GOOD: Read = (moment(1.0), {"age": Value(double_val=3.0)})
_names = itertools.count()


class Foreign:
    """An engine over a foreign store that does as it is told, and the loop that it is read from."""

    def __init__(self) -> None:
        self.name = f"foreign{next(_names)}"
        self.runner = asyncio.Runner()
        self.engines: list[FeastEngine] = []
        self.released = threading.Event()

    def acts(self, act: Callable[[str, str], Read]) -> None:
        ACTS[self.name] = act

    def hangs(self, view: str = "", customer: str = "") -> Read:
        """An act that does not end before the test does."""
        self.released.wait(SECONDS_MAX * 4)
        return GOOD

    def engine(self, *views: Any, timeout_ms: float = PATIENT_MS, **given: Any) -> FeastEngine:
        section = {"type": "tests.features.fake_feast_store.ForeignOnlineStore", "name": self.name}
        made = FeastEngine(section, views or (SHOP,), timeout_ms, "shop", **given)
        self.engines.append(made)
        return made

    def run(self, work: Awaitable[Any]) -> Any:
        async def running() -> Any:
            return await work

        return self.runner.run(running())

    def until(self, good: Callable[[], bool]) -> None:
        """Lets the loop run until something holds."""
        end = time.monotonic() + SECONDS_MAX
        while not good():
            assert time.monotonic() < end, "it did not come to that"
            self.run(asyncio.sleep(0.005))

    def answers(self, engine: FeastEngine) -> bool:
        try:
            return bool(self.run(engine.read("1")).known)
        except StoreUnavailable:
            return False


def readers() -> set[threading.Thread]:
    """The threads of all engines that are alive, those of earlier tests that are about to end among them."""
    return {thread for thread in threading.enumerate() if thread.name == "opportune-reader"}


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    made = Foreign()
    made.acts(lambda view, customer: GOOD)
    yield made
    made.released.set()
    for engine in made.engines:
        engine.close()
    made.run(asyncio.sleep(0))
    made.runner.close()
