"""No skew: what a model was trained on and what it is asked with are laid out from different stores, and equal to the
bit.
"""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.columns.catalogue import Catalogue
from features.columns.layout import Layout
from features.columns.rows import Dictionary, OnlineEngine, RowSchema
from features.common.timestamps import DAY_SECONDS, MICROSECONDS
from features.feature_store import point_in_time
from features.lake.offers import offers_of, read_catalogue
from features.online.engines import open_engine
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize.steps import state_of
from training.bundle import bundle

CUSTOMERS_MIN = 500
CONTEXTS = [
    {},
    {"channel": "app", "hour": 18.5, "roaming_now": True},
    {"channel": "shop", "hour": 3.0, "roaming_now": False},
]


@pytest.fixture(scope="module")
def workspace(trained_workspace: Path) -> Workspace:
    return load(trained_workspace)


def customers_of(workspace: Workspace) -> list[str]:
    """Everyone who was materialized, and two whom nobody knows."""
    from features.lake import lake

    con = lake.connect(workspace)
    found = con.execute(
        "SELECT customer_id FROM streams_calls UNION SELECT customer_id FROM decisions ORDER BY 1"
    ).fetchall()
    con.close()
    return [row[0] for row in found] + ["stranger-1", "stranger-2"]


def bits(values: NDArray[np.float64]) -> bytes:
    """The doubles as bytes, signs of zeros included; a missing value is one, whatever bits it is written with."""
    return np.where(np.isnan(values), np.nan, values).tobytes()


def engine_of(workspace: Workspace) -> OnlineEngine:
    return open_engine(workspace.online_url, workspace.online, workspace.views, 1000.0, workspace.project)


def layout_of(workspace: Workspace, catalogue: Catalogue, words: Dictionary) -> Layout:
    place = bundle.current(workspace.bundles)
    assert place is not None
    categories = bundle.read(place).categories
    return Layout(
        workspace.contract,
        RowSchema.of(workspace.views),
        RowSchema.of(workspace.views, "everyone"),
        catalogue,
        categories,
        words,
    )


def test_training_row_and_online_row_are_equal_to_the_bit(workspace: Workspace) -> None:
    """For 500 customers and all offers, the columns from Feast's join and from the online store are the same bytes."""
    now = state_of(workspace).computed_at
    moment, midnight = now / MICROSECONDS, now // (DAY_SECONDS * MICROSECONDS) * DAY_SECONDS * MICROSECONDS
    customers, words = customers_of(workspace), Dictionary()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joined = point_in_time.join(workspace, customers, np.full(len(customers), now), words)
        (everyone_then,) = point_in_time.join(workspace, [], np.array([midnight]), words, "everyone").rows()
    engine = engine_of(workspace)
    offline = layout_of(workspace, Catalogue(offers_of(workspace)), words)
    online = layout_of(workspace, Catalogue(read_catalogue(workspace)), engine.words)
    assert [offer.offer_id for offer in offline.catalogue.offers] == [
        offer.offer_id for offer in online.catalogue.offers
    ]
    everyone_now = engine.everyone()
    offers_then, offers_now = (
        offline.offer_values(everyone_then, midnight / MICROSECONDS),
        online.offer_values(everyone_now, moment),
    )
    assert bits(offers_then) == bits(offers_now)
    every = np.arange(len(offline.catalogue), dtype=np.int32)
    compared = stated = 0
    names = workspace.contract.names
    for number, (customer, then) in enumerate(zip(customers, joined.rows(), strict=True)):
        row = engine.read_now(customer)
        assert row is not None
        assert row.known == then.known == (not customer.startswith("stranger"))
        context = CONTEXTS[number % len(CONTEXTS)]
        one, other = (
            np.hstack(
                [
                    np.tile(layout.shared_values(source, context, moment), (len(every), 1)),
                    offers,
                    layout.pair_values(source, everyone, offers, every, moment),
                ]
            )
            for layout, source, everyone, offers in (
                (offline, then, everyone_then, offers_then),
                (online, row, everyone_now, offers_now),
            )
        )
        different = [name for at, name in enumerate(names) if bits(one[:, at]) != bits(other[:, at])]
        assert not different, (customer, different)
        compared += row.known
        stated += int((~np.isnan(one)).sum())
    assert compared >= CUSTOMERS_MIN
    assert stated > 0.5 * len(customers) * len(every) * len(names)
    engine.close()


def test_each_column_says_something(workspace: Workspace) -> None:
    """A comparison of missing values would prove nothing: each column has values, most have several."""
    now = state_of(workspace).computed_at
    engine = engine_of(workspace)
    layout = layout_of(workspace, Catalogue(offers_of(workspace)), engine.words)
    everyone = engine.everyone()
    offers, every = layout.offer_values(everyone, now / MICROSECONDS), np.arange(len(layout.catalogue), dtype=np.int32)
    rows = []
    for customer in customers_of(workspace)[:200]:
        row = asyncio.run(engine.read(customer))
        shared = np.tile(layout.shared_values(row, CONTEXTS[len(rows) % 3], now / MICROSECONDS), (len(every), 1))
        rows.append(np.hstack([shared, offers, layout.pair_values(row, everyone, offers, every, now / MICROSECONDS)]))
    table = np.vstack(rows)
    distinct = {
        name: len(np.unique(table[~np.isnan(table[:, at]), at])) for at, name in enumerate(workspace.contract.names)
    }
    assert all(distinct.values()), [name for name, count in distinct.items() if not count]
    assert sum(count > 1 for count in distinct.values()) >= 0.9 * len(distinct)
    engine.close()


def test_the_rows_that_were_trained_on_are_those_of_the_join(workspace: Workspace) -> None:
    """A decision at the moment of materialization would be laid out from the same bytes: the online row equals the
    training row.
    """
    from training.dataset.examples import examples_of

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        examples = examples_of(workspace, state_of(workspace).computed_at)
    con_rows = {
        (decision, offer): at
        for at, (decision, offer) in enumerate(zip(examples.decision, examples.offer, strict=True))
    }
    assert len(con_rows) == len(examples)
    chosen = [number for number in range(0, len(examples.ids), 40) if not examples.strangers[number]]
    customers = [examples.ids[number].split("-")[1] for number in chosen]
    words = Dictionary()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joined = point_in_time.join(workspace, customers, examples.times[chosen], words)
    layout = Layout(
        workspace.contract,
        RowSchema.of(workspace.views),
        RowSchema.of(workspace.views, "everyone"),
        Catalogue(offers_of(workspace)),
        examples.categories,
        words,
    )
    customer_columns = len(layout.customer)
    for number, row in zip(chosen, joined.rows(), strict=True):
        shared = layout.shared_values(row, {}, examples.times[number] / MICROSECONDS)[:customer_columns]
        mine = examples.values[examples.decision == number][:, :customer_columns]
        assert all(bits(line) == bits(shared) for line in mine)
    assert len(chosen) > 40
