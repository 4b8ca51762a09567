"""The contract of the ledgers: the same cases over LMDB, a real Valkey, and a cluster of three, against a model in
plain Python.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.contact_history.history import (
    DECISION,
    GAP,
    IMPRESSION,
    OUTCOME,
    Entry,
    entries,
    key_of,
    unpacked,
    word_of,
)
from features.contact_history.limits import ContactLimit, ContactPause, ContactPolicy
from features.contact_history.takes import ContactEvent, Take, TakeResult
from features.contact_history.updates import taken
from features.ledger.budgets import BUDGET_HOLD_SECONDS_MAX, BudgetBound, BudgetRecord, Moment
from features.ledger.ledger import Ledger, open_ledger
from features.ledger.lmdb_ledger import LmdbLedger
from features.ledger.redis_ledger import RedisLedger
from features.ledger.redis_records import history_of
from features.redis_store.address import Address, command
from features.redis_store.routing import routes
from tests.features.contact_history.test_history import drawn_takes
from tests.stores import Server, find_server
from tests.waiting import LIMIT_S

KINDS = ("embedded", "redis", "cluster")
PATIENT_MS = 5_000.0
NOW = 1_790_000_000.0
DAY = 86_400.0
WEB, MAIL = word_of("web"), word_of("mail")
DISMISSED = word_of("dismissed")
OFFERS = [key_of(f"offer {i}") for i in range(6)]
GROUPS = [key_of("loans"), key_of("loans"), key_of("cards"), key_of("cards"), 0, 0]
ran: Counter[str] = Counter()
_numbers = itertools.count()


class Shop:
    """A ledger of one kind, in a place of its own."""

    def __init__(self, kind: str, folder: Path, url: str) -> None:
        self.kind, self.folder, self.url = kind, folder, url
        self.runner = asyncio.Runner()
        self.ledger = self.opened()

    def opened(self) -> Ledger:
        ledger = open_ledger(self.url, self.folder / "ledger", PATIENT_MS, f"shop{next(_numbers)}")
        assert isinstance(ledger, LmdbLedger if self.kind == "embedded" else RedisLedger)
        return ledger

    def run(self, work: Any) -> Any:
        async def running() -> Any:
            return await work

        return self.runner.run(running())

    def read(self, customer: str = "1") -> list[Entry]:
        found = self.ledger.read_now(customer)
        assert (found is None) == (self.kind != "embedded")
        again = self.run(self.ledger.read(customer))
        assert found in (None, again)
        return unpacked(again)

    def take(
        self,
        policy: ContactPolicy,
        decision: int,
        now: float,
        offers: list[int],
        channel: int = WEB,
        customer: str = "1",
        informed: bool = False,
    ) -> TakeResult:
        """A take in which all limits concern all offers."""
        contacts = tuple(
            policy.contact(OFFERS[at], GROUPS[at], channel, list(range(len(policy.limits)))) for at in offers
        )
        take = Take(customer, decision, now, contacts, policy)
        history = self.run(self.ledger.read(customer)) if informed else None
        found = None if informed else self.ledger.take_now(take)
        return self.run(self.ledger.take(take, history)) if found is None else found

    def budgets(self, budgets: list[BudgetBound], moment: Moment) -> list[str]:
        found = self.ledger.take_budgets_now(budgets, moment)
        return self.run(self.ledger.take_budgets(budgets, moment)) if found is None else found

    def close(self) -> None:
        self.ledger.close()
        self.runner.run(asyncio.sleep(0))
        self.runner.close()


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where each kind is: one server, and a cluster of three."""
    if not find_server()[0]:
        yield {"embedded": ""}
        return
    folder = tmp_path_factory.mktemp("servers")
    server = Server(folder / "one").start()
    nodes = [
        Server(folder / f"node{i}", "--cluster-enabled", "yes", "--cluster-node-timeout", "1000").start()
        for i in range(3)
    ]
    try:
        for i, (node, first, last) in enumerate(zip(nodes, (0, 5461, 10923), (5460, 10922, 16383), strict=True)):
            assert b"OK" in node.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
            assert b"OK" in node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(i + 1))
        for node in nodes[1:]:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", str(node.port))
        end = time.monotonic() + LIMIT_S
        while not all(
            b"cluster_state:ok" in n.ask("CLUSTER", "INFO") and n.ask("CLUSTER", "NODES").count(b"master") == 3
            for n in nodes
        ):
            assert time.monotonic() < end, "the cluster did not form"
            time.sleep(0.05)
        yield {"embedded": "", "redis": server.url, "cluster": f"redis+cluster://127.0.0.1:{nodes[1].port}"}
    finally:
        for node in (server, *nodes):
            node.stop()


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path, urls: dict[str, str]) -> Iterator[Shop]:
    if request.param not in urls:
        pytest.skip(find_server()[1])
    found = Shop(request.param, tmp_path, urls[request.param])
    yield found
    found.close()
    ran[request.param] += 1


WEEK = ContactPolicy((ContactLimit(2, 7 * DAY, "offer"), ContactLimit(3, DAY)))


def test_a_stranger(shop: Shop) -> None:
    """Of a stranger there is no history; the first take begins one, of that customer alone."""
    assert shop.read() == []
    assert shop.take(WEEK, 1, NOW, [0, 2]).granted
    assert [(e.time, e.offer, e.decision, e.group, e.channel, e.kind, e.seen) for e in shop.read()] == [
        (NOW, OFFERS[at], 1, GROUPS[at], WEB, DECISION, 0) for at in (0, 2)
    ]
    assert [e.keep for e in shop.read()] == [7 * DAY] * 2
    assert shop.read("2") == []


def test_all_or_nothing(shop: Shop) -> None:
    """One contact that falls keeps all from being taken, says which limit fell, and does not count for those after
    it.
    """
    policy = ContactPolicy((ContactLimit(1, DAY, "offer"), ContactLimit(2, DAY, "group"), ContactLimit(4, DAY)))
    assert shop.take(policy, 1, NOW, [0]).granted
    before = shop.read()
    assert shop.take(policy, 2, NOW, [0, 1, 2]).fell == (0, -1, -1)
    assert shop.take(policy, 2, NOW, [1, 2, 3, 4]).fell == (-1, -1, -1, 2)
    assert shop.read() == before
    assert shop.take(policy, 2, NOW, [1, 2, 3]).granted
    assert shop.take(policy, 3, NOW, [5]).fell == (2,)


def test_one_slate_counts_itself(shop: Shop) -> None:
    """Two offers of one group in one slate count two, and one offer named twice is one contact."""
    policy = ContactPolicy((ContactLimit(1, DAY, "group"),))
    assert shop.take(policy, 1, NOW, [0, 1]).fell == (-1, 0)
    assert shop.take(policy, 1, NOW, [0, 2, 4, 5, 0]).granted
    assert len(shop.read()) == 4


def test_a_repeated_take(shop: Shop) -> None:
    """The same decision may take again, alone, with others, and when its limit is used up by itself: nothing is added
    twice.
    """
    policy = ContactPolicy((ContactLimit(1, DAY, "offer"),))
    for informed in (False, True, False):
        assert shop.take(policy, 7, NOW, [0, 1], informed=informed).granted
    assert len(shop.read()) == 2
    assert shop.take(policy, 7, NOW + 1, [1, 2]).granted
    assert [e.time for e in shop.read()] == [NOW, NOW, NOW + 1]
    assert shop.take(policy, 8, NOW + 1, [1]).fell == (0,)


def test_a_history_that_is_out_of_date(shop: Shop) -> None:
    """A take with the history as it was before another take counts that one too."""
    policy = ContactPolicy((ContactLimit(2, DAY),))
    contacts = [policy.contact(OFFERS[at], GROUPS[at], WEB, [0]) for at in range(3)]
    takes = [Take("1", at + 1, NOW, (contact,), policy) for at, contact in enumerate(contacts)]
    assert [shop.run(shop.ledger.take(take, b"")).granted for take in takes] == [True, True, False]
    assert len(shop.read()) == 2


def test_windows_end(shop: Shop) -> None:
    """A contact counts until its window has passed, exactly, and one of the future counts too."""
    policy = ContactPolicy((ContactLimit(1, 100),))
    assert shop.take(policy, 1, NOW, [0]).granted
    assert not shop.take(policy, 2, math.nextafter(NOW + 100, 0), [1]).granted
    assert not shop.take(policy, 2, NOW - 1_000, [1]).granted
    assert shop.take(policy, 2, NOW + 100, [1]).granted


def test_channels_and_keys(shop: Shop) -> None:
    """A channel's quota counts that channel; a limit of a named group counts that group; a limit that does not concern
    an offer lets it pass.
    """
    policy = ContactPolicy((ContactLimit(1, DAY, channel=MAIL), ContactLimit(1, DAY, "group", key=GROUPS[2])))
    mail, cards = (
        [policy.contact(OFFERS[at], GROUPS[at], MAIL, [0]) for at in (0, 4)],
        policy.contact(OFFERS[3], GROUPS[3], WEB, [1]),
    )
    for decision, contact, granted in ((1, mail[0], True), (2, mail[1], False), (3, cards, True), (4, cards, False)):
        assert shop.run(shop.ledger.take(Take("1", decision, NOW, (contact,), policy))).granted == granted
    exempt = policy.contact(OFFERS[2], GROUPS[2], MAIL, [])
    assert shop.run(shop.ledger.take(Take("1", 5, NOW, (exempt,), policy))).granted
    assert [e.keep for e in shop.read()] == [DAY] * 3, "an exempt contact counts for others"


def test_impressions_and_hold(shop: Shop) -> None:
    """A contact holds its place until the hold ends, for ever when it was seen, and a stray impression counts."""
    policy = ContactPolicy((ContactLimit(1, DAY, counts="impressions"),), hold_seconds=60)
    assert shop.take(policy, 1, NOW, [0]).granted
    assert not shop.take(policy, 2, NOW + 59, [1]).granted
    assert shop.take(policy, 2, NOW + 60, [1]).granted
    seen = ContactEvent(IMPRESSION, NOW + 61, OFFERS[1], 2, GROUPS[1], WEB)
    assert shop.run(shop.ledger.note("1", policy, [seen, seen], NOW + 61)) == [True, False]
    assert shop.run(shop.ledger.note("1", policy, [seen], NOW + 62)) == [False]
    assert [e.seen for e in shop.read()] == [0, 1]
    assert not shop.take(policy, 3, NOW + 1_000, [2]).granted
    stray = ContactEvent(IMPRESSION, NOW, OFFERS[1], 0, GROUPS[1], WEB)
    assert shop.run(shop.ledger.note("2", policy, [stray, stray, stray._replace(time=NOW + 1)], NOW)) == [
        True,
        False,
        True,
    ]
    assert not shop.take(policy, 3, NOW + 1_000, [2], customer="2").granted


def test_outcomes(shop: Shop) -> None:
    """Outcomes are noted once each, and do not count as contacts."""
    policy = ContactPolicy((ContactLimit(1, DAY),), (ContactPause(DISMISSED, 2, DAY, 60 * DAY),))
    no = ContactEvent(OUTCOME, NOW, OFFERS[0], 5, GROUPS[0], WEB, DISMISSED)
    assert shop.run(shop.ledger.note("1", policy, [no], NOW)) == [True]
    assert shop.run(shop.ledger.note("1", policy, [no, no._replace(time=NOW + 1)], NOW)) == [False, True]
    assert [(e.kind, e.what, e.keep) for e in shop.read()] == [(OUTCOME, DISMISSED, 61 * DAY)] * 2
    assert shop.take(policy, 1, NOW, [0]).granted


def test_link_and_forget(shop: Shop) -> None:
    """A history moves to another id, once, however often it is linked; a forgotten one is gone."""
    policy = ContactPolicy((ContactLimit(3, DAY),))
    assert shop.take(policy, 1, NOW, [0, 1], customer="anonymous").granted
    assert shop.take(policy, 2, NOW - 5, [2], customer="1").granted
    for _ in range(3):
        shop.run(shop.ledger.link("anonymous", "1", policy, NOW))
        assert [(e.offer, e.time) for e in shop.read("1")] == [(OFFERS[2], NOW - 5), (OFFERS[0], NOW), (OFFERS[1], NOW)]
        assert shop.read("anonymous") == []
    shop.run(shop.ledger.link("1", "1", policy, NOW))
    shop.run(shop.ledger.link("nobody", "1", policy, NOW))
    assert not shop.take(policy, 3, NOW, [3]).granted
    shop.run(shop.ledger.forget("1"))
    shop.run(shop.ledger.forget("1"))
    assert shop.read("1") == []
    assert shop.take(policy, 3, NOW, [3]).granted


def test_a_full_history(shop: Shop) -> None:
    """A history stays within its bounds; when it has dropped what a limit looks back at, the limit refuses until time
    has passed.
    """
    policy = ContactPolicy((ContactLimit(2, 100, "offer"), ContactLimit(4, 1)), contacts_max=4, remember_seconds=1_000)
    granted = Counter(shop.take(policy, i + 1, NOW + i, [i % 6]).granted for i in range(12))
    assert granted[True] >= 5
    found = shop.read()
    assert sum(e.kind != GAP for e in found) <= 4
    assert sum(e.kind == GAP for e in found) == 1
    assert shop.take(policy, 90, NOW + 12, [0]).fell == (0,)
    assert shop.take(policy, 91, NOW + 150, [0]).granted


def test_what_has_aged_goes(shop: Shop) -> None:
    """What is beyond the horizon leaves a history with the next take."""
    policy = ContactPolicy((ContactLimit(2, 100),), hold_seconds=10)
    for i in range(6):
        assert shop.take(policy, i + 1, NOW + 60 * i, [0]).granted
    assert [e.time - NOW for e in shop.read()] == [240, 300]


steps = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "inform", "repeat", "see", "stray", "dismiss"]),
        st.integers(0, 5),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps, st.booleans(), st.integers(1, 3))
def test_against_a_model(shop: Shop, walk: list[tuple[str, int, int]], small: bool, most: int) -> None:
    """Random takes, repeats, impressions and outcomes over time: what a plain model grants is granted; with small
    bounds, never more.
    """
    policy = ContactPolicy(
        (
            ContactLimit(most, 60, "offer"),
            ContactLimit(most + 1, 50, "group", counts="impressions"),
            ContactLimit(4, 40),
            ContactLimit(2, 80, channel=MAIL),
        ),
        hold_seconds=20,
        remember_seconds=10_000,  # what is dropped as too old is another case
        **({"contacts_max": 4, "outcomes_max": 2} if small else {}),
    )
    customer, now, model, decision = f"m{next(_numbers)}", NOW, [], 0
    for what, at, passed in walk:
        now += passed / 3
        own = [entry for entry in model if entry["offer"] == at]
        if what in ("take", "inform", "repeat"):
            decision += what != "repeat" or not decision
            slate, channel = [at, (at + 1) % 6], MAIL if at % 2 else WEB
            trial, expected = list(model), True
            for offer in slate:
                if any(e["offer"] == offer and e["decision"] == decision for e in trial):
                    continue
                expected = expected and fits(trial, policy, offer, channel, now)
                trial.append(
                    {
                        "offer": offer,
                        "decision": decision,
                        "time": now,
                        "channel": channel,
                        "seen": False,
                        "decided": True,
                    }
                )
            said = shop.take(policy, decision, now, slate, channel, customer, what == "inform").granted
            assert said == expected or (small and expected)
            model = trial if said else model
        elif what == "see" and own and own[-1]["decision"]:
            event = ContactEvent(IMPRESSION, now, OFFERS[at], own[-1]["decision"], GROUPS[at], own[-1]["channel"])
            shop.run(shop.ledger.note(customer, policy, [event], now))
            own[-1]["seen"] = True
        elif what == "stray":
            shop.run(
                shop.ledger.note(customer, policy, [ContactEvent(IMPRESSION, now, OFFERS[at], 0, GROUPS[at], WEB)], now)
            )
            if not any(e["decision"] == 0 and e["time"] == now for e in own):
                model.append({"offer": at, "decision": 0, "time": now, "channel": WEB, "seen": True, "decided": False})
        elif what == "dismiss":
            shop.run(
                shop.ledger.note(
                    customer, policy, [ContactEvent(OUTCOME, now, OFFERS[at], 0, GROUPS[at], WEB, DISMISSED)], now
                )
            )
    found = shop.read(customer)
    assert sum(e.kind in (DECISION, IMPRESSION) for e in found) <= policy.contacts_max


def fits(model: list[dict[str, Any]], policy: ContactPolicy, offer: int, channel: int, now: float) -> bool:
    """Whether one more contact fits, in the model's plain words."""
    for limit in policy.limits:
        if limit.scope == "group" and not GROUPS[offer]:
            continue
        same = [e for e in model if now - e["time"] < limit.window_seconds]
        if limit.scope == "offer":
            same = [e for e in same if e["offer"] == offer]
        if limit.scope == "group":
            same = [e for e in same if GROUPS[e["offer"]] == GROUPS[offer]]
        if limit.channel:
            same = [e for e in same if e["channel"] == limit.channel]
        if limit.counts == "decisions":
            same = [e for e in same if e["decided"]]
        else:
            same = [e for e in same if e["seen"] or now - e["time"] < policy.hold_seconds]
        if len(same) >= limit.contacts_max:
            return False
    return True


def test_both_write_the_same_bytes(tmp_path: Path, urls: dict[str, str]) -> None:
    """After the same takes and notes the histories of all stores are the same bytes."""
    histories, policy = {}, replace(WEEK, limits=(*WEEK.limits, ContactLimit(2, DAY, "group", counts="impressions")))
    for kind, url in urls.items():
        shop = Shop(kind, tmp_path / kind, url)
        for step in range(60):
            shop.take(policy, step + 1, NOW + step * 0.4 * DAY, [step % 6, step % 5], informed=step % 3 == 0)
            if step % 4 == 0:
                event = ContactEvent(
                    IMPRESSION, NOW + step * 0.4 * DAY + 1, OFFERS[step % 6], step + 1, GROUPS[step % 6], WEB
                )
                shop.run(shop.ledger.note("1", policy, [event], NOW + step * 0.4 * DAY + 1))
        histories[kind] = shop.run(shop.ledger.read("1"))
        shop.close()
    assert len(entries(histories["embedded"])) > 5
    assert set(histories.values()) == {histories["embedded"]}


@settings(max_examples=300, deadline=None)
@given(drawn=drawn_takes())
def test_the_script_says_what_the_kernel_says(urls: dict[str, str], drawn: tuple[bytes, Take]) -> None:
    """From any history the script's answer and the bytes that it leaves are those of the same take in Python."""
    if "redis" not in urls:
        pytest.skip(find_server()[1])
    history, take = drawn

    async def both() -> tuple[TakeResult, bytes]:
        ledger = RedisLedger(urls["redis"], PATIENT_MS, "drawn")
        key, payload = ledger.read_request(take.customer_id)
        link = routes(Address.parse(urls["redis"]), PATIENT_MS / 1_000)
        assert await link.call(key, command("SET", key, history)) == b"OK"
        answer = await ledger.take(take)
        after = history_of(await link.call(key, payload))
        link.close()
        ledger.close()
        await asyncio.sleep(0)
        return answer, after

    assert asyncio.run(both()) == taken(history, take)


def test_budgets(shop: Shop) -> None:
    """Budgets are reserved for all offers or for none, released by time, given back, and used up by what is
    confirmed.
    """
    first, daily, free = (
        BudgetBound(OFFERS[0], lifetime_max=3),
        BudgetBound(OFFERS[1], daily_max=2),
        BudgetBound(OFFERS[2]),
    )
    moment = Moment(NOW, 20_000, 120)
    assert shop.budgets([first, daily, free], moment) == ["", "", ""]
    assert shop.budgets([first, daily], moment) == ["", ""]
    assert shop.budgets([first, daily], moment) == ["", "daily"]
    assert shop.budgets([first], moment) == [""], "what fell with another was not reserved"
    assert shop.budgets([first, free], moment) == ["lifetime", ""]
    shop.run(shop.ledger.give_back([OFFERS[0], OFFERS[1]], moment))
    assert shop.budgets([first, daily], moment) == ["", ""]
    shop.run(shop.ledger.confirm([OFFERS[0], OFFERS[1]], moment))
    later = Moment(NOW + 60 + 120, 20_000, 120)
    assert [shop.budgets([first], later) for _ in range(3)] == [[""], [""], ["lifetime"]]
    assert [shop.budgets([daily], later) for _ in range(2)] == [[""], ["daily"]]
    tomorrow = Moment(NOW + DAY, 20_001, 120)
    assert [shop.budgets([daily], tomorrow) for _ in range(3)] == [[""], [""], ["daily"]]
    for _ in range(3):
        shop.run(shop.ledger.confirm([OFFERS[0]], moment))
    assert shop.budgets([first], tomorrow) == ["lifetime"], "what was seen late counts"


def test_days_of_budgets(shop: Shop) -> None:
    """A worker whose day is behind or far ahead neither frees a budget nor uses up another day's."""
    daily = BudgetBound(OFFERS[0], daily_max=1)
    for day in (20_000, 29_999, 20_001, 20_002):
        moment = Moment(NOW + (day - 20_000) * DAY, day, 60)
        assert shop.budgets([daily], moment) == [""]
        shop.run(shop.ledger.confirm([OFFERS[0]], moment))
        assert shop.budgets([daily], moment) == ["daily"]
    assert shop.budgets([daily], Moment(NOW, 20_000, 60)) == ["daily"], "of a day long past nothing is known"
    assert shop.budgets([daily], Moment(NOW + 3 * DAY, 20_003, 60)) == [""]


def test_a_budget_stays_small() -> None:
    """A record keeps the youngest days only, and is what it was after packing."""
    record = BudgetRecord()
    for day in range(20_000, 20_010):
        record.reserve(Moment(NOW, day, 60))
        record.confirm(Moment(NOW, day, 60))
    record.reserve(Moment(NOW, 20_009, 60))
    assert record.days == {20_007: 1, 20_008: 1, 20_009: 1}
    assert BudgetRecord.unpack(record.pack()) == record
    assert len(record.pack()) == 8 * (2 + 6 + 3)
    with pytest.raises(ValueError, match="damaged"):
        BudgetRecord.unpack(record.pack()[:-8])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "take", "confirm", "give"]), st.integers(0, 200)), max_size=25))
def test_budgets_against_a_model(shop: Shop, walk: list[tuple[str, int]]) -> None:
    """Random shows over two days are granted as a plain model grants them."""
    offer, now, held, shown = key_of(f"drawn {next(_numbers)}"), 1_000 * DAY - 600, [], []
    budget = BudgetBound(offer, daily_max=4, lifetime_max=7)
    for what, passed in walk:
        now += passed
        moment = Moment(now, math.floor(now / DAY), 180)
        if what == "take":
            live = [m for m in held if (m.minute + 1) * 60 + 180 > now]
            lifetime = len(shown) + len(live) >= 7
            daily = sum(m.day == moment.day for m in (*shown, *live)) >= 4
            assert shop.budgets([budget], moment) == ["lifetime" if lifetime else "daily" if daily else ""]
            if not (lifetime or daily):
                held = [*live, moment]
            continue
        if held:
            given_back = held.pop(passed % len(held))
            shop.run((shop.ledger.confirm if what == "confirm" else shop.ledger.give_back)([offer], given_back))
            shown += [given_back] * (what == "confirm")


def test_what_makes_no_sense(shop: Shop) -> None:
    """A take or a budget that makes no sense is refused before a store is asked."""
    offers = [BudgetBound(OFFERS[0]), BudgetBound(OFFERS[0])]
    with pytest.raises(ValueError, match="different offers"):
        shop.budgets(offers, Moment(NOW, 1, 60))
    with pytest.raises(ValueError, match="a hold of at most"):
        shop.budgets(offers[:1], Moment(NOW, 1, BUDGET_HOLD_SECONDS_MAX + 1))
    with pytest.raises(ValueError, match="expected a decision"):
        shop.take(WEEK, 0, NOW, [0])
    with pytest.raises(ValueError, match="scheme"):
        open_ledger("http://x", Path(), 1, "p")


def test_ids_of_any_kind(shop: Shop) -> None:
    """Ids with zeros, braces, any letters and great length have histories of their own, to be read after a sync by
    another handle.
    """
    ids = ["\0", "a\0b", "Łódź \U0001f600", "{x}", "}{", "x" * 125, "x" * 5_000]
    for i, customer in enumerate(ids):
        assert shop.take(WEEK, i + 1, NOW, [0], customer=customer).granted
    shop.ledger.sync()
    assert shop.ledger.sweep(7 * DAY, NOW) == 0
    assert [[e.decision for e in shop.read(customer)] for customer in ids] == [[i + 1] for i in range(len(ids))]


def test_a_closed_ledger_opens_again(shop: Shop) -> None:
    """What was taken is there when a ledger is opened again, and a scriptless server is told its script again."""
    assert shop.take(WEEK, 1, NOW, [0]).granted
    shop.ledger.sync()
    if shop.kind == "embedded":
        shop.ledger.close()
        shop.ledger = shop.opened()
    elif shop.kind == "redis":
        assert b"OK" in Server.ask(_at(shop.url), "SCRIPT", "FLUSH")
    assert shop.take(WEEK, 1, NOW, [0]).granted
    assert len(shop.read()) == 1


def _at(url: str) -> Any:
    """What `Server.ask` needs of a server: its port."""
    return type("Port", (), {"port": int(url.rpartition(":")[2])})()


def test_zz_the_same_cases_ran_on_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Says how many cases ran on each store: as many on one as on the other, and some."""
    with capsys.disabled():
        print("\nledger contract:", *(f"{ran[kind]} cases on {kind};" for kind in KINDS), find_server()[1])
    assert ran["embedded"] > 0
    for kind in KINDS[1:]:
        assert ran[kind] == (ran["embedded"] if find_server()[0] else 0)
