"""The contact history of one customer, for people: hashes read back as the names that the workspace knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from features.common.moments import Micros, in_seconds
from features.common.timestamps import MICROSECONDS, rfc3339
from features.contact_history.history import DECISION, GAP, IMPRESSION, OUTCOME, Entry, key_of, unpacked, word_of
from features.lake import lake
from features.ledger.ledger import ledger_of
from features.workspace.workspace import Workspace
from pipelines.materialize.contact_import import PATIENT_MS, contacting_of
from pipelines.output import console
from pipelines.simulation.contact_blocks import KeptAway, kept_away
from serving.hub.contact_policy import ACCEPTANCES
from serving.hub.request_check import ANY, CHANNEL

KINDS = {DECISION: "decision", IMPRESSION: "impression", OUTCOME: "outcome", GAP: "gap"}
ENTRIES_SHOWN = 40
OFFERS_SHOWN = 4

Card = dict[str, Any]


def card_of(workspace: Workspace, customer_id: str, now: Micros) -> Card:
    """Return the history of a customer, newest first, and what it keeps away at `now`, microseconds since 1970.

    Args:
        customer_id: or `~` and an anonymous id: one that was linked has the history of its customer, who is then named.

    Raises:
        NoCatalogue: nothing was imported yet.
        StoreUnavailable: the ledger does not answer.
    """
    contacting, catalogue = contacting_of(workspace)
    unit, history = asyncio.run(_read(workspace, customer_id))
    offers = {key_of(offer.offer_id): offer.offer_id for offer in catalogue.offers}
    groups = {key_of(offer.group): offer.group for offer in catalogue.offers if offer.group}
    words = {word_of(text): text for text in _texts(workspace)}
    ids = [offer.offer_id for offer in catalogue.offers]
    found = sorted(unpacked(history), key=lambda entry: entry.time, reverse=True)
    return {
        "customer_id": unit,
        "at": rfc3339(now),
        "entries": [_entry(entry, offers, groups, words) for entry in found],
        "kept_away": [_kept(one, ids) for one in kept_away(contacting, history, in_seconds(now))],
    }


async def _read(workspace: Workspace, customer_id: str) -> tuple[str, bytes]:
    """Return whose history it is, and the history."""
    ledger = ledger_of(workspace, PATIENT_MS)
    try:
        found = await ledger.look(customer_id)
        return found.unit, found.contacts
    finally:
        ledger.close()


def _texts(workspace: Workspace) -> Iterable[str]:
    """Channels and types of outcomes that the workspace knows."""
    channel = workspace.features.context.get(CHANNEL)
    yield from (ANY, *ACCEPTANCES, workspace.model.label.outcome)
    yield from (pause.outcome for pause in workspace.policies.pauses.values())
    if channel is not None:
        yield from (channel.values or ())
    con = lake.connect(workspace)
    try:
        queries = ["SELECT DISTINCT type FROM outcomes"] + (
            [f"SELECT DISTINCT {CHANNEL} FROM decisions"] if channel is not None else []
        )
        yield from (str(row[0]) for query in queries for row in con.execute(query).fetchall())
    finally:
        con.close()


def _entry(entry: Entry, offers: dict[int, str], groups: dict[int, str], words: dict[int, str]) -> Card:
    """Return an entry with names; an id that the workspace does not know any more stays a hash, in hex."""
    told: Card = {"time": rfc3339(round(entry.time * MICROSECONDS)), "kind": KINDS.get(entry.kind, str(entry.kind))}
    if entry.kind == GAP:
        return told | {"missing": "outcomes" if entry.what == OUTCOME else "contacts"}
    told["offer_id"] = offers.get(entry.offer, f"#{entry.offer:016x}")
    told["group"] = groups.get(entry.group, f"#{entry.group:016x}") if entry.group else None
    told["channel"] = words.get(entry.channel, f"#{entry.channel:08x}") if entry.channel else None
    told["decision"] = f"#{entry.decision:016x}" if entry.decision else None
    if entry.kind == OUTCOME:
        told["outcome"] = words.get(entry.what, f"#{entry.what:08x}")
    else:
        told["seen"] = bool(entry.seen) or entry.kind == IMPRESSION
    return told


def _kept(one: KeptAway, ids: list[str]) -> Card:
    until = None if one.until is None else rfc3339(one.until * MICROSECONDS)
    offers = [ids[at] for at in one.offers]
    return {
        "rule": one.rule,
        "channel": one.channel,
        "placements": list(one.placements),
        "offers": offers,
        "until": until,
    }


def print_card(card: Card) -> None:
    """Print what was, and what may not be now."""
    entries, kept = card["entries"], card["kept_away"]
    if not entries:
        console.out.print(f"Of customer {card['customer_id']} no contact is known.", highlight=False)
    else:
        rest = len(entries) - ENTRIES_SHOWN
        more = f", the newest {ENTRIES_SHOWN} (--json has all)" if rest > 0 else ""
        rows = [
            [e["time"][:19], _what(e), e.get("offer_id"), e.get("group"), e.get("channel"), _seen(e)]
            for e in entries[:ENTRIES_SHOWN]
        ]
        title = f"{len(entries)} entries of customer {card['customer_id']}{more}"
        console.table(title, ["time (UTC)", "what", "offer", "group", "channel", "seen"], rows, numbers=9)
    if not kept:
        console.out.print("Nothing is kept away by this history now.", highlight=False)
        return
    rows = [
        [one["rule"], _where(one), _offers(one["offers"]), one["until"] or _END.get(one["rule"], "something happens")]
        for one in kept
    ]
    console.table(f"Kept away at {card['at'][:19]}Z", ["by", "where", "offers", "until"], rows, numbers=9)


_END = {"requires": "what they require is accepted", "excludes": "the acceptance is forgotten"}


def _what(entry: Card) -> str:
    if entry["kind"] == "gap":
        return f"{entry['missing']} until here are missing: the history was full"
    return str(entry.get("outcome", entry["kind"]))


def _seen(entry: Card) -> str | None:
    return None if "seen" not in entry else "yes" if entry["seen"] else "not reported"


def _where(one: Card) -> str:
    placements = ", ".join(one["placements"]) or "everywhere"
    return placements if one["channel"] is None else f"{placements}, {one['channel']}"


def _offers(offers: list[str]) -> str:
    rest = len(offers) - OFFERS_SHOWN
    return ", ".join(offers[:OFFERS_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
