"""What a customer's contact history keeps away now, and until when, should nothing more happen."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

from features.common.moments import Seconds
from serving.hub.contact_policy import CompiledLimit, Contacting


@dataclass(frozen=True, slots=True)
class KeptAway:
    """Offers that one limit or pause keeps away until one moment.

    Attributes:
        rule: its name, as answers and explanations give it.
        offers: positions in the catalogue, ascending.
        until: whole seconds since 1970, from which on they may be shown; None: until something happens.
        channel: the only channel in which they are kept away; None: all.
        placements: the only placements; empty: all.
    """

    rule: str
    offers: tuple[int, ...]
    until: int | None
    channel: str | None = None
    placements: tuple[str, ...] = ()


def kept_away(contacting: Contacting, history: bytes, now: Seconds) -> list[KeptAway]:
    """Return all that is kept away at `now`, seconds since 1970, soonest to end first.

    A history only grows old: what has once been let go stays so until something happens. So each moment at which an
    entry leaves a window is tried, in order, until nothing is left.
    """
    held = dict(contacting.holding(history, now))
    found: list[KeptAway] = []
    for moment in sorted({floor(end) + 1 for end in contacting.ends(history) if end > now}):
        if not any(held.values()):
            break
        later = dict(contacting.holding(history, Seconds(moment)))
        for bound, offers in held.items():
            free = offers & ~later.get(bound, 0)
            if free:
                found.append(_told(bound, free, moment))
                held[bound] = offers & ~free
    found += [_told(bound, offers, None) for bound, offers in held.items() if offers]
    return found + [
        KeptAway(name, _positions(offers), None) for name, offers in contacting.after_acceptances(history) if offers
    ]


def _told(bound: CompiledLimit, offers: int, until: int | None) -> KeptAway:
    return KeptAway(bound.name, _positions(offers), until, bound.channel or "any", tuple(sorted(bound.placements)))


def _positions(offers: int) -> tuple[int, ...]:
    return tuple(at for at in range(offers.bit_length()) if offers >> at & 1)
