"""A store that fails a read may come back without its rows: until it was looked at again, nobody is taken for a
stranger.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from features.columns.rows import Dictionary, OnlineRow, RowSchema, StoreUnavailable
from features.columns.views import views_of
from features.config.features_file import FeaturesFile
from serving.stores.global_row import GlobalRow
from tests.serving.live import wait_for

PAIR = {"stream": "moves", "key": "shop", "match": "shop", "aggregate": "count"}
SHOP = {
    "streams": {"moves": {"categories": ["shop"]}},
    "offer": {"shop": {"dtype": "category"}},
    "columns": {"moves": {"stream": "moves", "aggregate": "count"}},
}
SCOPES = {
    scope: msgspec.convert(SHOP | {"pairs": {"liked": PAIR | {"scope": scope}}}, FeaturesFile)
    for scope in ("everyone", "customer")
}
KNOWN, STRANGER = "anna", "who-is-this"
SECONDS_MAX = 180


class Store:
    """An engine whose rows are kept, lost or away as a test says."""

    words, damaged = Dictionary(), 0

    def __init__(self, scope: str) -> None:
        views = views_of(SCOPES[scope])
        self.plan, self.of_all = RowSchema.of(views), RowSchema.of(views, "everyone")
        self.away = self.emptied = False
        self.known = GlobalRow(cast(Any, SimpleNamespace(views=views)), self)

    def _row(self, plan: RowSchema, known: bool) -> OnlineRow:
        if self.away:
            raise StoreUnavailable("away")
        row = plan.nobody()
        if known and not self.emptied:
            row.event_times[:] = 1.0
        return row

    def read_now(self, customer_id: str) -> OnlineRow:
        return self._row(self.plan, customer_id == KNOWN)

    async def read(self, customer_id: str) -> OnlineRow:
        return self.read_now(customer_id)

    def everyone(self) -> OnlineRow:
        return self._row(self.of_all, True)

    def close(self) -> None: ...

    def counts(self, customer_id: str) -> bool:
        """Whether the desk would take the row of a customer for what it is."""
        try:
            return self.known.met(customer_id, self.read_now(customer_id)) is not None
        except StoreUnavailable:
            self.known.doubt()
            return False

    def look(self) -> None:
        """What the desk does each second."""
        asyncio.run(self.known.ask_witnesses(1.0))
        self.known.look()

    def counts_after_look(self, customer_id: str) -> bool:
        self.look()
        return self.counts(customer_id)


@pytest.fixture(params=SCOPES)
def store(request: pytest.FixtureRequest) -> Store:
    found = Store(request.param)
    found.look()
    assert found.counts(KNOWN) and found.counts(STRANGER)
    return found


def test_a_store_that_comes_back_empty_makes_no_strangers(store: Store) -> None:
    """From the first failed read on no answer without a row is whole, until the store has its rows again."""
    store.away = True
    assert not store.counts(KNOWN)
    store.away, store.emptied = False, True
    assert not store.counts(KNOWN), "nobody has looked yet"
    wait_for(lambda: store.counts_after_look(KNOWN) or store.known.empty, SECONDS_MAX, "a look")
    assert store.known.empty and not store.counts(KNOWN)
    store.emptied = False
    assert store.counts(KNOWN)
    wait_for(lambda: store.counts_after_look(STRANGER), SECONDS_MAX, "strangers")


def test_a_store_that_comes_back_whole_has_strangers_again(store: Store) -> None:
    """Whoever has a row is known at once; whoever has none is a stranger as soon as the store was looked at."""
    store.away = True
    assert not store.counts(KNOWN)
    store.look()
    store.away = False
    assert store.counts(KNOWN) and not store.counts(STRANGER)
    wait_for(lambda: store.counts_after_look(STRANGER), SECONDS_MAX, "strangers")
    assert not store.known.empty


def test_strangers_stay_strangers_where_nobody_was_ever_known() -> None:
    """Where nothing could settle a doubt there is none: the first customers of a business are no sign of a fault."""
    store = Store("customer")
    store.away = True
    assert not store.counts(STRANGER)
    store.away = False
    assert store.counts(STRANGER)
