"""What a contact history says of limits and pauses: counts, what is blocked, what is paused, and whether a take fits.

`count` and `paused` are the plain words, for one limit or pause. `count_kernels` says the same for all of a policy at
once, in some microseconds; tests hold one against the other. In a history only what occurs can be exhausted, so a whole
catalogue is answered by looking up the few offers and groups that do.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from features.common.moments import Seconds
from features.contact_history.count_kernels import flag_limits, flag_pauses
from features.contact_history.history import DECISION, GAP, IMPRESSION, OUTCOME, unpacked
from features.contact_history.limits import ContactLimit, ContactPause, ContactPolicy

COUNT_UNKNOWN = 1 << 31
"""The count of a limit whose window reaches behind a gap: more than any limit allows."""

NOTHING: NDArray[np.uint64] = np.frombuffer(bytes(8), np.uint64)[:0]
"""The words of an empty history."""

_CONTACTS, _OUTCOMES = 0, OUTCOME


def words_of(history: bytes) -> NDArray[np.uint64]:
    """Return a history as the kernels read it: 6 words an entry."""
    return np.frombuffer(history, np.uint64) if history else NOTHING


class CatalogueIndex:
    """Which positions of a catalogue an offer's or a group's hash leads to, as bit sets: bit i is position i."""

    def __init__(self, offers: Iterable[int], groups: Iterable[int]) -> None:
        self.of_offer: dict[int, int] = {}
        self.of_group: dict[int, int] = {}
        self.grouped = size = 0
        for at, (offer, group) in enumerate(zip(offers, groups, strict=True)):
            self.of_offer[offer] = self.of_offer.get(offer, 0) | 1 << at
            if group:
                self.of_group[group] = self.of_group.get(group, 0) | 1 << at
                self.grouped |= 1 << at
            size = at + 1
        self.everything = (1 << size) - 1

    def positions(self, scope: str, key: int) -> int:
        """Return the positions of a key; of key 0, all that the scope speaks of."""
        if scope == "any":
            return self.everything
        if scope == "offer":
            return self.of_offer.get(key, 0) if key else self.everything
        return self.of_group.get(key, 0) if key else self.grouped


def count(history: bytes, limit: ContactLimit, now: Seconds, hold_seconds: float) -> int:
    """Return how many contacts of a history a limit counts now. A limit of each offer or group needs its key:
    `replace(limit, key=…)`.
    """
    found, since = 0, now - limit.window_seconds
    for entry in unpacked(history):
        if entry.kind == GAP and entry.what == _CONTACTS and entry.time > since:
            return COUNT_UNKNOWN
        if entry.kind not in (DECISION, IMPRESSION) or entry.time <= since or limit.channel not in (0, entry.channel):
            continue
        if limit.scope != "any" and limit.key != (entry.offer if limit.scope == "offer" else entry.group):
            continue
        if limit.counts == "decisions":
            found += entry.kind == DECISION
        else:
            found += bool(entry.seen) or entry.kind == IMPRESSION or entry.time > now - hold_seconds
    return found


def paused(history: bytes, pause: ContactPause, now: Seconds) -> bool:
    """Return whether a pause holds now; one of each offer or group needs its key. Outcomes that are missing may have
    caused one.
    """
    times = []
    for entry in unpacked(history):
        if (
            entry.kind == GAP
            and entry.what == _OUTCOMES
            and entry.time + pause.within_seconds + pause.pause_seconds > now
        ):
            return True
        own = {"any": 0, "offer": entry.offer, "group": entry.group}[pause.scope]
        if entry.kind == OUTCOME and entry.what == pause.what and own == pause.key:
            times.append(entry.time)
    times.sort()
    runs = zip(times, times[pause.times - 1 :], strict=False)
    return any(last - first <= pause.within_seconds and now < last + pause.pause_seconds for first, last in runs)


def blocked(history: bytes, policy: ContactPolicy, index: CatalogueIndex, now: Seconds) -> dict[int, int]:
    """Return, for each limit that is exhausted somewhere, the catalogue's positions where it is, whether or not it
    concerns them.

    An answer for choosing candidates; the word that counts is the take's.
    """
    words = words_of(history)
    flags = np.zeros((len(policy.limits), len(words) // 6 + 1), np.uint8)
    if not flag_limits(words, policy.limit_words, now, policy.hold_seconds, flags):
        return {}
    return _positions(flags, policy.limits, words, index)


def paused_positions(history: bytes, policy: ContactPolicy, index: CatalogueIndex, now: Seconds) -> dict[int, int]:
    """Return, for each pause that holds somewhere, the catalogue's positions where it does."""
    words = words_of(history)
    flags = np.zeros((len(policy.pauses), len(words) // 6 + 1), np.uint8)
    if not flag_pauses(words, policy.pause_words, now, flags):
        return {}
    return _positions(flags, policy.pauses, words, index)


def _positions(
    flags: NDArray[np.uint8],
    rules: tuple[ContactLimit, ...] | tuple[ContactPause, ...],
    words: NDArray[np.uint64],
    index: CatalogueIndex,
) -> dict[int, int]:
    """Return flags as positions: one a rule and entry, and a last one for all that the rule speaks of."""
    found: dict[int, int] = {}
    whole = flags.shape[1] - 1
    for at, entry in zip(*(part.tolist() for part in flags.nonzero()), strict=True):
        rule = rules[at]
        if entry == whole:
            bits = index.positions(rule.scope, rule.key)
        else:
            bits = index.positions(rule.scope, int(words[6 * entry + (1 if rule.scope == "offer" else 3)]) or -1)
        if bits:
            found[at] = found.get(at, 0) | bits
    return found
