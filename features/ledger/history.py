"""The contact history of one customer: what was offered, seen and done, as entries of fixed size, and the limits that
it is held to.

A history is bytes: entries of 48 bytes, little-endian, in the order of their arrival. Every id is a hash, so that an
entry is small, says nothing by itself, and is compared without decoding. The same bytes lie in LMDB and in Redis.

    f8 time      seconds since 1970: of the take, the impression, the outcome
    u8 offer     `key_of` the offer's id
    u8 decision  `key_of` the decision's id; 0 none
    u8 group     `key_of` the offer's group; 0 none
    u4 channel   `word_of` the channel
    u4 what      `word_of` the outcome's type; 0 for contacts. In a gap: the kind of the entries that are missing
    u4 keep      seconds for which some limit or pause looks back at the entry
    u1 kind      DECISION, IMPRESSION, OUTCOME or GAP
    u1 seen      1 when the impression of a DECISION was reported
    u2           0

A history is bounded. Where it must drop an entry that a limit still looks back at, it leaves a GAP with that entry's
time: a limit whose window reaches behind a gap is taken as exhausted. So a full history refuses too much, and never too
little.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.common.moments import Seconds

DECISION, IMPRESSION, OUTCOME, GAP = 1, 2, 3, 4
"""Kinds: taken, that is shown in an answer; seen without a known decision; what came of it; where entries are missing.
"""

ENTRY = struct.Struct("<dQQQIIIBBH")
ENTRY_BYTES = ENTRY.size
ENTRY_DTYPE = np.dtype(
    [
        ("time", "<f8"),
        ("offer", "<u8"),
        ("decision", "<u8"),
        ("group", "<u8"),
        ("channel", "<u4"),
        ("what", "<u4"),
        ("keep", "<u4"),
        ("kind", "u1"),
        ("seen", "u1"),
        ("unused", "<u2"),
    ]
)

CONTACTS_MAX = 384
"""Bound on the DECISION and IMPRESSION entries of one history, and so on what a limit may allow."""
OUTCOMES_MAX = 128
"""Bound on the OUTCOME entries of one history, and so on the outcomes that a pause may wait for; apart, so that neither
drives the other out.
"""
SECONDS_MAX = 10 * 366 * 86_400.0
"""Bound on every window, pause and hold."""
BEHIND_SECONDS_MAX = 10.0
"""How far a taker's clock may lie behind another's, its wait for the store included: entries are kept so much longer
than they are looked back at by whoever is on time.
"""
LIMITS_MAX = 1_000
"""Bound on the limits of a policy."""
CHOSEN_MAX = 64
"""Bound on the contacts of one take; an answer has at most 50 offers."""

Scope = Literal["any", "offer", "group"]
Counts = Literal["decisions", "impressions"]
_SCOPES = {"any": 0, "offer": 1, "group": 2}
_COUNTS = {"decisions": 0, "impressions": 1}
_DOUBLE = struct.Struct("<d")
_LIMIT = struct.Struct("<ddQIBBH")
_PAUSE = struct.Struct("<dddQIBBH")


def key_of(text: str) -> int:
    """Return a stable hash of an id: BLAKE2b of its UTF-8 with 8 bytes, little-endian; never 0."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") or 1


def word_of(text: str) -> int:
    """Return the same in 32 bits, for channels and types of outcomes, of which there are few; never 0."""
    return key_of(text) & 0xFFFF_FFFF or 1


def entries(history: bytes) -> NDArray[np.void]:
    """Return a history as a read-only array of `ENTRY_DTYPE`, shape (entries,)."""
    return np.frombuffer(history, ENTRY_DTYPE) if history else np.empty(0, ENTRY_DTYPE)


class Entry(NamedTuple):
    """One entry, decoded; the fields are told above."""

    time: float
    offer: int
    decision: int
    group: int
    channel: int
    what: int
    keep: int
    kind: int
    seen: int
    unused: int = 0

    def pack(self) -> bytes:
        return ENTRY.pack(*self)

    @staticmethod
    def unpack_time(history: bytes, start: int) -> float:
        """Return the time of the entry at a byte, without the rest."""
        return float(_DOUBLE.unpack_from(history, start)[0])


def unpacked(history: bytes) -> list[Entry]:
    """Return the entries of a history."""
    return [Entry(*values) for values in ENTRY.iter_unpack(history)]


@dataclass(frozen=True, slots=True)
class ContactLimit:
    """At most `contacts_max` contacts within any `window_seconds`, by now: (now - window, now]. What is in the future
    counts too.

    Attributes:
        scope: what is counted together: all contacts, those of an offer, those of a group.
        key: the hash of the offer or group that is meant; 0: each offer, or each group, by itself.
        channel: the hash of the channel that is counted; 0: all channels.
        counts: `decisions` counts what was taken. `impressions` counts what was seen, and what was taken not longer
            than `hold_seconds` ago and may still be seen; it can be exceeded by impressions that are reported after the
            hold.
    """

    contacts_max: int
    window_seconds: float
    scope: Scope = "any"
    key: int = 0
    channel: int = 0
    counts: Counts = "decisions"

    def pack(self) -> bytes:
        """32 bytes: f8 max, f8 window, u8 key, u4 channel, u1 scope, u1 counts, u2 0; what the kernels and the Redis
        script read.
        """
        return _LIMIT.pack(
            self.contacts_max, self.window_seconds, self.key, self.channel, _SCOPES[self.scope], _COUNTS[self.counts], 0
        )


@dataclass(frozen=True, slots=True)
class ContactPause:
    """Paused while some `times` outcomes of a type lie within `within_seconds`, for `pause_seconds` after the last of
    them.
    """

    what: int
    """`word_of` the type of the outcomes."""
    times: int
    within_seconds: float
    pause_seconds: float
    scope: Scope = "offer"
    key: int = 0
    """As a limit's."""

    def pack(self) -> bytes:
        """40 bytes: f8 times, f8 within, f8 pause, u8 key, u4 what, u1 scope, u1 0, u2 0."""
        scope = _SCOPES[self.scope]
        return _PAUSE.pack(self.times, self.within_seconds, self.pause_seconds, self.key, self.what, scope, 0, 0)


@dataclass(frozen=True, slots=True)
class Contact:
    """An offer as it may be shown in a channel, with the limits that concern it; made by `ContactPolicy.contact`, once
    a catalogue load.
    """

    offer: int
    group: int
    channel: int
    keep: int
    choice: bytes
    """u2 count, u2 positions in the policy's limits."""

    def pack(self, time: float, decision: int) -> bytes:
        """Return the entry of this contact, taken."""
        return ENTRY.pack(time, self.offer, decision, self.group, self.channel, 0, self.keep, DECISION, 0, 0)


@dataclass(frozen=True)
class ContactPolicy:
    """Limits and pauses, compiled; a limit is told by its position.

    Attributes:
        hold_seconds: how long a contact that was taken counts for `impressions` before it was seen.
        remember_seconds: how long entries are kept at least, for whoever reads the history; limits and pauses keep them
            longer.
        contacts_max, outcomes_max: bounds on a history.

    Raises:
        ValueError: when a limit could not be held: more contacts than a history has room for, or a window out of
            bounds.
    """

    limits: tuple[ContactLimit, ...] = ()
    pauses: tuple[ContactPause, ...] = ()
    hold_seconds: float = 600.0
    remember_seconds: float = 0.0
    contacts_max: int = CONTACTS_MAX
    outcomes_max: int = OUTCOMES_MAX
    packed: bytes = field(init=False, repr=False)
    horizon_seconds: float = field(init=False)
    """What is older is of no use to anybody."""

    def __post_init__(self) -> None:
        if not (0 < self.contacts_max <= CONTACTS_MAX and 0 < self.outcomes_max <= OUTCOMES_MAX):
            raise ValueError(
                f"expected room for 1 to {CONTACTS_MAX} contacts and 1 to {OUTCOMES_MAX} outcomes in a history"
            )
        if len(self.limits) > LIMITS_MAX:
            raise ValueError(f"expected at most {LIMITS_MAX} limits in a policy, got {len(self.limits)}")
        for at, limit in enumerate(self.limits):
            _whole(f"limit {at}: contacts_max", limit.contacts_max, 0, self.contacts_max)
            _span(f"limit {at}: window_seconds", limit.window_seconds)
            if limit.scope == "any" and limit.key:
                raise ValueError(f"limit {at}: expected no key with the scope `any`, got {limit.key}")
        for at, pause in enumerate(self.pauses):
            _whole(f"pause {at}: times", pause.times, 1, self.outcomes_max)
            _span(f"pause {at}: within_seconds", pause.within_seconds)
            _span(f"pause {at}: pause_seconds", pause.pause_seconds)
        _span("hold_seconds", self.hold_seconds)
        reach = [self.remember_seconds, self.hold_seconds, *(limit.window_seconds for limit in self.limits)]
        reach += [pause.within_seconds + pause.pause_seconds for pause in self.pauses]
        object.__setattr__(self, "horizon_seconds", max(reach) + BEHIND_SECONDS_MAX)
        object.__setattr__(self, "packed", b"".join(limit.pack() for limit in self.limits))

    @cached_property
    def limit_words(self) -> NDArray[np.uint64]:
        """The limits as the kernels read them: 4 words each."""
        return np.frombuffer(self.packed or bytes(32), np.uint64)[: 4 * len(self.limits)]

    @cached_property
    def pause_words(self) -> NDArray[np.uint64]:
        """The pauses as the kernels read them: 5 words each."""
        return np.frombuffer(b"".join(pause.pack() for pause in self.pauses) or bytes(40), np.uint64)[
            : 5 * len(self.pauses)
        ]

    def contact(self, offer: int, group: int, channel: int, positions: list[int]) -> Contact:
        """Return an offer in a channel and the positions of the limits that concern it, in the order in which they are
        told when they fall.

        Raises:
            ValueError: when a position is not one of a limit.
        """
        for at in positions:
            _whole("the position of a limit", at, 0, len(self.limits) - 1)
        # A limit by group has nothing to say of an offer that has none.
        held = [at for at in positions if group or self.limits[at].key or self.limits[at].scope != "group"]
        return Contact(
            offer, group, channel, self.contact_keep(offer, group), struct.pack(f"<H{len(held)}H", len(held), *held)
        )

    def contact_keep(self, offer: int, group: int) -> int:
        """Return how long some limit looks back at a contact, whether or not that limit concerns it; seconds."""
        own = {"any": 0, "offer": offer, "group": group}
        windows = [limit.window_seconds for limit in self.limits if limit.key in (0, own[limit.scope])]
        return math.ceil(max(windows, default=0.0))

    def outcome_keep(self, what: int) -> int:
        """Return how long some pause looks back at an outcome; seconds."""
        return math.ceil(max((p.within_seconds + p.pause_seconds for p in self.pauses if p.what == what), default=0.0))


class ContactEvent(NamedTuple):
    """What happened, to be noted: kind IMPRESSION or OUTCOME; `decision` and `group` are 0 where they are not known."""

    kind: int
    time: float
    offer: int
    decision: int = 0
    group: int = 0
    channel: int = 0
    what: int = 0

    def entry(self, policy: ContactPolicy) -> Entry:
        """As it is written down.

        Raises:
            ValueError: when the kind is neither, or the time is not finite.
        """
        if self.kind not in (IMPRESSION, OUTCOME) or not math.isfinite(self.time):
            raise ValueError(
                f"expected an IMPRESSION or an OUTCOME at a finite time, got the kind {self.kind} at {self.time}"
            )
        seen = self.kind == IMPRESSION
        keep = policy.contact_keep(self.offer, self.group) if seen else policy.outcome_keep(self.what)
        what = 0 if seen else self.what
        return Entry(self.time, self.offer, self.decision, self.group, self.channel, what, keep, self.kind, int(seen))


class Take(NamedTuple):
    """What one decision asks of a customer's history: room for all its contacts, counted in their order, or for none.

    A contact whose offer the same decision has taken before is granted again and not added twice, so a take may be
    repeated.
    """

    customer_id: str
    decision: int
    now: Seconds
    """Seconds since 1970."""
    contacts: tuple[Contact, ...]
    policy: ContactPolicy

    def packed(self) -> tuple[bytes, bytes]:
        """Entries, and the positions of their limits.

        Raises:
            ValueError: when there are too many contacts, no decision, or no finite time.
        """
        most = min(CHOSEN_MAX, self.policy.contacts_max)
        if not self.decision or len(self.contacts) > most or not math.isfinite(self.now):
            raise ValueError(
                f"expected a decision, a finite time and at most {most} contacts, "
                f"got the decision {self.decision} at {self.now} with {len(self.contacts)} contacts"
            )
        now, decision = self.now, self.decision
        return b"".join([c.pack(now, decision) for c in self.contacts]), b"".join([c.choice for c in self.contacts])


GRANTED = -1


class TakeResult(NamedTuple):
    """The answer to a take: for each contact GRANTED, or the position of the first limit that fell. One that fell:
    nothing was taken.

    A contact that fell is not counted for those after it, so all that are GRANTED fit together.
    """

    fell: tuple[int, ...]

    @property
    def granted(self) -> bool:
        """Whether all was taken."""
        return self.fell.count(GRANTED) == len(self.fell)


def _whole(what: str, value: Any, least: int, most: int) -> None:
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(
            f"{what}: expected a whole number from {least} to {most}, got {value!r}; what a history cannot hold is not"
            " limited"
        )


def _span(what: str, seconds: float) -> None:
    if not 0 < seconds <= SECONDS_MAX:
        raise ValueError(f"{what}: expected more than 0 and at most {SECONDS_MAX:.0f} seconds, got {seconds!r}")
