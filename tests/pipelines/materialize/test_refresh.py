"""Streams and batch say the same: events heard one by one, pushed rows and one batch over all of them give the same
columns, exactly.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from features.aggregates import windows
from features.aggregates.incremental import Fold
from features.columns.catalogue import Catalogue
from features.columns.layout import Layout
from features.columns.rows import Dictionary, RowSchema
from features.common.timestamps import MICROSECONDS
from features.feature_store import definitions
from features.lake.offers import offers_of
from features.ledger.lmdb_ledger import LmdbLedger
from features.ledger.recent import Heard
from features.validation.load import load
from features.workspace.workspace import ONLINE_URL_VARIABLE, Workspace
from pipelines.materialize.refresh import refresh
from tests.features.folding import event_of, rows_of, shown, write_lake
from tests.pipelines.moves import (
    CUSTOMERS,
    EVENTS,
    HOUR,
    ORDERS,
    POLICY,
    START,
    drawn,
    made,
    of_all,
    replace_received,
    replayed,
    stored,
)
from tests.stores import Server, find_server


@pytest.mark.slow
def test_many_events_in_five_orders(tmp_path: Path) -> None:
    """Shuffled and replayed with refreshes in between, each order gives what one batch over all events gives, value by
    value.
    """
    chance = random.Random(7)
    events = drawn(chance, EVENTS, CUSTOMERS)
    workspace = made(tmp_path / "bank")
    now = START + 250 * HOUR
    everybody = [f"c{at}" for at in range(CUSTOMERS)]
    plan = RowSchema.of(workspace.views)
    expected: dict[str, dict[str, Any]] = {}
    for order in range(ORDERS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fill_anew(workspace)
        ledger = LmdbLedger(tmp_path / f"ledger{order}")
        chance.shuffle(events)
        stamped, last = asyncio.run(replayed(workspace, ledger, events, chance))
        assert last < now
        write_lake(workspace, "streams.moves", [customer for customer, _ in stamped], [event for _, event in stamped])
        if not expected:
            words = Dictionary()
            batch = rows_of(plan, words, windows.compute_for(workspace, now, everybody))
            expected = {customer: shown(plan, words, row) for customer, row in batch.items()}
        at_once, without = known(workspace, ledger, plan, everybody, now)
        assert 0.1 * CUSTOMERS < len(without) < 0.8 * CUSTOMERS
        for customer in everybody:
            got, wanted = at_once[customer], expected[customer]
            if customer in without:  # all that any window holds is at hand, but no attribute
                assert got == wanted | {"customer.age": None}, (order, customer)
            assert of_all(got) == of_all(wanted | {"customer.age": got["customer.age"]}), (order, customer)
        asyncio.run(refresh(workspace, ledger, everybody, now, 0))
        refreshed, _ = known(workspace, ledger, plan, everybody, now)
        for customer in everybody:
            assert refreshed[customer] == expected[customer], (order, customer)
            assert ledger.look_now(customer).recent.events == ()
        assert ledger.dropped == 0
        ledger.close()


def fill_anew(workspace: Workspace) -> None:
    """An online store without rows."""
    shutil.rmtree(workspace.online, ignore_errors=True)
    shutil.rmtree(workspace.lake / "streams", ignore_errors=True)
    definitions.apply(workspace)


def known(
    workspace: Workspace, ledger: LmdbLedger, plan: RowSchema, customers: list[str], now: int
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """What a decision knows of customers, from the row and what is new; and who has no row."""
    words, rows = stored(workspace, customers)
    fold = Fold(plan, words)
    found = {
        customer: shown(plan, words, fold(row, ledger.look_now(customer).recent.events, now))
        for customer, row in rows.items()
    }
    return found, {customer for customer, row in rows.items() if not row.known}


@pytest.fixture(params=["embedded", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where rows are kept."""
    if request.param == "embedded":
        yield "embedded"
        return
    if not find_server()[0]:
        pytest.skip(find_server()[1])
    server = Server(tmp_path / "server").start()
    monkeypatch.setenv(ONLINE_URL_VARIABLE, server.url)
    yield server.url
    server.stop()


def test_pushes_and_materializations(store: str, tmp_path: Path) -> None:
    """Whichever comes first, the row of the later moment stays; with what is new it is the batch of now, before and
    after each of them.
    """
    workspace = made(tmp_path / "bank")
    chance = random.Random(3)
    stamped = [
        (customer, replace_received(event, event.time + 1 + at))
        for at, (customer, event) in enumerate(drawn(chance, 400, 20))
    ]
    write_lake(workspace, "streams.moves", [customer for customer, _ in stamped], [event for _, event in stamped])
    ledger, plan, now = LmdbLedger(tmp_path / "ledger"), RowSchema.of(workspace.views), START + 250 * HOUR
    everybody = [f"c{at}" for at in range(20)]
    asyncio.run(ledger.hear([Heard(customer, event=event) for customer, event in stamped], POLICY, now / MICROSECONDS))
    first, second, third = (START + days * 24 * HOUR for days in (3, 6, 8))
    words = Dictionary()
    expected = {
        customer: shown(plan, words, row)
        for customer, row in rows_of(plan, words, windows.compute_for(workspace, now, everybody)).items()
    }

    def check(moment: int) -> None:
        words, rows = stored(workspace, everybody)
        for customer, row in rows.items():
            assert row.event_times[1] == moment / MICROSECONDS
            folded = Fold(plan, words)(row, ledger.look_now(customer).recent.events, now)
            assert of_all(shown(plan, words, folded)) == of_all(expected[customer])

    def materialize(moment: int) -> None:
        windows.compute(workspace, moment)
        definitions.materialize(definitions.apply(workspace), workspace, moment)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        materialize(first)
        check(first)
        for _ in range(2):  # a refresh that died before its end is done again
            assert asyncio.run(refresh(workspace, ledger, everybody, second, 0)) == len(everybody) + 10
            check(second)
        held = sum(len(ledger.look_now(customer).recent.events) for customer in everybody)
        assert 0 < held < len(stamped)
        materialize(first)
        check(second)
        materialize(third)
        check(third)
        asyncio.run(refresh(workspace, ledger, everybody, second, 0))
        check(third)
    with pytest.raises(ValueError, match="whole second"):
        asyncio.run(refresh(workspace, ledger, everybody, second + 1, 0))
    ledger.close()


def test_a_push_that_states_nothing_is_written(tmp_path: Path) -> None:
    """A row of which everything has left its windows replaces the one before, though Feast passes over such rows."""
    workspace = made(tmp_path / "bank")
    content = yaml.safe_load((workspace.folder / "features.yaml").read_text())
    content["columns"], content["pairs"] = (
        {"most": {"stream": "moves", "aggregate": "max", "of": "amount", "windows": ["1d"]}},
        {},
    )
    (workspace.folder / "features.yaml").write_text(yaml.safe_dump(content))
    workspace = load(workspace.folder)
    write_lake(workspace, "streams.moves", ["c1"], [event_of(1, "moves", START, START + 1, amount=3.0)])
    for moment, value in ((START + HOUR, 3.0), (START + 48 * HOUR, None)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = definitions.apply(workspace)
        definitions.push(store, workspace.views[1], windows.compute_for(workspace, moment, ["c1"])["moves"])
        words, rows = stored(workspace, ["c1"])
        assert rows["c1"].event_times[1] == moment / MICROSECONDS
        assert shown(RowSchema.of(workspace.views), words, rows["c1"])["moves.most_1d"] == value


def bits(values: NDArray[np.float64]) -> bytes:
    """The doubles as bytes; a missing value is one, whatever bits it is written with."""
    return np.where(np.isnan(values), np.nan, values + 0.0).tobytes()


def test_decisions_see_the_same_columns(tmp_path: Path) -> None:
    """Laid out for a decision, a folded row and the row of a batch over all events are the same bytes, for every
    offer.
    """
    workspace = made(tmp_path / "bank")
    chance = random.Random(5)
    stamped = [
        (customer, replace_received(event, START + 130 * HOUR + at))
        for at, (customer, event) in enumerate(drawn(chance, 3_000, 150))
    ]
    write_lake(workspace, "streams.moves", [customer for customer, _ in stamped], [event for _, event in stamped])
    base, now, words = START + 130 * HOUR + 1_500, START + 250 * HOUR, Dictionary()
    everybody, plan = [f"c{at}" for at in range(150)], RowSchema.of(workspace.views)
    before, after = (rows_of(plan, words, windows.compute_for(workspace, moment, everybody)) for moment in (base, now))
    categories = {
        column.name: ["card", "cash", "wire"] for column in workspace.contract.columns if column.dtype == "category"
    }
    layout = Layout(
        workspace.contract,
        plan,
        RowSchema.of(workspace.views, "everyone"),
        Catalogue(offers_of(workspace)),
        categories,
        words,
    )
    everyone, every, moment = (
        RowSchema.of(workspace.views, "everyone").nobody(),
        np.arange(5, dtype=np.int32),
        now / MICROSECONDS,
    )
    offers = layout.offer_values(everyone, moment)
    names = [column.name for column in (*layout.customer, *layout.pair)]
    lasting = [at for at, name in enumerate(names) if not name.endswith(("_7d", "_1d"))]
    stated = 0
    for customer in everybody:
        folded = Fold(plan, words)(before[customer], [event for own, event in stamped if own == customer], now)
        laid = [
            np.hstack(
                [
                    np.tile(layout.shared_values(row, {}, moment), (5, 1)),
                    layout.pair_values(row, everyone, offers, every, moment),
                ]
            )[:, lasting]
            for row in (folded, after[customer])
        ]
        assert bits(laid[0]) == bits(laid[1]), customer
        stated += int((~np.isnan(laid[0])).sum())
    assert stated > 0.7 * 150 * 5 * len(lasting)
