"""Drawn policies, histories and takes, and what a limit counts in plain words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from features.contact_history.counts import CatalogueIndex
from features.contact_history.history import DECISION, GAP, IMPRESSION, OUTCOME, Entry, key_of, word_of
from features.contact_history.limits import ContactLimit, ContactPause, ContactPolicy
from features.contact_history.takes import Take
from features.contact_history.updates import packed

OFFERS = [key_of(f"offer {i}") for i in range(5)]
GROUPS = [key_of("loans"), key_of("loans"), key_of("cards"), key_of("cards"), 0]
WEB, MAIL = word_of("web"), word_of("mail")
DISMISSED, CLICKED = word_of("dismissed"), word_of("clicked")
NOW = 1_790_000_000.0
OURS = 1 << 50
"""A decision that no drawn entry is of."""
INDEX = CatalogueIndex(OFFERS, GROUPS)

seconds = st.integers(-20, 110).map(lambda ago: NOW - ago)
offers = st.integers(0, len(OFFERS) - 1)
limits = st.builds(
    lambda most, window, scope, named, channel, counts: ContactLimit(
        most, window, scope, {"any": 0, "offer": OFFERS[1], "group": GROUPS[0]}[scope] if named else 0, channel, counts
    ),
    st.integers(0, 4),
    st.integers(1, 100),
    st.sampled_from(["any", "offer", "group"]),
    st.booleans(),
    st.sampled_from([0, WEB]),
    st.sampled_from(["decisions", "impressions"]),
)
pauses = st.builds(
    ContactPause,
    st.sampled_from([DISMISSED, CLICKED]),
    st.integers(1, 3),
    st.integers(1, 50),
    st.integers(1, 50),
    st.sampled_from(["any", "offer", "group"]),
)
policies = st.builds(
    ContactPolicy,
    st.lists(limits, max_size=5).map(tuple),
    st.lists(pauses, max_size=3).map(tuple),
    st.integers(1, 40),
    contacts_max=st.integers(4, 9),
    outcomes_max=st.integers(3, 5),
)


@st.composite
def drawn_entries(draw: Any, policy: ContactPolicy) -> list[Entry]:
    found = []
    for _ in range(draw(st.integers(0, 14))):
        kind, at = draw(st.sampled_from([DECISION, DECISION, IMPRESSION, OUTCOME])), draw(offers)
        channel, seen = (
            draw(st.sampled_from([WEB, MAIL])),
            int(kind == IMPRESSION or (kind == DECISION and draw(st.booleans()))),
        )
        what = draw(st.sampled_from([DISMISSED, CLICKED])) if kind == OUTCOME else 0
        keep = policy.outcome_keep(what) if what else policy.contact_keep(OFFERS[at], GROUPS[at])
        found.append(
            Entry(draw(seconds), OFFERS[at], draw(st.integers(0, 1 << 40)), GROUPS[at], channel, what, keep, kind, seen)
        )
    return found


@st.composite
def drawn_takes(draw: Any) -> tuple[bytes, Take]:
    """A history, perhaps with gaps and with contacts of the decision itself, and a take from it."""
    policy = draw(policies)
    found = draw(drawn_entries(policy))
    for kind in draw(st.sets(st.sampled_from([0, OUTCOME]))):
        found.insert(0, Entry(draw(seconds), 0, 0, 0, 0, kind, 100, GAP, 0))
    if found and draw(st.booleans()):
        found[-1] = found[-1]._replace(decision=OURS)
    some = st.lists(st.integers(0, len(policy.limits) - 1), unique=True) if policy.limits else st.just([])
    contacts = [
        policy.contact(OFFERS[at], GROUPS[at], draw(st.sampled_from([WEB, MAIL])), draw(some))
        for at in draw(st.lists(offers, min_size=1, max_size=4))
    ]
    return packed(found), Take(f"drawn {draw(st.integers(0, 1 << 30))}", OURS, NOW, tuple(contacts), policy)


def reference(found: list[Entry], limit: ContactLimit, hold: float) -> int:
    """What a limit counts, in other words than the program's."""
    contacts = [e for e in found if e.kind in (DECISION, IMPRESSION) and e.time > NOW - limit.window_seconds]
    if limit.channel:
        contacts = [e for e in contacts if e.channel == limit.channel]
    if limit.scope == "offer":
        contacts = [e for e in contacts if e.offer == limit.key]
    if limit.scope == "group":
        contacts = [e for e in contacts if e.group == limit.key]
    if limit.counts == "decisions":
        return len([e for e in contacts if e.kind == DECISION])
    return len([e for e in contacts if e.seen or e.kind == IMPRESSION or NOW - e.time < hold])


def on(rule: Any, at: int) -> Any:
    """A limit or pause as it concerns the offer at a position; None where it does not."""
    own = {"any": 0, "offer": OFFERS[at], "group": GROUPS[at]}[rule.scope]
    if (rule.scope == "group" and not own) or (rule.key and rule.key != own):
        return None
    return replace(rule, key=own)
