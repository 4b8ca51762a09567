"""The contract of the ledgers: the same cases over LMDB, a real Valkey, and a cluster of three."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from features.contact_history.history import DECISION, GAP, IMPRESSION, OUTCOME
from features.contact_history.limits import ContactLimit, ContactPause, ContactPolicy
from features.contact_history.takes import ContactEvent, Take
from features.ledger.budgets import BUDGET_HOLD_SECONDS_MAX, BudgetBound, BudgetRecord, Moment
from features.ledger.ledger import open_ledger
from tests.features.ledger.ledger_cases import (
    DAY,
    DISMISSED,
    GROUPS,
    KINDS,
    MAIL,
    NOW,
    OFFERS,
    WEB,
    WEEK,
    Shop,
    ran,
    shop,
    urls,
)
from tests.stores import Server, find_server

__all__ = ["shop", "urls"]


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
