"""The contract of the online engines: its views and rows, each kind of engine, and how many cases ran on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.features.feast_fixtures import view
from tests.features.store_cases import Arena
from tests.stores import Server, find_server

CUSTOMER = view(
    "customer", {"age": "number", "visits": "integer", "city": "category", "vip": "boolean", "since": "time"}
)
ORDERS = view("orders", {"spend": "number"}, {"by_group": ["spend_90d", "count_90d"], "by_brand": ["share"]})
EVERYONE = view("everyone_orders", {}, {"by_group": ["spend_90d"]}, entity="everyone")
VIEWS = (CUSTOMER, ORDERS)

ran: Counter[str] = Counter()
lacking: Counter[str] = Counter()
KINDS = ("embedded", "redis", "redis near", "feast")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | None]:
    ran.clear()  # each file counts its own cases
    lacking.clear()
    program, _ = find_server()
    if not program:
        yield None
        return
    found = Server(tmp_path_factory.mktemp("valkey")).start()
    yield found
    found.stop()


@pytest.fixture(params=KINDS)
def arena(request: pytest.FixtureRequest, tmp_path: Path, server: Server | None) -> Iterator[Arena]:
    remote = request.param.startswith("redis")
    if remote and server is None:
        pytest.skip(find_server()[1])
    found = Arena(request.param, tmp_path, server if remote else None)
    yield found
    found.close()
    ran[request.param] += 1


def lacks(arena: Arena, kind: str, why: str) -> None:
    """Leaves a case out where the store itself, and not the engine, does otherwise."""
    if arena.kind == kind:
        ran[kind] -= 1
        lacking[kind] += 1
        pytest.skip(why)


def customer(**given: Any) -> dict[str, Any]:
    return {"age": 41.5, "visits": 7, "city": "Łódź", "vip": True, "since": 1_700_000_000, **given}


def orders(**given: Any) -> dict[str, Any]:
    groups = {"by_group__keys": ["bread", "tea"], "by_group__spend_90d": [3.5, 0.25], "by_group__count_90d": [2.0, 1.0]}
    return {"spend": 12.25, **groups, "by_brand__keys": [], "by_brand__share": [], **given}
