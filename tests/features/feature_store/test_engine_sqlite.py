"""The Feast engine over SQLite files that are locked, deleted, damaged, and of values that expired."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from features.columns.rows import StoreUnavailable
from features.feature_store.engine import FAILURES_MAX
from tests.features.feast_fixtures import feast_store
from tests.features.feature_store.foreign_stores import SECONDS_MAX, SHOP, SOON_MS
from tests.features.store_cases import Arena, moment, same_as_sdk, write
from tests.waiting import ANSWER_S


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    found = Arena("feast", tmp_path, None)
    yield found
    found.close()


def test_a_locked_database(arena: Arena) -> None:
    """A SQLite file that another process keeps locked is unavailable in time, and read again when it is let go."""
    store = feast_store(
        arena.folder, arena.online, (SHOP,), project=arena.project
    )  # in the mode in which a writer locks readers out
    write(store, SHOP, [("1", {"age": 3.0}, 1.0)])
    engine = arena.engine(SHOP, timeout_ms=SOON_MS)
    arena.recovers(engine)
    with closing(sqlite3.connect(arena.folder / "online.db", timeout=SECONDS_MAX, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        for _ in range(FAILURES_MAX):
            assert arena.unavailable(engine) < ANSWER_S
        holder.execute("COMMIT")
    arena.recovers(engine)
    same_as_sdk(engine, arena.read(engine, "1"), store, (SHOP,), "1")


def test_a_deleted_database(arena: Arena) -> None:
    """A SQLite file that is deleted is noticed and not made anew by reading; another one in its place is read."""
    write(arena.store(SHOP), SHOP, [("1", {"age": 3.0}, 1.0)])
    engine = arena.engine(SHOP)
    arena.recovers(engine)
    for file in arena.folder.glob("online.db*"):
        file.unlink()
    for _ in range(FAILURES_MAX + 1):
        arena.unavailable(engine)
    assert not (arena.folder / "online.db").exists()
    store = arena.store(SHOP)
    write(store, SHOP, [("1", {"age": 4.0}, 2.0)])
    arena.recovers(engine, good=lambda row: row.numbers[0] == 4.0)


def test_a_damaged_database(arena: Arena) -> None:
    """A SQLite file that is none is unavailable, and read again when a good one has been put in its place."""
    store = feast_store(arena.folder, arena.online, (SHOP,), project=arena.project)  # one file, without a log beside it
    write(store, SHOP, [("1", {"age": 3.0}, 1.0)])
    place = arena.folder / "online.db"
    good = Path(shutil.copy(place, arena.folder / "good.db"))
    engine = arena.engine(SHOP)
    arena.recovers(engine)
    (arena.folder / "bad.db").write_bytes(b"\x5a" * 8_192)
    (arena.folder / "bad.db").rename(place)
    arena.unavailable(engine)
    with pytest.raises(StoreUnavailable, match="DatabaseError: file is not a database"):
        arena.read(engine, "1")
    good.rename(place)
    arena.recovers(engine)


def test_a_view_that_expired(arena: Arena) -> None:
    """A value that outlived its view's time to live is given with its event time, as by Feast's SDK: freshness is
    judged later.
    """
    store = arena.store(SHOP)
    write(store, SHOP, [("1", {"age": 3.0, "city": "Łódź"}, -500 * 86_400.0)])
    engine = arena.engine(SHOP)
    row = arena.read(engine, "1")
    same_as_sdk(engine, row, store, (SHOP,), "1")
    assert row.numbers[0] == 3.0
    assert row.event_times.tolist() == [moment(-500 * 86_400.0).timestamp()]
