"""Ages of values: older than its limit a value is missing wherever it is looked at, and an answer may say so."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.columns.catalogue import Catalogue
from features.columns.contract import Contract, contract_of
from features.columns.layout import Layout
from features.columns.rows import Dictionary, KeyedRow, OnlineRow, RowSchema
from features.columns.views import views_of
from features.common.types import Offer
from features.config.features_file import FeaturesFile
from features.expressions.nodes import Term
from features.lmdb_store import environment
from features.validation.load import load
from serving.conditions.inputs import ConditionInputs, PairFacts
from serving.hub.consent import ConsentPolicy
from serving.reload import reloader as desks
from serving.reload.reloader import Reloader
from serving.state.freshness import Freshness
from serving.stores import global_row
from tests.serving.live import serving_copy, wait_for

NOW = 1_790_000_000.0
DAY = 86_400.0
PAIR = {"stream": "moves", "key": "shop", "match": "shop", "aggregate": "count"}
FEATURES = msgspec.convert(
    {
        "customer": {
            "attributes": {
                "age": {"dtype": "integer", "freshness": "2d"},
                "vip": {"dtype": "boolean", "freshness": "1d"},
            }
        },
        "consent": {"personalization": {"column": "vip", "unknown": "denied"}},
        "streams": {"moves": {"numbers": ["amount"], "categories": ["shop"], "freshness": "10d"}, "calls": {}},
        "offer": {"shop": {"dtype": "category"}},
        "columns": {
            "spend": {"stream": "moves", "aggregate": "sum", "of": "amount"},
            "rules_only": {"stream": "moves", "aggregate": "count", "freshness": "1h", "model": False},
            "calls": {"stream": "calls", "aggregate": "count"},
        },
        "pairs": {
            "bought": PAIR | {"freshness": "3d", "relative": ["share"]},
            "popular": PAIR | {"scope": "everyone", "freshness": "4d", "relative": ["share"]},
        },
    },
    FeaturesFile,
)
VIEWS = views_of(FEATURES)
OWN, EVERYONE = RowSchema.of(VIEWS), RowSchema.of(VIEWS, "everyone")
CONTRACT = contract_of(FEATURES)
STEPS = [(-1.0, True), (0.0, True), (1.0, False)]
"""Seconds from a limit, and whether a value of that age counts."""


def row_of(plan: RowSchema, words: Dictionary, age: float) -> OnlineRow:
    """A row with a value in every place, all of one age."""
    row = plan.nobody()
    row.numbers[:] = 1.0
    for name, at in plan.families.items():
        measures = next(len(f.measures) for v in plan.views for f in v.families if f"{v.name}.{f.name}" == name)
        row.families[at] = KeyedRow(np.array([words.id("s1")], np.uint32), np.full((measures, 1), 5.0))
    row.event_times[:] = NOW - age
    return row


def laid(age: float) -> dict[str, float]:
    """Every column of the model for one offer, by name."""
    words = Dictionary()
    layout = Layout(
        CONTRACT, OWN, EVERYONE, Catalogue([Offer("o", attributes={"shop": "s1"})]), {"offer_shop": ["s1"]}, words
    )
    own, everyone = row_of(OWN, words, age), row_of(EVERYONE, words, age)
    offers = layout.offer_values(everyone, NOW)
    pairs = layout.pair_values(own, everyone, offers, np.array([0], np.int32), NOW)
    values = [*layout.shared_values(own, {}, NOW).tolist(), *offers[0].tolist(), *pairs[0].tolist()]
    return dict(zip(CONTRACT.names, values, strict=True))


def test_every_column_of_the_model_lives_as_long_as_its_limit() -> None:
    """At its limit a value still counts and a second later it is missing, for customer, pair and relative columns
    alike.
    """
    looked = 0
    for column in CONTRACT.columns:
        if column.freshness_seconds is None:
            continue
        for beyond, known in STEPS:
            value = laid(column.freshness_seconds + beyond)[column.name]
            assert value in (1.0, 5.0) if known else math.isnan(value), (column.name, beyond, value)
            looked += 1
    assert looked == 3 * 7, "age, vip, spend, and two pair columns with what compares them"


@pytest.mark.parametrize(("beyond", "known"), STEPS)
def test_rules_see_a_value_as_long_as_its_limit(beyond: float, known: bool) -> None:
    """Conditions look at customer columns of every dtype and at pair columns by the same limits as the model."""
    words = Dictionary()
    terms = {name: Term(name, dtype) for name, dtype in (("customer.age", "number"), ("customer.vip", "boolean"))}
    limits = {"customer.age": 2 * DAY, "customer.vip": DAY, "customer.rules_only_all": 3_600.0}
    terms["customer.rules_only_all"] = Term("customer.rules_only_all", "number")
    facts = ConditionInputs(terms, OWN, {}, words)
    for at, name in enumerate(terms):
        value = facts(row_of(OWN, words, limits[name] + beyond), {}, NOW)[at]
        assert value == 1.0 if known else math.isnan(float(value or math.nan)), (name, value)
    catalogue = Catalogue([Offer("o", attributes={"shop": "s1"})])
    layout = Layout(CONTRACT, OWN, EVERYONE, catalogue, {"offer_shop": ["s1"]}, words)
    for name, limit in (("pair.bought_all", 3 * DAY), ("pair.popular_all", 4 * DAY)):
        found = PairFacts({name: Term(name, "number")}, layout, catalogue)
        value = found(row_of(OWN, words, limit + beyond), row_of(EVERYONE, words, limit + beyond), NOW)[0, 0]
        assert value == 5.0 if known else math.isnan(value), (name, value)


def test_consent_lives_as_long_as_its_limit() -> None:
    """Stored consent that is older than its limit is unknown, and unknown is denied where the workspace says so."""
    purposes = ConsentPolicy(FEATURES, OWN)
    assert purposes.withheld(row_of(OWN, Dictionary(), DAY + 1), None, now=NOW) is not None
    assert purposes.withheld(row_of(OWN, Dictionary(), DAY), None, now=NOW) is None


ages = st.none() | st.sampled_from(
    [limit + beyond for limit in (3_600.0, DAY, 2 * DAY, 3 * DAY, 4 * DAY, 10 * DAY) for beyond in (-1, 0, 1)]
)


@given(st.lists(ages, min_size=len(VIEWS), max_size=len(VIEWS)))
def test_a_row_is_stale_when_a_value_that_the_model_uses_is(drawn: list[float | None]) -> None:
    """The flag is the question of each column of the model alone, asked of all of them; what is absent is not stale."""
    of_view = dict(zip([view.name for view in VIEWS], drawn, strict=True))
    for plan in (OWN, EVERYONE):
        times = np.array([math.nan if of_view[view.name] is None else NOW - of_view[view.name] for view in plan.views])  # type: ignore[operator]
        names = {view.name for view in plan.views}
        expected = False
        for column in CONTRACT.columns:
            view = column.source.split(".")[0]
            if (column.kind == "customer" or column.match) and view in names and of_view[view] is not None:
                expected |= column.freshness_seconds is not None and of_view[view] > column.freshness_seconds  # type: ignore[operator]
        assert Freshness(CONTRACT, plan).stale(times, NOW) is expected


def test_what_only_rules_use_makes_no_row_stale() -> None:
    """The limit of an hour is that of a column the model does not see, and a view without limits is never stale."""
    assert dict(Freshness(CONTRACT, OWN).limits) == {0: DAY, 2: 3 * DAY} and [view.name for view in OWN.views] == [
        "customer",
        "calls",
        "moves",
    ]
    assert Freshness(CONTRACT, EVERYONE).limits == ((0, 4 * DAY),)
    assert not Freshness(Contract(()), OWN).stale(np.zeros(3), NOW)


def test_an_emptied_store_is_noticed_within_its_bound(trained_workspace: Path, tmp_path: Path) -> None:
    """Where an empty generation takes the place of a full one, customers become strangers without an error, which the
    desk finds out.
    """
    assert global_row.STRANGERS_SECONDS + desks.WATCH_SECONDS <= 5.0, "what the documentation promises"
    folder = serving_copy(trained_workspace, tmp_path / "shop")
    desk = Reloader(load(folder, sources=False))
    desk.load()
    try:
        assert asyncio.run(desk.stores.customers.row("436600000")) is not None
        root, full = desk.workspace.online, environment.current(desk.workspace.online)
        empty = environment.new_generation(root)
        environment.attach(root, create=True, generation=empty).release()
        environment.publish(root, empty)

        def away() -> bool:
            async def looked() -> bool:
                row = await desk.stores.customers.row("436600000")
                await desk.look()
                return row is None

            return asyncio.run(looked())

        wait_for(away, what="the notice of an empty store")
        environment.publish(root, full)
        wait_for(lambda: not away(), what="the notice of a full one")
    finally:
        desk.close()
