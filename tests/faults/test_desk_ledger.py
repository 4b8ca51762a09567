"""A desk whose contact ledger is lost, full, away or slow: what is limited is not shown, all else is, and the log says
why, once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
import yaml

from features.columns.rows import StoreUnavailable
from features.common.types import Decision, DecisionRequest
from features.contact_history.history import ENTRY_BYTES
from features.ledger.lmdb_ledger import LmdbLedger
from features.ledger.redis_ledger import RedisLedger
from features.validation.load import load
from features.workspace.workspace import ONLINE_URL_VARIABLE
from serving.decision.answer import CONTACTS_UNAVAILABLE
from serving.decision.case import DecisionInputs
from serving.decision.decide import deciding
from serving.reload.reloader import Reloader
from serving.state.customer import CustomerState
from tests.serving.live import serving_copy, wait_for
from tests.stores import Server, find_server

needs_redis = pytest.mark.skipif(not find_server()[0], reason=find_server()[1] or "there is one")
LIMITS = {"each": {"max": 3, "window": "1d", "per": "offer", "count": "decisions", "except_groups": ["voice"]}}
LAST = "what has a limit is not shown"


@pytest.fixture
def folder(trained_workspace: Path, tmp_path: Path) -> Path:
    """A workspace whose offers of the group `voice` are without a limit; one offer has a budget."""
    folder = serving_copy(trained_workspace, tmp_path / "shop")
    offers = yaml.safe_load((folder / "offers.yaml").read_text())
    rare = {"offer_id": "rare", "value": 1e9, "group": "voice", "budget": {"daily": 2}}
    (folder / "offers.yaml").write_text(
        yaml.safe_dump(offers | {"group": "topic", "offers": [*offers["offers"], rare]})
    )
    (folder / "policies.yaml").write_text(yaml.safe_dump({"limits": LIMITS}))
    return folder


@pytest.fixture
def desk(folder: Path) -> Iterator[Reloader]:
    made = Reloader(load(folder, sources=False))
    made.load()
    yield made
    made.close()


async def answered(desk: Reloader, customer: str = "436600000", limit: int = 50) -> Decision:
    """One decision, as a server makes it."""
    loaded = desk.loaded
    assert loaded is not None, desk.refusal
    request = DecisionRequest(customer, "home", limit, context={"channel": "app", "hour": 18})
    known = await desk.stores.customers.known(customer, loaded)
    steps = deciding(DecisionInputs(request, loaded, CustomerState(known.row, known.contacts), desk.clock()))
    try:
        asked = next(steps)
        while True:
            asked = steps.send(await desk.stores.effects.run(asked, known.contacts))
    except StopIteration as done:
        decision: Decision = done.value
        return decision


def run(desk: Reloader, store: Server, told: Coroutine[Any, Any, None]) -> None:
    """What a test tells of a desk on a Redis, whose connections end on the loop that they belong to."""

    async def whole() -> None:
        try:
            await asyncio.wait_for(told, 30)
        finally:
            desk.close()
            for _ in range(200):
                await asyncio.sleep(0.01)
                if len(asyncio.all_tasks()) == 1:
                    break
            await asyncio.sleep(0.05)

    try:
        asyncio.run(whole())
    finally:
        store.stop()


def groups(desk: Reloader, decision: Decision) -> set[str]:
    assert desk.loaded is not None
    catalogue = desk.loaded.catalogue
    return {catalogue.offers[catalogue.index[offer.offer_id]].group for offer in decision.offers}


def whole(desk: Reloader, decision: Decision) -> bool:
    """Whether nothing is missing; else it must be all that is limited, and said so."""
    shown = [offer.offer_id for offer in decision.offers]
    if CONTACTS_UNAVAILABLE in decision.degraded:
        assert groups(desk, decision) == {"voice"} and "rare" not in shown
        return False
    assert len(groups(desk, decision)) == 4
    return True


def test_a_ledger_that_is_lost_is_not_begun_anew(
    desk: Reloader, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When the folder goes while a server runs, limits hold by showing nothing that has one, even before the first
    take; it comes back.
    """
    place = load(folder, sources=False).data / "ledger"
    assert (place / "data.mdb").exists(), "opened when the limits were loaded"
    shutil.copytree(place, folder / "kept")
    customers = (f"stranger-{number}" for number in itertools.count())
    decided = lambda: whole(desk, asyncio.run(answered(desk, next(customers))))  # noqa: E731
    assert decided()
    for damage in (lambda: shutil.rmtree(place), (place / "data.mdb").unlink):
        damage()
        caplog.clear()
        with caplog.at_level(logging.INFO, "opportune.desk"):
            wait_for(lambda: not decided(), what="the notice")
            assert not decided() and not decided()
            desk._tend_ledger()
            assert not (place / "data.mdb").exists()
            assert caplog.text.count(LAST) == 1 and str(place) in caplog.text
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(folder / "kept", place)
            wait_for(decided, what="the way back")
            desk._tend_ledger()  # there was a failure since the last time
            desk._tend_ledger()
        assert caplog.text.count("does what it is asked again") == 1


def test_a_full_ledger(desk: Reloader, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A ledger that takes no more is no reason to show what is limited, and is said once."""
    desk.stores.ledger.close()
    desk.stores.ledger = LmdbLedger(tmp_path / "small", map_bytes=1 << 17, map_bytes_max=1 << 17)
    told = []
    with caplog.at_level(logging.INFO, "opportune.desk"):
        while not told or told[-1]:
            assert len(told) < 2_000
            told.append(whole(desk, asyncio.run(answered(desk, f"stranger-{len(told)}"))))
        # A history may still find room where another cannot, so that some are whole: `whole` looks at the others.
        told += [whole(desk, asyncio.run(answered(desk, f"late-{number}"))) for number in range(100)]
    assert told.index(False) > 10 and told[-100:].count(False) > 50
    assert caplog.text.count(LAST) == 1 and "map_bytes_max" in caplog.text


def test_what_is_not_durable_is_synced_again(desk: Reloader) -> None:
    """A sync that fails is tried again at the next turn, though nothing was taken in between."""
    tries: list[bool] = []
    ledger = desk.stores.ledger
    assert isinstance(ledger, LmdbLedger)

    class Failing(LmdbLedger):
        def sync(self) -> None:
            tries.append(True)
            if len(tries) < 3:
                raise StoreUnavailable("no space left on device")
            super().sync()

    ledger.close()
    desk.stores.ledger = Failing(ledger.path)
    asyncio.run(answered(desk))
    for number in range(1, 6):
        if desk.stores.access.used:
            desk._tend_ledger()
        assert len(tries) == min(number, 3)


@needs_redis
def test_a_store_that_is_away_at_the_start(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desk that starts without its Redis shows what has no limit, and all else as soon as the server is there; what
    it took counts.
    """
    store = Server(tmp_path / "valkey")
    monkeypatch.setenv(ONLINE_URL_VARIABLE, store.url)
    desk = Reloader(load(folder, sources=False))
    desk.stores.deadline.seconds = 5.0

    async def told() -> None:
        desk.load()
        assert desk.loaded is not None, desk.refusal
        for _ in range(5):
            assert not whole(desk, await answered(desk))
        await asyncio.to_thread(store.start)
        while (
            CONTACTS_UNAVAILABLE in (await answered(desk)).degraded
        ):  # budgets may be counted a moment before histories are read
            await asyncio.sleep(0.02)
        history = (await desk.stores.customers.known("436600000", desk.loaded)).contacts
        assert history is not None and len(history) >= 3 * ENTRY_BYTES
        shown = [await answered(desk) for _ in range(3)]
        assert groups(desk, shown[-1]) == {"voice"} and not shown[-1].degraded[1:], "limits are reached, not unknown"

    run(desk, store, told())


@needs_redis
def test_a_history_is_asked_for_with_the_row(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history is on its way before the row is waited for; an error is asked again, and a caller who goes or a store
    that hangs hurts nobody.
    """
    store = Server(tmp_path / "valkey").start()
    monkeypatch.setenv(ONLINE_URL_VARIABLE, store.url)
    desk = Reloader(load(folder, sources=False))
    desk.load()
    ledger, loaded = desk.stores.ledger, desk.loaded
    assert isinstance(ledger, RedisLedger) and loaded is not None

    async def told() -> None:
        while (await desk.stores.customers.known("436600000", loaded)).contacts is None:
            await asyncio.sleep(0.02)
        begun = ledger.begin_look("436600000")
        assert begun is not None and not begun.done()
        assert (await ledger.end_look("436600000", begun)).contacts == b""
        moved: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        moved.set_result(hiredis.ReplyError("MOVED 1 127.0.0.1:1"))
        assert (await ledger.end_look("436600000", moved)).contacts == b""
        desk.stores.deadline.seconds = 0.2
        store.pause()
        try:
            asked = [
                asyncio.ensure_future(desk.stores.customers.known(f"43660000{number}", loaded)) for number in range(5)
            ]
            await asyncio.sleep(0)
            for one in asked[:2]:
                one.cancel()  # its client has gone
            assert [(known.row, known.contacts) for known in await asyncio.gather(*asked[2:])] == [(None, None)] * 3
        finally:
            store.resume()
        while (await desk.stores.customers.known("436600000", loaded)).contacts is None:
            await asyncio.sleep(0.02)

    run(desk, store, told())
