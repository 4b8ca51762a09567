"""The ledger hears every event, before it is acknowledged or soon after, and confirms budgets once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from features.columns.catalogue import Catalogue
from features.common.timestamps import from_microseconds, rfc3339
from features.common.types import Event
from features.config.policies import PoliciesFile
from features.contact_history.history import key_of
from features.events import consumers
from features.events.log import EventLog, read_all
from features.events.rows import event_item
from features.events.semantics import time_of
from features.events.sqlite_file import LogLimits
from features.ledger.budgets import BudgetBound
from features.ledger.ledger import Ledger
from features.validation.load import load
from features.workspace.workspace import Workspace
from serving.events.delivery import EventContext, Understandings
from serving.hub.contact_policy import STOCK, Contacting
from tests.serving.event_shop import NOW, OFFERS, Shop, row, run
from tests.workspaces import make_workspace

SECONDS = NOW / 1e6


def test_ledger_hears_a_few_units_at_a_time(shop: Shop) -> None:
    """Many customers in one batch are heard in parts, with turns for others between them, all before the answer."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scenario() -> None:
        beside = asyncio.create_task(others())
        await shop.post(*(row(f"e{at}", customer_id=f"c{at}") for at in range(100)))
        beside.cancel()
        assert all(shop.recent(f"c{at}") == {key_of(f"e{at}")} for at in range(100))

    run(scenario)
    assert max(shop.ledger.calls) <= 8
    assert turns >= 12


def test_unheard_events_are_heard_later(shop: Shop) -> None:
    """While the ledger does not answer, events are kept and the answer says so; then they are heard, and the mark
    follows only then.
    """

    async def scenario() -> None:
        await shop.post(row("e0"))
        shop.ledger.deaf = True
        answer = await shop.post(row("e1"), row("e2", customer_id="c2"))
        assert (answer["stored"], answer["degraded"]) == (2, ["contacts_unavailable"])
        await shop.hearing.look()
        places = [logged.seq for logged in read_all(shop.folder, 0)]
        assert shop.hearing.watermark.place == places[0]
        assert shop.hearing.watermark.behind
        shop.ledger.deaf = False
        assert (await shop.post(row("e3")))["degraded"] == []
        assert shop.hearing.watermark.place == places[0]
        await shop.hearing.look()
        assert shop.recent("c1") == {key_of("e0"), key_of("e1"), key_of("e3")}
        assert shop.recent("c2") == {key_of("e2")}
        assert not shop.hearing.watermark.behind
        assert shop.hearing.watermark.place == [logged.seq for logged in read_all(shop.folder, 0)][-1]
        assert shop.ledger.synced >= 1

    run(scenario)


def test_duplicate_of_an_unheard_event_is_heard(tmp_path: Path, workspace: Workspace) -> None:
    """A worker that died before the ledger heard leaves nothing unheard: who sends again is heard, and another worker
    hears the rest.
    """
    alive = consumers.begin(tmp_path / "events")
    dying = EventLog(tmp_path / "events", LogLimits(free_bytes_min=0), clock=lambda: NOW, worker=alive.worker)
    events = [Event(name, "calls", from_microseconds(NOW - 5_000_000), "c1") for name in ("e1", "e2")]
    dying.append([event_item(event, time_of(event)) for event in events])
    dying.close()
    shop = Shop(tmp_path, workspace)

    async def scenario() -> None:
        answer = await shop.post(row("e1"))
        assert (answer["duplicates"], shop.recent()) == (1, {key_of("e1")})
        await shop.hearing.look()
        assert shop.recent() == {key_of("e1")}  # it lives, as far as anybody knows
        alive.release()
        await shop.hearing.look()
        assert shop.recent() == {key_of("e1"), key_of("e2")}
        assert list(consumers.dead(shop.folder)) == []
        calls = len(shop.ledger.calls)
        assert (await shop.post(row("e1"), row("e2")))["duplicates"] == 2
        assert len(shop.ledger.calls) == calls  # known to be heard: old duplicates are not told again

    run(scenario)
    shop.close()


def test_nothing_is_heard_before_anything_serves(shop: Shop) -> None:
    """Before the first bundle, events are kept and answered as degraded, and heard once there is a state."""

    async def scenario() -> None:
        serving, shop.understanding = shop.understanding, EventContext.of(load_again)
        assert (await shop.post(row("e1", "click", offer_id="unknown-yet")))["degraded"]
        await shop.hearing.look()
        assert shop.recent() == set()
        shop.understanding = serving
        await shop.hearing.look()
        assert shop.recent() == {key_of("e1")}

    load_again = load(shop_workspace(shop), sources=False)
    run(scenario)


def shop_workspace(shop: Shop) -> Path:
    """Another workspace like the shop's."""
    return make_workspace(shop.folder.parent / "workspace")


def confirmed(ledger: Any) -> tuple[int, int]:
    """Shows and pieces of stock of o2 that are counted for good."""
    budgets = [BudgetBound(key_of("o2"), lifetime_max=99), BudgetBound(key_of(STOCK + "o2"), lifetime_max=99)]
    used = []
    for budget in budgets:
        free = 0
        while True:
            asked = BudgetBound(budget.offer, lifetime_max=free)
            moment = Contacting(PoliciesFile(), Catalogue([]), (), (), "UTC").moment(SECONDS)
            if not any(ledger.take_budgets_now([asked], moment)):
                break
            free += 1
        used.append(free - 1)
    return used[0], used[1]


def test_budgets_are_confirmed_once(shop: Shop) -> None:
    """A show counts when its impression is new, a piece of stock at the first acceptance of its decision, each once
    however often it is sent.
    """

    async def scenario() -> None:
        decision = f"{NOW - 9_000_000:x}-1a2b-7"
        seen = row("i1", "impression", offer_id="o2", decision_id=decision)
        for _ in range(3):
            await shop.post(seen)
        await shop.post(
            row("a1", "accepted", offer_id="o2", decision_id=decision),
            row("k1", "click", offer_id="o2", decision_id=decision),
        )
        await shop.post(
            row("a2", "conversion", offer_id="o2", decision_id=decision, occurred_at=rfc3339(NOW - 1_000_000), value=3)
        )
        await shop.post(
            row("i2", "impression", offer_id="o2", customer_id="c2"), row("i3", "impression", offer_id="o1")
        )

    run(scenario)
    assert confirmed(shop.ledger) == (2, 1)


def test_ledger_protocol_is_enough(shop: Shop) -> None:
    """What hearing asks of a ledger is in the interface."""
    assert {"hear", "confirm", "look", "look_now", "sync"} <= set(dir(Ledger))
    assert shop.writer.worker > 0


def test_understanding_follows_the_state(workspace: Workspace, shop: Shop) -> None:
    """Before anything serves every offer is taken and nothing is heard; a state that was prepared is not made again."""
    made = Understandings(workspace)
    before = made.of(None)
    assert before.contacting is None
    click = Event("e1", "click", from_microseconds(NOW), "c1", offer_id="unknown")
    assert before.happenings.poison(click, NOW) is None
    state: Any = SimpleNamespace(
        workspace=workspace, catalogue=Catalogue(OFFERS), hub=SimpleNamespace(contacting=shop.understanding.contacting)
    )
    made.prepare(state)
    found = made.of(state)
    assert found is made.of(state)
    assert (found.positions, found.contacting) == ({"o1": 0, "o2": 1}, shop.understanding.contacting)
    poison = found.happenings.poison(click, NOW)
    assert poison is not None
    assert poison.code == "offer-unknown"
    assert found is not made.of(SimpleNamespace(**vars(state)))  # type: ignore[arg-type]
    assert "accepted" in found.acceptances
