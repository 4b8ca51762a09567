"""Contact histories: counting against ten plain lines, the kernels against the plain words, and bounds that never
forget a limit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.contact_history.counts import COUNT_UNKNOWN, CatalogueIndex, blocked, count, paused, paused_positions
from features.contact_history.history import (
    CONTACTS_MAX,
    DECISION,
    ENTRY,
    ENTRY_BYTES,
    ENTRY_DTYPE,
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
from features.contact_history.takes import ContactEvent, Take
from features.contact_history.updates import fitted, merged, noted, packed, taken
from tests.features.contact_history.history_cases import (
    CLICKED,
    DISMISSED,
    GROUPS,
    INDEX,
    NOW,
    OFFERS,
    OURS,
    WEB,
    drawn_entries,
    offers,
    on,
    policies,
    reference,
)


def test_hashes_are_for_ever() -> None:
    """The hash of an id is what it was when the first history was written."""
    assert key_of("offer-1") == 0xFE883E1690DEBA00
    assert key_of("") == 0xB4B2797457A0A6E4
    assert word_of("web") == key_of("web") & 0xFFFF_FFFF
    assert len({key_of(f"Łódź {i}") for i in range(10_000)}) == 10_000


def test_an_entry_is_48_bytes() -> None:
    """The packed entry, the array's dtype and the documented offsets are one."""
    assert ENTRY_BYTES == ENTRY_DTYPE.itemsize == ENTRY.size == 48
    entry = Entry(1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    row = entries(entry.pack())[0]
    assert tuple(row.item()) == entry
    assert [ENTRY_DTYPE.fields[name][1] for name in ENTRY_DTYPE.names] == [0, 8, 16, 24, 32, 36, 40, 44, 45, 46]  # type: ignore[index,union-attr]
    assert unpacked(entry.pack()) == [entry]
    assert len(entries(b"")) == 0


@given(st.data(), policies)
def test_counts(data: st.DataObject, policy: ContactPolicy) -> None:
    """A limit counts what ten plain lines count, and blocks the positions where that is as much as it allows."""
    found = data.draw(drawn_entries(policy))
    history = packed(found)
    said = blocked(history, policy, INDEX, NOW)
    for position, limit in enumerate(policy.limits):
        expected = 0
        for at in range(len(OFFERS)):
            own = on(limit, at)
            if own is not None:
                counted = count(history, own, NOW, policy.hold_seconds)
                assert counted == reference(found, own, policy.hold_seconds)
                expected |= (counted >= limit.contacts_max) << at
        assert said.get(position, 0) == expected


@given(st.data(), policies)
def test_pauses(data: st.DataObject, policy: ContactPolicy) -> None:
    """A pause holds for what some plain lines say, for each offer and all together."""
    found = data.draw(drawn_entries(policy))
    history = packed(found)
    said = paused_positions(history, policy, INDEX, NOW)
    for position, pause in enumerate(policy.pauses):
        expected = 0
        for at in range(len(OFFERS)):
            own = on(pause, at)
            if own is None:
                continue
            field = {"any": lambda e: 0, "offer": lambda e: e.offer, "group": lambda e: e.group}[pause.scope]
            times = [e.time for e in found if e.kind == OUTCOME and e.what == pause.what and field(e) == own.key]
            ends = [t for t in times if sum(t - pause.within_seconds <= u <= t for u in times) >= pause.times]
            holds = any(t + pause.pause_seconds > NOW for t in ends)
            assert paused(history, own, NOW) == holds
            expected |= holds << at
        assert said.get(position, 0) == expected


@given(st.data(), policies)
def test_a_take_is_counted_one_by_one(data: st.DataObject, policy: ContactPolicy) -> None:
    """A take grants what counting after each contact grants, adds all or nothing, and adds nothing when it is
    repeated.
    """
    found = data.draw(drawn_entries(policy))
    chosen = data.draw(st.lists(offers, min_size=1, max_size=4))
    positions = list(range(len(policy.limits)))
    contacts = tuple(policy.contact(OFFERS[at], GROUPS[at], WEB, positions) for at in chosen)
    take = Take("1", OURS, NOW, contacts, policy)
    answer, after = taken(packed(found), take)

    now_held, expected, added = list(found), [], []
    for at, contact in zip(chosen, contacts, strict=True):
        if any(e.offer == OFFERS[at] and e.decision == OURS for e in added):
            expected.append(-1)
            continue
        fell = -1
        for position, limit in enumerate(policy.limits):
            own = replace(limit, key=limit.key or {"any": 0, "offer": OFFERS[at], "group": GROUPS[at]}[limit.scope])
            if limit.scope == "group" and not limit.key and not GROUPS[at]:
                continue
            if reference(now_held, own, policy.hold_seconds) >= limit.contacts_max:
                fell = position
                break
        expected.append(fell)
        if fell < 0:
            now_held.append(unpacked(contact.pack(NOW, OURS))[0])
            added.append(now_held[-1])
    assert list(answer.fell) == expected
    assert answer.granted == all(at < 0 for at in expected)
    if answer.granted:
        assert {e.offer for e in unpacked(after) if e.decision == OURS} == {e.offer for e in added}
        again, same = taken(after, take)
        assert again.granted
        assert same is after
    else:
        assert after == packed(found)


@given(st.data(), policies, st.integers(0, 60))
def test_a_bounded_history_forgets_no_limit(data: st.DataObject, policy: ContactPolicy, later: int) -> None:
    """What the whole history blocks or pauses, now and later, the one that was cut to its bounds does too."""
    found = data.draw(drawn_entries(policy))
    whole, kept = packed(found), fitted(packed(found), policy, NOW)
    kinds = [entry.kind for entry in unpacked(kept)]
    assert sum(kind in (DECISION, IMPRESSION) for kind in kinds) <= policy.contacts_max
    assert kinds.count(OUTCOME) <= policy.outcomes_max
    assert kinds.count(GAP) <= 2
    for says in (blocked, paused_positions):
        of_whole, of_kept = says(whole, policy, INDEX, NOW + later), says(kept, policy, INDEX, NOW + later)
        assert all(bits & of_kept.get(position, 0) == bits for position, bits in of_whole.items())
    assert fitted(kept, policy, NOW) == kept


def test_a_gap_is_an_exhausted_limit() -> None:
    """A limit whose window reaches behind a gap counts as exhausted, one that does not is counted, and time closes the
    gap.
    """
    policy = ContactPolicy((ContactLimit(3, 100), ContactLimit(3, 10)), contacts_max=3)
    early = [Entry(NOW - 50 + i, OFFERS[i], i + 1, 0, WEB, 0, 100, DECISION, 0) for i in range(5)]
    history = fitted(packed(early), policy, NOW)
    assert [(entry.kind, entry.time - NOW) for entry in unpacked(history)] == [
        (GAP, -49),
        (DECISION, -48),
        (DECISION, -47),
        (DECISION, -46),
    ]
    assert count(history, policy.limits[0], NOW, 1) == COUNT_UNKNOWN
    assert count(history, policy.limits[1], NOW, 1) == 0
    assert blocked(history, policy, INDEX, NOW) == {0: INDEX.everything}
    assert count(history, policy.limits[0], NOW + 50, 1) == COUNT_UNKNOWN
    assert count(history, policy.limits[0], NOW + 51, 1) == 3
    assert blocked(history, policy, INDEX, NOW + 52) == {}


def test_what_nothing_looks_back_at_goes_first() -> None:
    """A full history drops an old contact that no limit counts before an older one that a limit does, and has no gap
    then.
    """
    policy = ContactPolicy((ContactLimit(1, 1_000, "offer", OFFERS[0]),), remember_seconds=10_000, contacts_max=3)
    history = b""
    for step, at in enumerate([0, 1, 2, 3, 1, 2]):
        contact = policy.contact(OFFERS[at], 0, WEB, [0] if at == 0 else [])
        answer, history = taken(history, Take("1", step + 1, NOW + 20 * step, (contact,), policy))
        assert answer.granted
    assert [entry.offer for entry in unpacked(history)] == [OFFERS[0], OFFERS[1], OFFERS[2]]
    again = policy.contact(OFFERS[0], 0, WEB, [0])
    assert taken(history, Take("1", 99, NOW + 109, (again,), policy))[0].fell == (0,)


def test_noting() -> None:
    """An impression marks its contact as seen, once; without one it is an entry of its own; outcomes are kept by their
    time.
    """
    policy = ContactPolicy((ContactLimit(2, 1_000),), (ContactPause(DISMISSED, 2, 100, 100),))
    _, history = taken(b"", Take("1", 7, NOW, (policy.contact(OFFERS[0], GROUPS[0], WEB, [0]),), policy))
    seen = ContactEvent(IMPRESSION, NOW + 1, OFFERS[0], 7, GROUPS[0], WEB)
    stray = ContactEvent(IMPRESSION, NOW + 1, OFFERS[1], 8, GROUPS[1], WEB)
    click = ContactEvent(OUTCOME, NOW + 2, OFFERS[0], 7, GROUPS[0], WEB, CLICKED)
    old = ContactEvent(OUTCOME, NOW - 2_000, OFFERS[0], 7, GROUPS[0], WEB, CLICKED)
    history, new = noted(history, policy, [seen, stray, click, old, seen], NOW + 3)
    assert new == [True, True, True, False, False]
    assert [(e.kind, e.seen) for e in unpacked(history)] == [(DECISION, 1), (IMPRESSION, 1), (OUTCOME, 0)]
    late = [stray._replace(time=NOW + 9), click, click._replace(time=NOW + 3)]
    history, new = noted(history, policy, late, NOW + 9)
    assert new == [False, False, True]
    assert noted(history, policy, [seen, stray], NOW + 9) == (history, [False, False])
    with pytest.raises(ValueError, match="IMPRESSION or an OUTCOME"):
        noted(history, policy, [seen._replace(kind=DECISION)], NOW)
    with pytest.raises(ValueError, match="finite"):
        noted(history, policy, [seen._replace(time=float("nan"))], NOW)


@settings(max_examples=60)
@given(st.data())
def test_merging(data: st.DataObject) -> None:
    """Two histories become one with the entries of both, each once, in the order of time; doing it again changes
    nothing.
    """
    policy = ContactPolicy((ContactLimit(3, 200),), (ContactPause(DISMISSED, 1, 100, 100),))
    one, two = data.draw(drawn_entries(policy)), data.draw(drawn_entries(policy))
    both = merged(packed(one), packed(two + one[:2]), policy, NOW)
    assert merged(both, packed(two), policy, NOW) == both
    times = entries(both)["time"]
    assert (np.diff(times) >= 0).all()
    of = lambda found: {(e.offer, e.decision) for e in found if e.kind in (DECISION, IMPRESSION)}  # noqa: E731
    assert of(unpacked(both)) == of(one + two)
    shown = {(e.offer, e.decision) for e in one + two if e.seen and e.decision}
    assert all(e.seen for e in unpacked(both) if (e.offer, e.decision) in shown and e.kind != OUTCOME)


REFUSED: list[tuple[Any, str]] = [
    (
        lambda: ContactPolicy((ContactLimit(CONTACTS_MAX + 1, 10),)),
        "limit 0: contacts_max: expected a whole number from 0 to 384, got 385",
    ),
    (lambda: ContactPolicy((ContactLimit(1, 0),)), "window_seconds: expected more than 0"),
    (lambda: ContactPolicy((ContactLimit(1, float("nan")),)), "window_seconds"),
    (lambda: ContactPolicy((ContactLimit(1, 1e10),)), "window_seconds"),
    (lambda: ContactPolicy((ContactLimit(1, 1, "any", 5),)), "no key with the scope `any`"),
    (lambda: ContactPolicy((), (ContactPause(1, 0, 1, 1),)), "pause 0: times"),
    (lambda: ContactPolicy((), (ContactPause(1, 1, 1, -1),)), "pause_seconds"),
    (lambda: ContactPolicy(hold_seconds=0), "hold_seconds"),
    (lambda: ContactPolicy(contacts_max=100_000), "room for 1 to 384 contacts"),
    (lambda: ContactPolicy((ContactLimit(1, 1),) * 1_001), "at most 1000 limits"),
    (lambda: ContactPolicy().contact(1, 0, 0, [0]), "position of a limit"),
    (lambda: Take("1", 0, NOW, (), ContactPolicy()).packed(), "expected a decision"),
    (lambda: Take("1", 1, float("inf"), (), ContactPolicy()).packed(), "finite time"),
    (
        lambda: Take("1", 1, NOW, (ContactPolicy().contact(1, 0, 0, []),) * 65, ContactPolicy()).packed(),
        "at most 64 contacts",
    ),
]


@pytest.mark.parametrize(("make", "says"), REFUSED)
def test_what_cannot_be_held_is_refused(make: Any, says: str) -> None:
    """A limit that a history could not hold, and a take that makes no sense, are refused with what was expected."""
    with pytest.raises(ValueError, match=says):
        make()


def test_extremes() -> None:
    """No limits, no contacts, and a history of nobody: nothing is blocked, and everything is granted."""
    policy = ContactPolicy()
    assert blocked(b"", policy, INDEX, NOW) == paused_positions(b"", policy, INDEX, NOW) == {}
    assert taken(b"", Take("1", 1, NOW, (), policy)) == (((),), b"")
    never = ContactPolicy((ContactLimit(0, 1), ContactLimit(0, 1, "group")))
    assert blocked(b"", never, INDEX, NOW) == {0: INDEX.everything, 1: 0b01111}
    assert blocked(b"", never, CatalogueIndex([], []), NOW) == {}
