"""What the ledgers hear and show of a unit: the same cases over LMDB, a real Valkey, and a cluster of three, against a
model of sets.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.columns.rows import StoreUnavailable
from features.contact_history.history import DECISION, IMPRESSION, OUTCOME, unpacked
from features.contact_history.limits import ContactLimit, ContactPolicy
from features.contact_history.takes import ContactEvent
from features.ledger import recent_updates
from features.ledger.lmdb_ledger import LmdbLedger
from features.ledger.recent import EVENTS_MAX, NOTHING, Heard, Known, Recent, RecentEvent, decode, encode
from features.ledger.redis_ledger import RedisLedger
from features.ledger.redis_server import RECENT_SECONDS
from features.redis_store.address import command
from tests.features.ledger.ledger_cases import DAY, DISMISSED, GROUPS, KINDS, NOW, OFFERS, WEB, WEEK, Shop, urls
from tests.stores import find_server

__all__ = ["urls"]

T = int(NOW) * 1_000_000
POLICY = ContactPolicy((ContactLimit(50, DAY),), remember_seconds=30 * DAY)
ran: Counter[str] = Counter()
_numbers = itertools.count()


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path, urls: dict[str, str]) -> Iterator[Shop]:
    if request.param not in urls:
        pytest.skip(find_server()[1])
    found = Shop(request.param, tmp_path, urls[request.param])
    yield found
    found.close()
    ran[request.param] += 1


def happened(key: int, time: int = T, received: int | None = None) -> RecentEvent:
    return RecentEvent(
        key, "calls", time, time + 5 if received is None else received, {"minutes": 1.5, "topic": f"t{key % 3}"}
    )


def hear(shop: Shop, *heard: Heard, policy: ContactPolicy = POLICY) -> list[bool]:
    found: list[bool] = shop.run(shop.ledger.hear(heard, policy, NOW))
    return found


def look(shop: Shop, unit: str) -> Known:
    """All ways to look say the same."""
    found = shop.ledger.look_now(unit)
    assert (found is None) == (shop.kind != "embedded")

    async def begun() -> Known | None:
        begun = shop.ledger.begin_look(unit)
        return None if begun is None else await shop.ledger.end_look(unit, begun)

    again: Known = shop.run(shop.ledger.look(unit))
    assert found in (None, again)
    assert shop.run(begun()) in (None, again)
    return again


def test_a_stranger(shop: Shop) -> None:
    """Nothing is new of a stranger, and nothing of anybody else once something is heard of one."""
    assert look(shop, "1") == Known("1", b"", NOTHING)
    assert hear(shop, Heard("2", event=happened(1))) == [True]
    assert look(shop, "1") == Known("1", b"", NOTHING)
    assert look(shop, "2") == Known("2", b"", Recent(events=(happened(1),)))


def test_what_is_heard_again(shop: Shop) -> None:
    """Events, contacts and consent count once however often and in whatever order they are heard; of consent the latest
    holds.
    """
    contact = ContactEvent(OUTCOME, NOW, OFFERS[0], 5, GROUPS[0], WEB, DISMISSED)
    said = [
        Heard("1", event=happened(9)),
        Heard("1", contact=contact, event=happened(3)),
        Heard("1", consent={"ads": (T, True), "news": (T, False)}),
        Heard("2", contact=contact),
    ]
    assert hear(shop, *said) == [True] * 4
    assert hear(shop, *reversed(said)) == [False] * 4
    assert hear(shop, Heard("1", consent={"ads": (T - 1, False)}), Heard("1", consent={"ads": (T, False)})) == [
        False,
        True,
    ]
    assert hear(shop, Heard("1", consent={"ads": (T + 1, True)})) == [True]
    known = look(shop, "1")
    assert known.recent == Recent("", {"ads": (T + 1, True), "news": (T, False)}, (happened(3), happened(9)))
    assert [(entry.kind, entry.what) for entry in unpacked(known.contacts)] == [(OUTCOME, DISMISSED)]


def test_an_impression_counts_as_new_once(shop: Shop) -> None:
    """Of an impression the contact history says whether it is new, also when its event was trimmed in between."""
    assert shop.take(WEEK, 7, NOW, [0]).granted
    seen = Heard("1", ContactEvent(IMPRESSION, NOW + 1, OFFERS[0], 7, GROUPS[0], WEB), happened(1))
    assert hear(shop, seen, seen, policy=WEEK) == [True, False]
    shop.run(shop.ledger.trim("1", T + 10))
    assert hear(shop, seen, policy=WEEK) == [False]
    assert [(entry.kind, entry.seen) for entry in unpacked(look(shop, "1").contacts)] == [(DECISION, 1)]


def test_trim_and_forget(shop: Shop) -> None:
    """What windows of a moment contain goes, consent stays; a forgotten customer has neither record."""
    late = happened(2, T, T + 50)
    events = [happened(1), late, happened(3, T + 60)]
    hear(shop, *(Heard("1", event=event) for event in events), Heard("1", consent={"ads": (T, True)}))
    shop.run(shop.ledger.trim("1", T + 50))
    assert look(shop, "1").recent.events == (late, events[2])
    for _ in range(2):
        shop.run(shop.ledger.trim("1", T + 10**9))
        assert look(shop, "1").recent == Recent(consent={"ads": (T, True)})
    shop.run(shop.ledger.trim("stranger", T))
    hear(shop, Heard("1", ContactEvent(OUTCOME, NOW, OFFERS[0])))
    for _ in range(2):
        shop.run(shop.ledger.forget("1"))
        assert look(shop, "1") == Known("1", b"", NOTHING)


def test_a_link(shop: Shop) -> None:
    """All of an anonymous id comes to its customer, once; rows from before the link do not hold its events; the first
    link holds.
    """
    hear(
        shop, Heard("~a", ContactEvent(OUTCOME, NOW, OFFERS[0]), happened(1)), Heard("~a", consent={"ads": (T, False)})
    )
    hear(
        shop,
        Heard("c", ContactEvent(OUTCOME, NOW + 1, OFFERS[1]), happened(2)),
        Heard("c", consent={"ads": (T - 1, True)}),
    )
    assert hear(shop, Heard("~a", identify="c", received=T + 100)) == [True]
    expected = Recent("", {"ads": (T, False)}, (happened(1, T, T + 100), happened(2)))
    assert look(shop, "~a") == look(shop, "c")
    assert look(shop, "~a").unit == "c"
    assert look(shop, "c").recent == expected
    assert [entry.offer for entry in unpacked(look(shop, "c").contacts)] == OFFERS[:2]
    assert hear(shop, Heard("~a", identify="d", received=T + 200), Heard("~a", identify="c", received=T + 300)) == [
        False,
        False,
    ]
    assert look(shop, "d") == Known("d", b"", NOTHING)
    assert hear(shop, Heard("~a", event=happened(1)), Heard("~a", event=happened(4))) == [False, True]
    assert look(shop, "c").recent.events == (*expected.events, happened(4, T, T + 100))
    if shop.kind == "embedded":
        assert shop.take(WEEK, 8, NOW, [3], customer="~a").granted, "a take that had not heard of the link"
        assert [entry.kind for entry in unpacked(look(shop, "c").contacts)][-1] == DECISION


def test_there_is_a_bound(shop: Shop) -> None:
    """Of too many events the oldest go, and are counted."""
    events = [happened(10_000 - at, T + at) for at in range(EVENTS_MAX + 5)]
    hear(shop, *(Heard("1", event=event) for event in events))
    assert look(shop, "1").recent.events == tuple(reversed(events[5:]))
    assert isinstance(shop.ledger, LmdbLedger | RedisLedger)
    assert shop.ledger.dropped == 5


walks = st.lists(
    st.tuples(
        st.sampled_from(["event", "event", "contact", "consent", "identify", "again", "look"]),
        st.sampled_from(["~a", "~b", "c", "d"]),
        st.integers(0, 12),
    ),
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(walks, st.integers(1, 5))
def test_against_a_model(shop: Shop, walk: list[tuple[str, str, int]], together: int) -> None:
    """Random events, links, repeats and looks: every unit has what a model of sets says, and an anonymous id what its
    customer has.
    """
    run, said = f"{next(_numbers)}", list[Heard]()
    for what, name, number in walk:
        unit = f"{name}{run}"
        if what == "event":
            said.append(Heard(unit, event=happened(number + 1)))
        elif what == "contact":
            said.append(Heard(unit, ContactEvent(OUTCOME, NOW + number, OFFERS[number % 6])))
        elif what == "consent":
            said.append(Heard(unit, consent={f"p{number % 2}": (T + number // 2, number % 3 == 0)}))
        elif what == "identify" and name.startswith("~"):
            said.append(Heard(unit, identify=f"{'cd'[number % 2]}{run}", received=T + number))
        elif what == "again" and said:
            said.append(said[number % len(said)])
        elif what == "look":
            look(shop, unit)
    for start in range(0, len(said), together):
        hear(shop, *said[start : start + together])
    links = dict[str, str]()
    model = dict[str, tuple[set[int], set[float], dict[str, tuple[int, bool]]]]()
    for one in said:
        if one.identify:
            links.setdefault(one.unit, one.identify)
    for one in said:
        events, contacts, consent = model.setdefault(links.get(one.unit, one.unit), (set(), set(), {}))
        if one.event:
            events.add(one.event.key)
        if one.contact:
            contacts.add(one.contact.time)
        for purpose, answer in one.consent.items():
            consent[purpose] = max(consent.get(purpose, answer), answer, key=lambda said: (said[0], not said[1]))
    for name in ("~a", "~b", "c", "d"):
        unit, contacts_of, recent = look(shop, f"{name}{run}")
        assert unit == links.get(f"{name}{run}", f"{name}{run}")
        events, contacts, consent = model.get(unit, (set(), set(), {}))
        assert [event.key for event in recent.events] == sorted(events)
        assert sorted(entry.time for entry in unpacked(contacts_of)) == sorted(contacts)
        assert recent.consent == consent


def test_a_link_that_was_left_half_way(urls: dict[str, str], tmp_path: Path) -> None:
    """Redis: a process that dies between link and move leaves both; the same link, heard again, moves."""
    if "redis" not in urls:
        pytest.skip(find_server()[1])
    shop = Shop("redis", tmp_path, urls["redis"])
    ledger: Any = shop.ledger
    hear(shop, Heard("~a", ContactEvent(OUTCOME, NOW, OFFERS[0]), happened(1)))
    stored = shop.run(ledger._stored("~a"))
    half = recent_updates.linked(stored.state, "c", T + 1)
    assert shop.run(ledger._replace_both("~a", stored, half, POLICY))
    assert look(shop, "~a") == Known("c", b"", NOTHING)
    assert hear(shop, Heard("~a", identify="c", received=T + 1)) == [False]
    assert len(look(shop, "~a").recent.events) == len(unpacked(look(shop, "c").contacts)) == 1
    shop.close()


def test_what_expires(urls: dict[str, str], tmp_path: Path) -> None:
    """Redis: events that nothing trims expire, a consent and a link do not."""
    if "redis" not in urls:
        pytest.skip(find_server()[1])
    shop = Shop("redis", tmp_path, urls["redis"])
    ledger: Any = shop.ledger

    async def milliseconds(unit: str) -> object:
        key = ledger._recent_key(unit)
        return await ledger._reached().call(key, command("PTTL", key))

    hear(shop, Heard("1", event=happened(1)), Heard("~a", identify="2", received=T))
    assert 0.9 * RECENT_SECONDS < shop.run(milliseconds("1")) / 1_000 <= RECENT_SECONDS
    hear(shop, Heard("1", consent={"ads": (T, True)}))
    assert [shop.run(milliseconds(unit)) for unit in ("1", "~a")] == [-1, -1]
    shop.close()


def test_a_damaged_record(tmp_path: Path) -> None:
    """Embedded: a record whose checksum does not fit is refused, until the customer is forgotten."""
    shop = Shop("embedded", tmp_path, "")
    hear(shop, Heard("1", event=happened(1)))
    shop.ledger.close()
    file = tmp_path / "ledger" / "data.mdb"
    content = file.read_bytes()
    assert b"minutes" in content
    with file.open("r+b") as handle:
        handle.write(content.replace(b"minutes", b"minuten"))
        os.fsync(handle.fileno())
    shop.ledger = LmdbLedger(tmp_path / "ledger")
    with pytest.raises(StoreUnavailable, match="damaged"):
        shop.ledger.look_now("1")
    shop.run(shop.ledger.forget("1"))
    assert look(shop, "1") == Known("1", b"", NOTHING)
    shop.close()


def test_records_of_before_and_after() -> None:
    """A record is what it was after packing; one of a version with fewer fields still decodes, foreign bytes do not."""
    recent = Recent("c", {"ads": (T, True)}, (happened(1),), 7)
    assert decode(encode(recent)) == recent
    assert encode(NOTHING) == b""
    assert decode(b"\x91\xa1c") == Recent("c")
    with pytest.raises(ValueError, match="Expected"):
        decode(b"\xa3abc")


def test_zz_the_same_cases_ran_on_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Says how many cases ran on each store: as many on one as on the other, and some."""
    with capsys.disabled():
        print("\nrecent contract:", *(f"{ran[kind]} cases on {kind};" for kind in KINDS), find_server()[1])
    assert ran["embedded"] > 0
    for kind in KINDS[1:]:
        assert ran[kind] == (ran["embedded"] if find_server()[0] else 0)
