"""One Valkey, an arena on it, and a row of its shop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.features.feast_fixtures import view
from tests.features.store_cases import Arena
from tests.stores import Server

SHOP = view("shop", {"age": "number", "city": "category"}, {"by_group": ["spend"]})


def row(i: int) -> dict[str, object]:
    return {"age": float(i), "city": f"city {i}", "by_group__keys": [f"g{i}"], "by_group__spend": [float(i)]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("valkey")).start()
    yield found
    found.stop()


@pytest.fixture
def arena(tmp_path: Path, server: Server) -> Iterator[Arena]:
    found = Arena("redis", tmp_path, server)
    yield found
    found.close()
