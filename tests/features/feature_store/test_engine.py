"""The Feast engine over a foreign store: the store's faults, and the bounds of the engine's threads."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import DoubleList, StringList, Value

from features.columns.rows import OnlineRow, StoreUnavailable
from features.feature_store.engine import FAILURES_MAX
from features.feature_store.reader_pool import STAND_INS_MAX, THREADS, WAITING_MAX
from tests.features.fake_feast_store import USERS, Read
from tests.features.feature_store.foreign_stores import EVERYONE, GOOD, SHOP, SOON_MS, Foreign, foreign, readers
from tests.features.store_cases import moment

__all__ = ["foreign"]


def test_what_a_foreign_store_gives(foreign: Foreign) -> None:
    """A naive time is UTC; values of another type, of no known age or of another length are missing and counted."""
    families = {
        "by_group__keys": Value(string_list_val=StringList(val=["a", "b"])),
        "by_group__spend": Value(string_val="x"),
    }
    lists = {**families, "by_group__count": Value(double_list_val=DoubleList(val=[1.0, 2.0]))}
    values = {
        "age": Value(int64_val=3),
        "visits": Value(int64_val=7),
        "since": Value(unix_timestamp_val=-(1 << 63)),
        "other": Value(),
    }
    reads: dict[str, Read] = {
        "naive": (datetime(2026, 1, 2, 3, 4, 5, 6), {**values, **lists}),  # noqa: DTZ001 - what is shown
        "ageless": (None, {"age": Value(double_val=1.0)}),
        "absent": (None, None),
        "null": (moment(2.0), {"age": Value(null_val=0), "by_group__keys": Value()}),
    }
    foreign.acts(lambda view, customer: reads.get(customer, GOOD))
    engine = foreign.engine()
    row: OnlineRow = foreign.run(engine.read("naive"))
    assert row.event_times.tolist() == [datetime(2026, 1, 2, 3, 4, 5, 6, UTC).timestamp()]
    np.testing.assert_array_equal(row.numbers, [np.nan, 7.0, np.nan, np.nan])
    assert row.families[0] is not None
    np.testing.assert_array_equal(row.families[0].values, [[np.nan, np.nan], [1.0, 2.0]])
    assert [engine.words.texts[key] for key in row.families[0].keys] == ["a", "b"]
    assert engine.damaged == 2
    assert not foreign.run(engine.read("ageless")).known
    assert engine.damaged == 3
    assert not foreign.run(engine.read("absent")).known
    row = foreign.run(engine.read("null"))
    assert row.known
    assert np.isnan(row.numbers).all()
    assert row.families == [None]
    assert engine.damaged == 3


@pytest.mark.parametrize(
    "thrown", [ValueError("odd"), OSError("no route"), KeyError("x"), RuntimeError("x" * 10_000), StopIteration()]
)
def test_whatever_a_store_throws(foreign: Foreign, thrown: Exception) -> None:
    """Any exception of a store is StoreUnavailable with its message, opens the breaker, and is over when the store
    mends.
    """

    def throws(view: str, customer: str) -> Read:
        raise thrown

    foreign.acts(throws)
    engine = foreign.engine(SHOP, EVERYONE)
    with pytest.raises(StoreUnavailable, match=type(thrown).__name__):
        engine.everyone()
    for _ in range(FAILURES_MAX):
        with pytest.raises(StoreUnavailable, match=type(thrown).__name__) as caught:
            foreign.run(engine.read("1"))
        assert len(str(caught.value)) < 400
    assert engine.open
    with pytest.raises(StoreUnavailable, match=type(thrown).__name__):
        foreign.run(engine.read("1"))
    with pytest.raises(StoreUnavailable, match=type(thrown).__name__):
        engine.everyone()
    foreign.acts(lambda view, customer: GOOD)
    foreign.until(lambda: foreign.answers(engine))
    assert not engine.open
    assert engine.everyone().known


def test_half_closed(foreign: Foreign) -> None:
    """After a read that was tried succeeds, one more failure opens the breaker again, and a success forgets all
    failures.
    """
    broken = threading.Event()
    broken.set()

    def act(view: str, customer: str) -> Read:
        if broken.is_set():
            raise OSError("gone")
        return GOOD

    foreign.acts(act)
    engine = foreign.engine()
    for _ in range(FAILURES_MAX):
        assert not foreign.answers(engine)
    broken.clear()
    foreign.until(lambda: not engine.open)
    assert engine.failures == FAILURES_MAX - 1
    broken.set()
    assert not foreign.answers(engine)
    assert engine.open
    broken.clear()
    foreign.until(lambda: foreign.answers(engine))
    assert engine.failures == 0


def test_a_store_that_hangs(foreign: Foreign) -> None:
    """Reads of a store that hangs end in time, the breaker opens, threads and queue stay bounded, and it is over when
    it answers.
    """
    before = readers()
    hanging = threading.Event()
    foreign.acts(lambda view, customer: foreign.hangs() if hanging.is_set() else GOOD)
    engine = foreign.engine(timeout_ms=SOON_MS)
    foreign.until(lambda: foreign.answers(engine))
    hanging.set()

    async def crowd() -> list[OnlineRow | BaseException]:
        return await asyncio.gather(*(engine.read(str(i)) for i in range(WAITING_MAX * 2)), return_exceptions=True)

    found = foreign.run(crowd())
    assert {type(each) for each in found} == {StoreUnavailable}
    texts = {str(each) for each in found}
    assert texts == {"too many reads are waiting for the online store", "the online store did not answer within 50 ms"}
    assert engine.open
    with pytest.raises(StoreUnavailable, match="did not answer within 50 ms"):
        foreign.run(engine.read("1"))
    assert len(readers() - before) <= THREADS
    foreign.released.set()
    hanging.clear()
    foreign.until(lambda: foreign.answers(engine))


def test_answers_that_never_come(foreign: Foreign) -> None:
    """Threads that hang for good are stood in for, within a bound, and the store is read again once it answers."""
    before = readers()
    foreign.acts(foreign.hangs)
    engine = foreign.engine(timeout_ms=SOON_MS, hang_seconds=0.1)
    for _ in range(FAILURES_MAX):
        assert not foreign.answers(engine)
    foreign.until(lambda: len(readers() - before) > THREADS)
    foreign.acts(lambda view, customer: GOOD)
    foreign.until(lambda: foreign.answers(engine))
    assert len(readers() - before) <= THREADS + STAND_INS_MAX
    assert not foreign.released.is_set()


def test_stand_ins_are_bounded(foreign: Foreign) -> None:
    """A store that goes on hanging takes no more threads than were allowed to it."""
    before = readers()
    foreign.acts(foreign.hangs)
    engine = foreign.engine(timeout_ms=SOON_MS, hang_seconds=0.02)
    for _ in range(FAILURES_MAX):
        assert not foreign.answers(engine)
    foreign.until(lambda: len(readers() - before) == THREADS + STAND_INS_MAX)
    foreign.run(asyncio.sleep(0.3))
    assert len(readers() - before) == THREADS + STAND_INS_MAX
    engine.close()
    foreign.released.set()
    foreign.until(lambda: not readers() - before)


def test_a_read_that_is_given_up_still_counts(foreign: Foreign) -> None:
    """Who asks may stop waiting before the engine's deadline: the store is held to it all the same."""
    hanging = threading.Event()
    foreign.acts(lambda view, customer: foreign.hangs() if hanging.is_set() else GOOD)
    engine = foreign.engine(timeout_ms=SOON_MS)
    foreign.until(lambda: foreign.answers(engine))
    hanging.set()

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.read("1"), 0.001)

    for _ in range(FAILURES_MAX):
        foreign.run(impatient())
    foreign.until(lambda: engine.open)


def test_each_thread_has_a_store_of_its_own(foreign: Foreign) -> None:
    """Concurrent reads give each customer their own row, and no store object is used by two threads."""

    def act(view: str, customer: str) -> Read:
        time.sleep(0.001)  # long enough for all threads to have something to do
        return moment(1.0), {"age": Value(double_val=float(customer or 0))}

    foreign.acts(act)
    engine = foreign.engine()

    async def crowd() -> list[OnlineRow]:
        return await asyncio.gather(*(engine.read(str(i)) for i in range(WAITING_MAX - THREADS)))

    for _ in range(5):
        assert [row.numbers[0] for row in foreign.run(crowd())] == [*map(float, range(WAITING_MAX - THREADS))]
    stores, threads = zip(*USERS[foreign.name], strict=True)
    assert len(stores) == len(set(stores)) == len(set(threads)) == THREADS


def test_closed(foreign: Foreign) -> None:
    """A closed engine says so, and its threads end."""
    before = readers()
    engine = foreign.engine(SHOP, EVERYONE)
    foreign.until(lambda: foreign.answers(engine))
    engine.close()
    engine.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        engine.everyone()
    with pytest.raises(StoreUnavailable, match="closed"):
        foreign.run(engine.read("1"))
    foreign.until(lambda: not readers() - before)


def test_another_time_zone_is_refused(foreign: Foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast's SQLite store shifts times by the zone of the process, so that a process in another than UTC does not
    begin.
    """
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        with pytest.raises(ValueError, match=r"expected a process in UTC .* got one in E[SD]T"):
            foreign.engine()
    finally:
        monkeypatch.undo()
        time.tzset()
