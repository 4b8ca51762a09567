"""The contract of the online engines: the same cases over LMDB, a real Valkey and SQLite, written by Feast, compared
with Feast.
"""

from __future__ import annotations

import math
import signal
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore
from feast.data_source import PushMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.columns.rows import StoreUnavailable
from tests.features.feast_fixtures import feast_view, view
from tests.features.store_cases import Arena, Rows, moment, same_as_sdk, sdk, write
from tests.features.writer import Writer, rounds_view, values
from tests.stores import Server, find_server
from tests.waiting import ANSWER_S

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


def test_every_dtype(arena: Arena) -> None:
    """Numbers, integers, categories, booleans, times and families arrive as Feast's SDK gives them."""
    store = arena.store(*VIEWS)
    write(store, CUSTOMER, [("1", customer(), 1.0)])
    write(store, ORDERS, [("1", orders(), 2.5)])
    engine = arena.engine(*VIEWS)
    row = arena.read(engine, "1")
    assert row.numbers.tolist()[:2] == [41.5, 7.0]
    assert row.numbers.dtype == np.float64
    assert row.known
    assert engine.damaged == 0
    assert same_as_sdk(engine, row, store, VIEWS, "1") == 10
    assert row.event_times.tolist() == [arena.kept(1.0), arena.kept(2.5)]


EXTREMES: list[dict[str, Any]] = [
    customer(age=math.inf, visits=(1 << 63) - 1, city="", vip=False, since=0),
    customer(age=-math.inf, visits=-(1 << 63), city="\0 \U0001f600 e\u0301 \u202e", since=-62_000_000_000),
    customer(age=-0.0, visits=(1 << 53) + 1, city="x" * 70_000, since=250_000_000_000),
    customer(age=5e-324, visits=-(1 << 53) - 1, city="NaN"),
    customer(age=None, visits=None, city=None, vip=None, since=None),
    customer(age=math.nan, visits=0),
    customer(visits=-1),
    {},
]


def test_extremes(arena: Arena) -> None:
    """Infinities, the smallest and the largest integers, empty and odd texts, nulls and absent fields are kept
    apart.
    """
    store = arena.store(CUSTOMER)
    write(store, CUSTOMER, [(str(i), given, 1.0) for i, given in enumerate(EXTREMES)])
    engine = arena.engine(CUSTOMER)
    for i in range(len(EXTREMES)):
        same_as_sdk(engine, arena.read(engine, str(i)), store, (CUSTOMER,), str(i))
    if arena.kind == "embedded":  # what Feast itself guarantees on Redis, our store has to
        exact = [sdk(store, (CUSTOMER,), str(i))["customer__visits"] for i in range(4)]
        assert exact == [given["visits"] for given in EXTREMES[:4]]
        assert math.isnan(sdk(store, (CUSTOMER,), "5")["customer__age"])
        assert sdk(store, (CUSTOMER,), "4")["customer__age"] is None
    assert engine.damaged == 0


def test_families(arena: Arena) -> None:
    """Empty families, null lists, absent lists, and measures of another length than their keys do no harm."""
    store = arena.store(ORDERS)
    many = [f"group {i:03d}" for i in range(300)]
    rows: Rows = [
        ("empty", orders(by_group__keys=[], by_group__spend_90d=[], by_group__count_90d=[]), 1.0),
        ("null", orders(by_group__keys=None, by_group__spend_90d=None, by_group__count_90d=None), 1.0),
        ("absent", {"spend": 1.0}, 1.0),
        ("half", orders(by_group__count_90d=None), 1.0),
        (
            "long",
            orders(
                by_group__keys=many, by_group__spend_90d=[*map(float, range(300))], by_group__count_90d=[math.nan] * 300
            ),
            1.0,
        ),
        (
            "odd",
            orders(
                by_group__keys=["", "é\0", "x" * 300],
                by_group__spend_90d=[1.0, -0.0, 2.0],
                by_group__count_90d=[1.0] * 3,
            ),
            1.0,
        ),
    ]
    write(store, ORDERS, rows)
    engine = arena.engine(ORDERS)
    for entity, _, _ in rows:
        same_as_sdk(engine, arena.read(engine, entity), store, (ORDERS,), entity)
    assert engine.damaged == 0
    write(store, ORDERS, [("1", orders(by_group__spend_90d=[1.0]), 1.0)])
    found = arena.read(engine, "1").families[0]
    assert found is not None
    assert np.isnan(found.values[0]).all()
    assert found.values[1].tolist() == [2.0, 1.0]
    assert engine.damaged == 1


@pytest.mark.parametrize("entity", ["nobody", "", "x" * 600, "\U0001f600", "\udc80", "a{1}b", "*"])
def test_unknown_customers(arena: Arena, entity: str) -> None:
    """An unknown customer, however spelt, is a row of NaN."""
    store = arena.store(*VIEWS)
    write(store, CUSTOMER, [("1", customer(), 1.0)])
    engine = arena.engine(*VIEWS)
    row = arena.read(engine, entity)
    assert not row.known
    assert np.isnan(row.numbers).all()
    assert row.families == [None, None]
    assert arena.read(engine, "1").known


@pytest.mark.parametrize("entity", ["", "Ł\U0001f600\0 {x}", "e" * 498])
def test_odd_customer_ids(arena: Arena, entity: str) -> None:
    """Ids of any text up to 498 bytes are kept apart."""
    store = arena.store(CUSTOMER)
    write(store, CUSTOMER, [(entity, customer(age=3.0), 1.0), ("1", customer(), 1.0)])
    engine = arena.engine(CUSTOMER)
    assert arena.read(engine, entity).numbers[0] == 3.0
    same_as_sdk(engine, arena.read(engine, entity), store, (CUSTOMER,), entity)


def test_missing_views(arena: Arena) -> None:
    """A customer known to one view only has NaN for the others; the times of views are their own."""
    store = arena.store(*VIEWS)
    write(store, ORDERS, [("1", orders(), 5.0)])
    engine = arena.engine(*VIEWS)
    row = arena.read(engine, "1")
    same_as_sdk(engine, row, store, VIEWS, "1")
    assert np.isnan(row.event_times[0])
    assert row.event_times[1] == moment(5.0).timestamp()
    write(store, CUSTOMER, [("1", customer(), 9.0)])
    row = arena.read(engine, "1")
    same_as_sdk(engine, row, store, VIEWS, "1")
    assert row.event_times.tolist() == [moment(9.0).timestamp(), moment(5.0).timestamp()]


def test_views_of_a_subset(arena: Arena) -> None:
    """An engine that wants some of the stored views, in its own order, passes over the rest."""
    other = view("visits", {"pages": "integer"})
    store = arena.store(other, *VIEWS)
    write(store, other, [("1", {"pages": 3}, 1.0)])
    write(store, CUSTOMER, [("1", customer(), 1.0)])
    write(store, ORDERS, [("1", orders(), 1.0)])
    for views in ((ORDERS, CUSTOMER), (ORDERS,), (other, ORDERS), (CUSTOMER, other)):
        engine = arena.engine(*views)
        same_as_sdk(engine, arena.read(engine, "1"), store, views, "1")


def test_fields_come_and_go(arena: Arena) -> None:
    """After a view has changed, old rows are read by name: new fields are missing, removed ones are passed over."""
    before = view("customer", {"age": "number", "gone": "integer", "city": "category"}, {"by_group": ["a"]})
    after = view(
        "customer", {"city": "category", "new": "boolean", "age": "number"}, {"by_group": ["b", "a"], "by_new": ["a"]}
    )
    old = {"age": 1.5, "gone": 4, "city": "Roma", "by_group__keys": ["x"], "by_group__a": [2.0]}
    store = arena.store(before)
    write(store, before, [("1", old, 1.0), ("2", old, 1.0)])
    early = arena.engine(before)
    arena.read(early, "1")
    store = arena.store(after)
    engine = arena.engine(after)
    same_as_sdk(engine, arena.read(engine, "1"), store, (after,), "1")
    new = {
        "age": 2.5,
        "new": True,
        "city": "Łódź",
        "by_group__keys": ["x", "y"],
        "by_group__a": [2.0, 3.0],
        "by_group__b": [4.0, 5.0],
    }
    write(store, after, [("1", new, 2.0)])
    for entity in ("1", "2"):
        same_as_sdk(engine, arena.read(engine, entity), store, (after,), entity)
    row = arena.read(early, "1")
    assert row.numbers[0] == 2.5
    assert early.words.texts[int(row.numbers[2])] == "Łódź"


def test_field_of_another_type(arena: Arena) -> None:
    """A field that has changed its type is missing until it is written again."""
    before, after = (
        view("customer", {"a": "number", "b": "integer"}),
        view("customer", {"a": "category", "b": "integer"}),
    )
    store = arena.store(before)
    write(store, before, [("1", {"a": 1.0, "b": 2}, 1.0)])
    store = arena.store(after)
    engine = arena.engine(after)
    row = arena.read(engine, "1")
    assert np.isnan(row.numbers[0])
    assert row.numbers[1] == 2.0
    write(store, after, [("1", {"a": "x", "b": 2}, 2.0)])
    same_as_sdk(engine, arena.read(engine, "1"), store, (after,), "1")


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


def test_everyone(arena: Arena) -> None:
    """The row of everyone has a plan of its own, is read at once, and stays out of customers' rows."""
    store = arena.store(ORDERS, EVERYONE)
    engine = arena.engine(ORDERS, EVERYONE)
    if arena.kind.startswith("redis"):
        assert not engine.everyone().known
    write(store, EVERYONE, [("*", {"by_group__keys": ["bread", "tea"], "by_group__spend_90d": [100.0, 50.0]}, 1.0)])
    write(store, ORDERS, [("*", orders(), 2.0)])
    row = engine.everyone()
    same_as_sdk(engine, row, store, (EVERYONE,), "*")
    assert row.event_times.tolist() == [moment(1.0).timestamp()]
    same_as_sdk(engine, arena.read(engine, "*"), store, (ORDERS,), "*")


def test_feast_reads_some_fields(arena: Arena) -> None:
    """Feast's own read gives the requested fields only, for known and unknown keys at once."""
    store = arena.store(*VIEWS)
    write(store, CUSTOMER, [("1", customer(), 1.0)])
    answer = store.get_online_features(
        ["customer:city", "orders:spend"], [{"customer_id": "nobody"}, {"customer_id": "1"}]
    ).to_dict()
    assert answer == {"customer_id": ["nobody", "1"], "city": [None, "Łódź"], "spend": [None, None]}


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
        ran[arena.kind] += 1


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
    engine = arena.engine(CUSTOMER, timeout_ms=25)
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
