"""The trained workspace, loaded to decide in this process, and customers of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.columns.rows import OnlineRow
from features.validation.load import load
from serving.reload.reloader import Reloader
from serving.state.snapshot import Snapshot


@pytest.fixture(scope="module")
def desk(trained_workspace: Path) -> Iterator[Reloader]:
    """What a worker holds, without a server."""
    made = Reloader(load(trained_workspace, sources=False))
    made.load()
    assert made.loaded is not None, made.refusal
    yield made
    made.close()


@pytest.fixture(scope="module")
def loaded(desk: Reloader) -> Snapshot:
    assert desk.loaded is not None
    return desk.loaded


@pytest.fixture(scope="module")
def customers(desk: Reloader) -> dict[str, OnlineRow]:
    """Some rows of the store, and the ids that they belong to."""
    found: dict[str, OnlineRow] = {}
    for number in range(60):
        row = asyncio.run(desk.stores.customers.row(f"436{600_000 + number}"))
        assert row is not None
        if row.known:
            found[f"436{600_000 + number}"] = row
    assert len(found) >= 40
    return found
