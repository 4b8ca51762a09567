"""The contract of the online engines: the same rows over LMDB, a real Valkey and SQLite, written by Feast, compared
with Feast.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.features.feast_fixtures import view
from tests.features.online.engine_cases import (
    CUSTOMER,
    EVERYONE,
    KINDS,
    ORDERS,
    VIEWS,
    arena,
    customer,
    lacking,
    orders,
    ran,
    server,
)
from tests.features.store_cases import Arena, Rows, moment, same_as_sdk, sdk, write
from tests.stores import find_server

__all__ = ["arena", "server"]


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


def test_zz_the_same_cases_ran_on_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Says how many cases ran on each engine: as many on one as on the other, and some."""
    with capsys.disabled():
        print("\nonline contract, rows:", *(f"{ran[kind]} cases on {kind};" for kind in KINDS), find_server()[1])
    assert ran["embedded"] > 0
    assert ran["feast"] + lacking["feast"] == ran["embedded"]
    assert ran["redis"] == ran["redis near"]
    assert ran["redis"] in ((ran["embedded"],) if find_server()[0] else (0,))
