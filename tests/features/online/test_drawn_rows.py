"""Drawn rows: whatever Feast can write is read the same from all stores, by the engine and by Feast's SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from feast import FeatureStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.features.online.engine_cases import CUSTOMER, ORDERS, VIEWS, server
from tests.features.store_cases import Arena, same_as_sdk, write
from tests.stores import Server

__all__ = ["server"]


@pytest.fixture(scope="module")
def drawn(
    tmp_path_factory: pytest.TempPathFactory, server: Server | None
) -> Iterator[list[tuple[Arena, FeatureStore, Any]]]:
    arenas = [Arena(kind, tmp_path_factory.mktemp("drawn"), None) for kind in ("embedded", "feast")]
    if server is not None:
        arenas += [Arena(kind, tmp_path_factory.mktemp("drawn"), server) for kind in ("redis", "redis near")]
    yield [(arena, arena.store(*VIEWS), arena.engine(*VIEWS)) for arena in arenas]
    for arena in arenas:
        arena.close()


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
number = st.none() | st.floats()
LISTED = st.lists(st.tuples(text, st.floats(), st.floats()), max_size=5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    age=number,
    visits=st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
    city=st.none() | text,
    vip=st.none() | st.booleans(),
    since=st.none() | st.integers(-62_000_000_000, 250_000_000_000),
    spend=number,
    groups=st.none() | LISTED,
    seconds=st.floats(0, 1e6),
)
def test_drawn_rows(
    drawn: list[tuple[Arena, FeatureStore, Any]], groups: Any, spend: Any, seconds: float, **given: Any
) -> None:
    """Any row that Feast can write is read the same by the engine and by the SDK, and the same from all stores."""
    rows = []
    entity = f"{test_drawn_rows.__name__}{next(_drawn)}"
    lists = [None] * 3 if groups is None else [[group[i] for group in groups] for i in range(3)]
    listed = dict(zip(("by_group__keys", "by_group__spend_90d", "by_group__count_90d"), lists, strict=True))
    for arena, store, engine in drawn:
        write(store, CUSTOMER, [(entity, given, seconds)])
        write(store, ORDERS, [(entity, {"spend": spend, **listed}, seconds)])
        row = arena.read(engine, entity)
        same_as_sdk(engine, row, store, VIEWS, entity)
        assert row.event_times.tolist() == [arena.kept(seconds)] * 2
        rows.append(np.delete(row.numbers, 2))
    for other in rows[1:]:
        np.testing.assert_array_equal(rows[0], other)


_drawn = iter(range(1 << 30))
