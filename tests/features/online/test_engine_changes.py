"""The contract of the online engines, where rows change and stores go: written again or late, by two at once, gone and
back.
"""

from __future__ import annotations

import math
import signal
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast.data_source import PushMode

from features.columns.rows import StoreUnavailable
from tests.features.feast_fixtures import feast_view
from tests.features.online.engine_cases import (
    CUSTOMER,
    KINDS,
    ORDERS,
    VIEWS,
    arena,
    customer,
    lacking,
    lacks,
    orders,
    ran,
    server,
)
from tests.features.store_cases import Arena, moment, same_as_sdk, write
from tests.features.writer import Writer, rounds_view, values
from tests.stores import find_server
from tests.waiting import ANSWER_S

__all__ = ["arena", "server"]


def test_older_never_overwrites_newer(arena: Arena) -> None:
    """An older event changes nothing, in a later batch or in the same one; other views' times play no part."""
    lacks(arena, "feast", "Feast's SQLite store keeps what was written last")
    store = arena.store(*VIEWS)
    write(store, CUSTOMER, [("1", customer(age=2.0), 10.0)])
    write(store, CUSTOMER, [("1", customer(age=1.0), 9.999999)])
    write(
        store, CUSTOMER, [("2", customer(age=3.0), 3.0), ("2", customer(age=5.0), 5.0), ("2", customer(age=4.0), 4.0)]
    )
    write(store, ORDERS, [("1", orders(), 1.0)])
    engine = arena.engine(*VIEWS)
    assert [arena.read(engine, entity).numbers[0] for entity in ("1", "2")] == [2.0, 5.0]
    assert arena.read(engine, "1").event_times.tolist() == [moment(10.0).timestamp(), moment(1.0).timestamp()]
    write(store, CUSTOMER, [("1", customer(age=7.0), 10.000001)])
    assert arena.read(engine, "1").numbers[0] == 7.0


def test_equal_event_times(arena: Arena) -> None:
    """Of two rows with the same event time the first is kept, in a later batch or in the same one."""
    lacks(arena, "feast", "Feast's SQLite store keeps what was written last")
    store = arena.store(CUSTOMER)
    write(store, CUSTOMER, [("1", customer(age=1.0), 10.0)])
    write(store, CUSTOMER, [("1", customer(age=2.0), 10.0)])
    write(store, CUSTOMER, [("2", customer(age=3.0), 10.0), ("2", customer(age=4.0), 10.0)])
    engine = arena.engine(CUSTOMER)
    assert [arena.read(engine, entity).numbers[0] for entity in ("1", "2")] == [1.0, 3.0]


def test_push_and_dataframes(arena: Arena) -> None:
    """What pandas makes of missing values, times and lists on the way through Feast's push and write arrives as the SDK
    says.
    """
    store = arena.store(*VIEWS)
    frame = pd.DataFrame(
        {
            "customer_id": ["1", "2"],
            "age": [41.5, math.nan],
            "visits": pd.array([7, None], dtype="Int64"),
            "city": ["Łódź", None],
            "vip": pd.array([True, None], dtype="boolean"),
            "since": [pd.Timestamp("2020-02-29T23:59:59Z"), pd.NaT],
            "event_timestamp": [pd.Timestamp(moment(1.5))] * 2,
        }
    )
    store.push("customer_push", frame, to=PushMode.ONLINE)
    lists = {name: [value, value] for name, value in orders().items()}
    store.write_to_online_store(
        "orders", df=pd.DataFrame({"customer_id": ["1", "2"], **lists, "event_timestamp": [moment(2.0)] * 2})
    )
    engine = arena.engine(*VIEWS)
    for entity in ("1", "2"):
        same_as_sdk(engine, arena.read(engine, entity), store, VIEWS, entity)
    assert arena.read(engine, "1").numbers[4] == 1_583_020_799.0
    assert np.isnan(arena.read(engine, "2").numbers[:5]).all()


def test_materialize(arena: Arena) -> None:
    """Feast's materialize from its DuckDB offline store fills the online store with the newest row of each customer."""
    store = arena.store(*VIEWS)
    count = 300
    frame = pd.DataFrame(
        {
            "customer_id": [str(i) for i in range(count)] * 2,
            "age": [float(i) for i in range(2 * count)],
            "visits": list(range(2 * count)),
            "city": [f"city {i % 11}" for i in range(2 * count)],
            "vip": [i % 2 == 0 for i in range(2 * count)],
            "since": pd.to_datetime([1_600_000_000 + i for i in range(2 * count)], unit="s", utc=True),
            "event_timestamp": [moment(10.0)] * count + [moment(5.0)] * count,
        }
    )
    frame.to_parquet(arena.folder / "customer.parquet")
    listed = {name: [value] * count for name, value in orders().items()}
    pd.DataFrame({"customer_id": frame.customer_id[:count], **listed, "event_timestamp": moment(7.0)}).to_parquet(
        arena.folder / "orders.parquet"
    )
    store.materialize(moment(0) - timedelta(days=1), moment(0) + timedelta(days=1))
    engine = arena.engine(*VIEWS)
    for i in range(0, count, 29):
        row = arena.read(engine, str(i))
        same_as_sdk(engine, row, store, VIEWS, str(i))
        assert row.numbers[0] == float(i)
        assert row.event_times.tolist() == [moment(10.0).timestamp(), moment(7.0).timestamp()]


def test_removed_view(arena: Arena) -> None:
    """A view that is removed from Feast takes its values along while the other views' stay, and a teardown takes
    all.
    """
    lacks(arena, "feast", "Feast's SQLite store drops the table of a view, and reads of it fail")
    store = arena.store(*VIEWS)
    write(store, CUSTOMER, [(str(i), customer(), 1.0) for i in range(3)])
    write(store, ORDERS, [("1", orders(), 1.0)])
    engine = arena.engine(*VIEWS)
    assert arena.read(engine, "1").known
    store.apply([], objects_to_delete=[feast_view(ORDERS, arena.folder)], partial=False)
    row = arena.read(engine, "1")
    assert np.isnan(row.event_times).tolist() == [False, True]
    assert row.families == [None, None]
    store.teardown()
    assert not arena.read(engine, "1").known


def whole(arena: Arena, engine: Any, entity: str, names: tuple[str, ...]) -> list[float]:
    """Asserts that each view's row is of one round; the rounds."""
    row = arena.read(engine, entity)
    rounds = []
    for index, _ in enumerate(names):
        first, second = row.numbers[2 * index : 2 * index + 2]
        if np.isnan(first):
            assert np.isnan(second)
            assert row.families[index] is None
            continue
        found = row.families[index]
        assert found is not None
        assert first == second
        assert found.values[0].tolist() == [first] * (int(first) % 7 + 1)
        assert row.event_times[index] == moment(first).timestamp()
        rounds.append(first)
    return rounds


def test_concurrent_writers(arena: Arena) -> None:
    """Two processes write two views of the same customers while a third reads: no row is torn, and none is lost."""
    views = (rounds_view("left"), rounds_view("right"))
    store = arena.store(*views)
    writers = [Writer(arena, v.name, 1, 12, 60) for v in views]
    engine = arena.engine(*views)
    reads = 0
    while any(writer.process.is_alive() for writer in writers):
        for i in range(60):
            whole(arena, engine, str(i), ("left", "right"))
            reads += 1
    assert [writer.close() for writer in writers] == [0, 0]
    assert reads > 0
    assert [whole(arena, engine, str(i), ("left", "right")) for i in range(60)] == [[12.0, 12.0]] * 60
    assert engine.damaged == 0
    write(store, views[0], [("0", values("left", 13), 13.0)])
    assert whole(arena, engine, "0", ("left", "right")) == [13.0, 12.0]


def test_killed_writer(arena: Arena) -> None:
    """A writer that is killed in the middle of a batch leaves whole rows, no lock, and room for the next writer."""
    target = rounds_view("left")
    store = arena.store(target)
    write(store, target, [(str(i), values("left", 1), 1.0) for i in range(1_500)])
    writer = Writer(arena, "left", 2, 1_000, 1_500)
    engine = arena.engine(target)
    assert [writer.told.recv() for _ in range(2)] == [2, 3]
    writer.process.kill()
    assert writer.close() == -signal.SIGKILL
    rounds = {whole(arena, engine, str(i), ("left",))[0] for i in range(1_500)}
    assert max(rounds) >= 3.0
    assert engine.damaged == 0
    write(store, target, [("0", values("left", 5_000), 5_000.0)])
    assert whole(arena, engine, "0", ("left",)) == [5_000.0]


def test_gone_and_back(arena: Arena) -> None:
    """A store that is gone is noticed within its time, said so, and read again by itself when it is back."""
    store = arena.store(CUSTOMER)
    write(store, CUSTOMER, [("1", customer(), 1.0)])
    # Feast's own store takes longer than 25 ms to open again where the cores have other work.
    engine = arena.engine(CUSTOMER, timeout_ms=500 if arena.kind == "feast" else 25)
    arena.recovers(engine)
    arena.break_it()
    try:
        assert arena.unavailable(engine) < ANSWER_S
        for _ in range(20):
            assert arena.unavailable(engine) < ANSWER_S
        with pytest.raises(StoreUnavailable):
            engine.everyone() if arena.kind == "embedded" else arena.read(engine, "1")
    finally:
        arena.mend_it()
    arena.recovers(engine)
    same_as_sdk(engine, arena.read(engine, "1"), store, (CUSTOMER,), "1")


def test_absent_at_start(arena: Arena) -> None:
    """An engine that starts before its store says so, and reads when the store is there."""
    store = arena.store(CUSTOMER)
    write(store, CUSTOMER, [("1", customer(), 1.0)])
    arena.break_it()
    engine = arena.engine(CUSTOMER, timeout_ms=25)
    try:
        assert arena.unavailable(engine) < ANSWER_S
    finally:
        arena.mend_it()
    arena.recovers(engine)


def test_emptied(arena: Arena) -> None:
    """A store that has lost its rows gives unknown customers or says that it is gone, never old values; filled again,
    it is read.
    """
    store = arena.store(CUSTOMER)
    write(store, CUSTOMER, [("1", customer(), 1.0)])
    engine = arena.engine(CUSTOMER)
    assert arena.read(engine, "1").known
    arena.empty_it()
    if arena.kind == "embedded":
        arena.unavailable(engine)
    else:
        assert not arena.read(engine, "1").known
    write(store, CUSTOMER, [("2", customer(city="Roma"), 1.0)])
    arena.recovers(engine, "2")
    same_as_sdk(engine, arena.read(engine, "2"), store, (CUSTOMER,), "2")
    assert not arena.read(engine, "1").known


def test_zz_the_same_cases_ran_on_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Says how many cases ran on each engine: as many on one as on the other, and some."""
    with capsys.disabled():
        told = (
            f"{ran[kind]} cases on {kind}" + (f" ({lacking[kind]} left out);" if lacking[kind] else ";")
            for kind in KINDS
        )
        print("\nonline contract:", *told, find_server()[1])
    assert ran["embedded"] > 0
    assert (ran["feast"] + lacking["feast"], lacking["feast"]) == (ran["embedded"], 3)
    assert ran["redis"] == ran["redis near"]
    assert ran["redis"] in ((ran["embedded"],) if find_server()[0] else (0,))
