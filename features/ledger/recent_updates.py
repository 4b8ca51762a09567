"""How what is known of a unit changes when something is heard of it. Values in, values out; both stores change records
by these functions.

Everything may be heard again, and in any order: an event is told by its key, of a consent the latest holds, of a link
the first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from features.common.moments import Seconds
from features.contact_history.limits import ContactPolicy
from features.contact_history.updates import merged, noted
from features.ledger.recent import EVENTS_MAX, KEPT_MAX, NOTHING, Heard, KeptArm, Recent, RecentEvent


class UnitState(NamedTuple):
    """What the ledger holds of one unit."""

    contacts: bytes
    recent: Recent


NOBODY = UnitState(b"", NOTHING)


class UnitChange(NamedTuple):
    """A state after something was heard; the parts that did not change are the same objects."""

    state: UnitState
    new: list[bool]
    """Of an impression or an outcome: whether the contact history took it as new; of anything else, whether it changed
    the record.
    """
    dropped: int
    """Events that had no room."""


def taken_in(
    state: UnitState, heard: Iterable[Heard], policy: ContactPolicy, now: Seconds, since: int = 0
) -> UnitChange:
    """Return the state of a unit after what was heard of it, links aside.

    Args:
        since: where it was heard of an anonymous unit: when its link was received. Rows from before it do not hold
            these events, whenever they were received themselves.
    """
    contacts, recent = state
    new, events, consent = [], [], dict[str, tuple[int, bool]]()
    known = {event.key for event in recent.events}
    for one in heard:
        fresh = False
        if one.event is not None and one.event.key not in known:
            known.add(one.event.key)
            events.append(_since(one.event, since))
            fresh = True
        for purpose, said in one.consent.items():
            before = consent.get(purpose) or recent.consent.get(purpose)
            if before is None or _later(said, before):
                consent[purpose] = said
                fresh = True
        if one.contact is not None:
            contacts, (fresh,) = noted(contacts, policy, (one.contact,), now)
        new.append(fresh)
    dropped = 0
    if events:
        kept, dropped = _kept(recent.events, events)
        recent = replace(recent, events=kept)
    if consent:
        recent = replace(recent, consent=recent.consent | consent)
    return UnitChange(UnitState(contacts, recent), new, dropped)


class EventApplication:
    """What was heard of several units, for a store that has all of them at hand.

    Args:
        read: the state of a unit; asked once for each.

    Attributes:
        new: as `UnitChange.new`, of all that was heard, in its order. dropped: as `UnitChange.dropped`, together.
    """

    def __init__(self, read: Callable[[str], UnitState], policy: ContactPolicy, now: Seconds) -> None:
        self._read, self._policy, self._now = read, policy, now
        self._before: dict[str, UnitState] = {}
        self._after: dict[str, UnitState] = {}
        self.new: list[bool] = []
        self.dropped = 0

    def hear(self, one: Heard) -> None:
        """Take in one; what is heard of a linked unit goes to its customer."""
        state = self._state(one.unit)
        if one.identify:
            self._link(one, state)
            return
        unit, since = one.unit, 0
        if state.recent.linked:
            unit, since = state.recent.linked, state.recent.linked_received
            state = self._state(unit)
        change = taken_in(state, (one,), self._policy, self._now, since)
        self._after[unit] = change.state
        self.new += change.new
        self.dropped += change.dropped

    def changed(self) -> Iterator[tuple[str, UnitState, UnitState]]:
        """Units whose state changed, before and after."""
        for unit, after in self._after.items():
            before = self._before[unit]
            if after.contacts is not before.contacts or after.recent is not before.recent:
                yield unit, before, after

    def _link(self, one: Heard, state: UnitState) -> None:
        self.new.append(not state.recent.linked)
        if not state.recent.linked:
            state = linked(state, one.identify, one.received)
            change = joined(self._state(one.identify), state, self._policy, self._now)
            self._after[one.identify], self._after[one.unit] = change.state, emptied(state)
            self.dropped += change.dropped

    def _state(self, unit: str) -> UnitState:
        found = self._after.get(unit)
        if found is None:
            found = self._before[unit] = self._after[unit] = self._read(unit)
        return found


def joined(customer: UnitState, anonymous: UnitState, policy: ContactPolicy, now: Seconds) -> UnitChange:
    """Return the customer after an anonymous unit's own has come to it; doing it again changes nothing. `new`: whether
    anything did.
    """
    contacts, recent = customer
    if anonymous.contacts:
        contacts = merged(contacts, anonymous.contacts, policy, now)
    other, since = anonymous.recent, anonymous.recent.linked_received
    heard = [Heard("", event=event) for event in other.events]
    if other.consent:
        heard.append(Heard("", consent=other.consent))
    change = taken_in(UnitState(contacts, recent), heard, policy, now, since)
    moved = change.state._replace(
        recent=settled(change.state.recent, {key: arm for key, arm in other.kept.items() if key not in recent.kept})
    )
    return UnitChange(moved, [moved != customer], change.dropped)


def linked(anonymous: UnitState, customer_id: str, received: int) -> UnitState:
    """Return an anonymous unit that belongs to a customer from now on; the first link holds."""
    if anonymous.recent.linked:
        return anonymous
    return UnitState(anonymous.contacts, replace(anonymous.recent, linked=customer_id, linked_received=received))


def emptied(anonymous: UnitState) -> UnitState:
    """Return a linked unit whose own has been moved: the link alone."""
    recent = anonymous.recent
    return UnitState(b"", Recent(linked=recent.linked, linked_received=recent.linked_received))


def is_moved(anonymous: UnitState) -> bool:
    """Return whether a linked unit has nothing of its own left."""
    recent = anonymous.recent
    return not (anonymous.contacts or recent.events or recent.consent or recent.kept)


def settled(recent: Recent, wanted: Mapping[str, KeptArm], over: Mapping[str, KeptArm] = NOTHING.kept) -> Recent:
    """Return a record with sticky assignments that are wanted, where none is kept that holds; the same object where all
    do.

    What is kept holds, but where the wanted one was drawn under a higher bucket version, or in place of exactly the one
    that is kept.

    Args:
        over: by experiment, what was read, and is to be replaced.
    """
    fresh = {}
    for experiment, arm in wanted.items():
        before = recent.kept.get(experiment)
        if before is None or before[1] < arm[1] or (experiment in over and before[:2] == over[experiment][:2]):
            fresh[experiment] = arm
    if not fresh:
        return recent
    kept = {experiment: arm for experiment, arm in recent.kept.items() if experiment not in fresh} | fresh
    return replace(recent, kept=dict(list(kept.items())[-KEPT_MAX:]))


def trimmed(recent: Recent, moment: int) -> Recent:
    """Return a record without the events that windows computed at a moment contain; the same object where there are
    none.
    """
    events = tuple([event for event in recent.events if not event.contained(moment)])
    return recent if len(events) == len(recent.events) else replace(recent, events=events)


def allowed(consent: Mapping[str, tuple[int, bool]], purpose: str) -> bool | None:
    """Return what a customer said of a purpose; None where nothing was said."""
    said = consent.get(purpose)
    return None if said is None else said[1]


def _since(event: RecentEvent, since: int) -> RecentEvent:
    return replace(event, received=since) if event.received < since else event


def _later(said: tuple[int, bool], before: tuple[int, bool]) -> bool:
    """Return whether an answer replaces another; of two at the same moment, no."""
    return said[0] > before[0] or (said[0] == before[0] and before[1] and not said[1])


def _kept(known: tuple[RecentEvent, ...], more: list[RecentEvent]) -> tuple[tuple[RecentEvent, ...], int]:
    """Events in the order of their keys, and how many had no room: the oldest."""
    if len(more) == 1:
        at = bisect_left(known, more[0].key, key=_key)
        events = [*known[:at], more[0], *known[at:]]
    else:
        events = sorted((*known, *more), key=_key)
    over = len(events) - EVENTS_MAX
    if over <= 0:
        return tuple(events), 0
    gone = {event.key for event in sorted(events, key=_age)[:over]}
    return tuple([event for event in events if event.key not in gone]), over


def _key(event: RecentEvent) -> int:
    return event.key


def _age(event: RecentEvent) -> tuple[int, int]:
    return event.time, event.key
