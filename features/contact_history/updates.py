"""How a contact history changes: room is made, what happened is noted, two histories become one. Bytes in, bytes out.

Both stores change a history by these functions, one inside a transaction, the other by compare and set; only a take has
a second form, the script that Redis runs.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from features.common.moments import Seconds
from features.contact_history.count_kernels import fits
from features.contact_history.counts import words_of
from features.contact_history.history import DECISION, ENTRY_BYTES, GAP, IMPRESSION, OUTCOME, Entry, unpacked
from features.contact_history.limits import BEHIND_SECONDS_MAX, ContactPolicy
from features.contact_history.search import seek
from features.contact_history.takes import GRANTED, ContactEvent, Take, TakeResult

_SEEN = 45
"""Where an entry says that it was seen, in bytes."""
_CONTACTS, _OUTCOMES = 0, OUTCOME
"""What a gap is of, in its field `what`."""


def taken(history: bytes, take: Take) -> tuple[TakeResult, bytes]:
    """Return the answer to a take, and the history after it: the same object when nothing was added."""
    policy, now = take.policy, take.now
    asked, choices = take.packed()
    told = np.empty(len(take.contacts), np.int64)
    contacts = fits(
        words_of(history),
        words_of(asked),
        np.frombuffer(choices or b"\0\0", np.uint16),
        policy.limit_words,
        now,
        policy.hold_seconds,
        told,
    )
    fell = told.tolist()
    answer = TakeResult(tuple([at if at >= 0 else GRANTED for at in fell]))
    new = fell.count(GRANTED)
    if contacts < 0 or not new:
        return answer, history
    if new < len(fell):
        asked = b"".join(
            [asked[ENTRY_BYTES * at : ENTRY_BYTES * (at + 1)] for at, found in enumerate(fell) if found == GRANTED]
        )
    if contacts + new <= policy.contacts_max:
        return answer, aged(history, now - policy.horizon_seconds) + asked
    return answer, fitted(history, policy, now, new) + asked


def packed(found: Iterable[Entry]) -> bytes:
    """Return entries as a history."""
    return b"".join([entry.pack() for entry in found])


def aged(history: bytes, since: float) -> bytes:
    """Return a history without the oldest entries that are not after `since`; those out of order stay until
    `fitted`.
    """
    start = 0
    while start < len(history) and Entry.unpack_time(history, start) <= since:
        start += ENTRY_BYTES
    return history[start:] if start else history


def fitted(history: bytes, policy: ContactPolicy, now: Seconds, contacts_more: int = 0) -> bytes:
    """Return a history within its bounds, with room for more contacts.

    What is beyond the horizon goes first; then what nothing looks back at, the oldest first; then the oldest, and
    leaves a gap. Contacts and outcomes have room of their own.
    """
    since = now - policy.horizon_seconds
    kept = [entry for entry in unpacked(history) if entry.time > since]
    contacts = [entry for entry in kept if entry.kind in (DECISION, IMPRESSION)]
    outcomes = [entry for entry in kept if entry.kind == OUTCOME]
    dropped: set[int] = set()
    gaps: dict[int, Entry] = {}
    for entry in kept:
        if entry.kind == GAP:
            _widen(gaps, entry.what, entry)
    for what, found, most in (
        (_CONTACTS, contacts, policy.contacts_max - contacts_more),
        (_OUTCOMES, outcomes, policy.outcomes_max),
    ):
        over = len(found) - most
        if over <= 0:
            continue
        # Sorted is stable: among equals the first to arrive goes first.
        behind = now - BEHIND_SECONDS_MAX
        unneeded = sorted((entry for entry in found if entry.time + entry.keep <= behind), key=_time)[:over]
        dropped.update(map(id, unneeded))
        over -= len(unneeded)
        if over > 0:
            needed = sorted((entry for entry in found if entry.time + entry.keep > behind), key=_time)[:over]
            dropped.update(map(id, needed))
            _widen(gaps, what, needed[-1])
    return packed([*gaps.values(), *(entry for entry in kept if entry.kind != GAP and id(entry) not in dropped)])


def _widen(gaps: dict[int, Entry], what: int, missing: Entry) -> None:
    """Let a gap reach at least as far as an entry that is missing."""
    found = gaps.get(what)
    if found is None or found.time < missing.time:
        gaps[what] = Entry(missing.time, 0, 0, 0, 0, what, missing.keep, GAP, 0)


def _time(entry: Entry) -> float:
    return entry.time


def _identity(entry: Entry) -> tuple[float, ...]:
    """Return what makes two entries one: of a decision's contact the decision and the offer, whenever it was seen; else
    all there is.
    """
    if entry.kind in (DECISION, IMPRESSION) and entry.decision:
        return DECISION, entry.decision, entry.offer
    return entry.kind, entry.decision, entry.offer, entry.time, entry.channel, entry.what


def noted(
    history: bytes, policy: ContactPolicy, events: Iterable[ContactEvent], now: Seconds
) -> tuple[bytes, list[bool]]:
    """Return a history with events added, and for each event whether it was new.

    An impression of a contact that was taken marks it seen.
    """
    since, new, before = now - policy.horizon_seconds, [], history
    found = np.empty(3, np.int64)
    contacts = outcomes = 0
    for event in events:
        entry = event.entry(policy)
        added = entry.pack()
        seek(words_of(history), words_of(added), found)
        at, contacts, outcomes = found.tolist()
        fresh = entry.time > since if at < 0 else entry.kind == IMPRESSION and not history[ENTRY_BYTES * at + _SEEN]
        new.append(fresh)
        if fresh and at >= 0:
            place = ENTRY_BYTES * at + _SEEN
            history = b"".join((history[:place], b"\x01", history[place + 1 :]))
        elif fresh:
            history += added
            contacts += entry.kind == IMPRESSION
            outcomes += entry.kind == OUTCOME
    if history is before:
        return history, new
    if contacts > policy.contacts_max or outcomes > policy.outcomes_max:
        return fitted(history, policy, now), new
    return aged(history, since), new


def merged(history: bytes, other: bytes, policy: ContactPolicy, now: Seconds) -> bytes:
    """Return two histories as one: the entries of both, each once, by time; what one of them has seen is seen."""
    found: dict[tuple[float, ...], Entry] = {}
    for entry in (*unpacked(history), *unpacked(other)):
        known = found.setdefault(_identity(entry), entry)
        if known is not entry:
            chosen = entry if entry.kind < known.kind else known  # a decision says more than its impression
            found[_identity(entry)] = chosen._replace(seen=known.seen | entry.seen, keep=max(known.keep, entry.keep))
    return fitted(packed(sorted(found.values(), key=_time)), policy, now)
