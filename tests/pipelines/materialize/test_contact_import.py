"""The imported history in the contact ledger, on both stores, and what `opportune contacts` makes of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml

from features.common.timestamps import MICROSECONDS, now, parse_moment, to_microseconds
from features.contact_history.counts import count, paused
from features.contact_history.history import CONTACTS_MAX, GAP, IMPRESSION, OUTCOME, Entry, key_of, unpacked, word_of
from features.contact_history.takes import ContactEvent
from features.ledger.ledger import ledger_of
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize import contact_import, steps
from pipelines.simulation.contact_blocks import kept_away
from pipelines.simulation.contact_card import card_of
from tests.pipelines.verbs import opportune
from tests.stores import Server, find_server
from tests.trained import copy_of
from tests.workspaces import OFFERS, POLICIES, make_workspace

HORIZON_DAYS = 90
POLICIES_NEW: dict[str, Any] = POLICIES | {
    "limits": {
        "twice": {"max": 2, "window": "60d"},
        "in_app": {"max": 5, "window": f"{HORIZON_DAYS}d", "per": "any", "channel": "app"},
        "group": {"max": 3, "window": "30d", "per": "group"},
    },
    "pauses": {"taken": {"outcome": "accepted", "within": "50d", "pause": "40d"}},
}
"""They look back 90 days, both."""


def imported(folder: Path, policies: dict[str, Any] = POLICIES_NEW, **made: Any) -> Workspace:
    """A workspace whose tables are in the lake, and no more."""
    make_workspace(folder, **made)
    (folder / "offers.yaml").write_text(yaml.safe_dump(OFFERS | {"group": "topic"}))
    (folder / "policies.yaml").write_text(yaml.safe_dump(policies))
    workspace = load(folder)
    steps.import_tables(workspace, now())
    return workspace


def history_of(workspace: Workspace, customer: str) -> bytes:
    async def read() -> bytes:
        ledger = ledger_of(workspace, 5_000)
        try:
            return await ledger.read(customer)
        finally:
            ledger.close()

    return asyncio.run(read())


def rows(workspace: Workspace, table: str) -> list[dict[str, Any]]:
    """What the business brought, read without the lake."""
    found: list[dict[str, Any]] = pyarrow.parquet.read_table(workspace.folder / "data" / f"{table}.parquet").to_pylist()
    return found


def expected(workspace: Workspace, customer: str, since: float) -> list[tuple[int, float, int, int, int, int]]:
    """Kind, time, offer, decision, channel and outcome of all that is after a moment."""
    made = [(IMPRESSION, row, word_of(row["channel"]), 0) for row in rows(workspace, "decisions")]
    made += [(OUTCOME, row, 0, word_of(row["type"])) for row in rows(workspace, "outcomes")]
    found = [
        (
            kind,
            to_microseconds(row["time"]) / MICROSECONDS,
            key_of(row["offer_id"]),
            key_of(row["decision_id"]),
            channel,
            what,
        )
        for kind, row, channel, what in made
        if row["customer_id"] == customer
    ]
    return sorted(one for one in found if one[1] > since)


def told(history: bytes) -> list[tuple[int, float, int, int, int, int]]:
    return sorted((e.kind, e.time, e.offer, e.decision, e.channel, e.what) for e in unpacked(history))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server; none where the machine has none."""
    program, why = find_server()
    if not program:
        pytest.skip(why)
    server = Server(tmp_path_factory.mktemp("valkey")).start()
    yield server.url
    server.stop()


@pytest.mark.parametrize("store", ["embedded", "redis"])
def test_history_is_that_of_the_tables(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Every decision and outcome within the horizon is in the ledger, once, however often it is written, and nothing
    older is.
    """
    settings = {"stores": {"online": {"url": request.getfixturevalue("url")}}} if store == "redis" else None
    workspace = imported(tmp_path / "shop", customers=30, decisions=6, settings=settings)
    assert not steps.are_contacts_brought(workspace)
    moment, told_of = now(), []
    brought = steps.bring_contacts(workspace, moment, lambda stage, part: told_of.append((stage, part)))
    assert brought is not None and steps.are_contacts_brought(workspace)
    since = moment / MICROSECONDS - HORIZON_DAYS * 86_400 - 10
    customers = sorted({row["customer_id"] for row in rows(workspace, "decisions")})
    found = {customer: history_of(workspace, customer) for customer in customers}
    entries = 0
    for customer, history in found.items():
        assert told(history) == expected(workspace, customer, since)
        assert [entry.time for entry in unpacked(history)] == sorted(entry.time for entry in unpacked(history))
        entries += len(unpacked(history))
    assert entries == brought.impressions + brought.outcomes == brought.new > 400 and brought.outcomes > 10
    assert told_of[-1] == (contact_import.STAGE, 1.0) and brought.customers == sum(map(bool, found.values()))
    again = contact_import.bring(workspace, moment)
    assert again == contact_import.Brought(brought.customers, brought.impressions, brought.outcomes)
    assert {customer: history_of(workspace, customer) for customer in customers} == found


def test_history_that_is_too_long_says_where_it_begins(tmp_path: Path) -> None:
    """Of a customer with more contacts than a history holds the newest are kept, with a gap at the newest that is
    missing.
    """
    workspace = imported(tmp_path / "shop", customers=2, decisions=120)
    steps.bring_contacts(workspace, now())
    customer = rows(workspace, "decisions")[0]["customer_id"]
    wanted = [
        one
        for one in expected(workspace, customer, now() / MICROSECONDS - HORIZON_DAYS * 86_400)
        if one[0] == IMPRESSION
    ]
    assert len(wanted) > CONTACTS_MAX
    newest = sorted(one[1] for one in wanted)[-CONTACTS_MAX:]
    found = unpacked(history_of(workspace, customer))
    assert sorted(entry.time for entry in found if entry.kind == IMPRESSION) == newest
    gaps = [entry.time for entry in found if entry.kind == GAP and entry.what != OUTCOME]
    assert gaps == [sorted(one[1] for one in wanted)[-CONTACTS_MAX - 1]]


def test_no_history_is_written_where_nothing_looks_at_it(tmp_path: Path) -> None:
    """Without limits, pauses and offers that bind others there is no ledger, and nothing to do."""
    workspace = imported(tmp_path / "shop", POLICIES, customers=5)
    assert steps.bring_contacts(workspace, now()) is None and steps.are_contacts_brought(workspace)
    assert not (workspace.data / "ledger").exists()
    bound = {"offer_id": "winter-data", "requires": ["summer-data"], "attributes": {"topic": "data"}}
    (workspace.folder / "offers.yaml").write_text(yaml.safe_dump(OFFERS | {"offers": [*OFFERS["offers"], bound]}))
    workspace = load(workspace.folder)
    assert not steps.are_contacts_brought(workspace)
    brought = steps.bring_contacts(workspace, now())
    # Acceptances are remembered; what was seen nobody asks for, and a limit on decisions counts no impressions.
    assert (
        brought is not None
        and brought.impressions == 0
        and brought.outcomes == brought.new == len(rows(workspace, "outcomes")) > 5
    )
    limits = {"one": {"max": 1, "window": "90d", "count": "decisions"}, "two": {"max": 2, "window": "3d"}}
    (workspace.folder / "policies.yaml").write_text(yaml.safe_dump(POLICIES | {"limits": limits}))
    policy = contact_import.contacting_of(load(workspace.folder))[0].policy
    assert contact_import.reach(policy) == (3 * 86_400, policy.remember_seconds)


def test_another_policy_is_another_history(tmp_path: Path) -> None:
    """What was written counts as done until a limit, a pause, a group of an offer or the lake changes."""
    workspace = imported(tmp_path / "shop", customers=5)
    steps.bring_contacts(workspace, now())
    rules = POLICIES_NEW | {"rules": {"adults": {"unless": "customer.business"}}}
    (workspace.folder / "policies.yaml").write_text(yaml.safe_dump(rules))
    assert steps.are_contacts_brought(load(workspace.folder))
    (workspace.folder / "policies.yaml").write_text(yaml.safe_dump(rules | {"hold": "2h"}))
    assert not steps.are_contacts_brought(load(workspace.folder))


def test_kept_away_ends_when_the_counts_say(tmp_path: Path) -> None:
    """Whatever is said to be kept away until a moment is so by the plain counts until then, and no longer; nothing else
    is.
    """
    workspace = imported(tmp_path / "shop", customers=25, decisions=8)
    steps.bring_contacts(workspace, now())
    contacting, catalogue = contact_import.contacting_of(workspace)
    policy, at, seen = contacting.policy, now() / MICROSECONDS, 0
    names = {name: number for number, name in enumerate(workspace.policies.limits)}

    def holds(rule: str, offer: int, history: bytes, moment: float) -> bool:
        kind, name = rule.split(" ")
        offered = catalogue.offers[offer]
        key = {"offer": key_of(offered.offer_id), "group": key_of(offered.group) if offered.group else 0, "any": 0}
        if kind == "pause":
            pause = policy.pauses[0]
            return paused(history, dataclasses.replace(pause, key=key[pause.scope]), moment)
        limit = policy.limits[names[name]]
        if limit.scope == "group" and not offered.group:
            return False
        return (
            count(history, dataclasses.replace(limit, key=key[limit.scope]), moment, policy.hold_seconds)
            >= limit.contacts_max
        )

    for customer in sorted({row["customer_id"] for row in rows(workspace, "decisions")}):
        history = history_of(workspace, customer)
        found = kept_away(contacting, history, at)
        until = {(one.rule, offer): one.until for one in found for offer in one.offers}
        assert sum(len(one.offers) for one in found) == len(until)
        for rule in ("limit twice", "limit in_app", "limit group", "pause taken"):
            for offer in range(len(catalogue)):
                end = until.get((rule, offer))
                assert holds(rule, offer, history, at) == (end is not None), (rule, offer)
                if end is not None:
                    assert not holds(rule, offer, history, end) and holds(rule, offer, history, end - 1.01)
                    seen += 1
        assert {one.channel for one in found if one.rule == "limit in_app"} <= {"app"}
    assert seen > 100


def test_card_of_a_customer(tmp_path: Path) -> None:
    """`opportune contacts` names offers, groups, channels and outcomes, and says what is kept away; of a stranger
    nothing is known.
    """
    workspace = imported(tmp_path / "shop", customers=10, decisions=8)
    steps.bring_contacts(workspace, now())
    customer = max(rows(workspace, "outcomes"), key=lambda row: row["time"])["customer_id"]

    async def note() -> None:
        ledger = ledger_of(workspace, 5_000)
        policy, at = contact_import.contacting_of(workspace)[0].policy, now() / MICROSECONDS
        await ledger.note(
            customer, policy, [ContactEvent(IMPRESSION, at, key_of("long-gone"), channel=word_of("kiosk"))], at
        )
        ledger.close()

    asyncio.run(note())
    done = opportune("contacts", "-w", str(workspace.folder), "--customer", customer, "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    since = parse_moment(card["at"]) / MICROSECONDS - HORIZON_DAYS * 86_400 - 10
    wanted = expected(workspace, customer, since)
    assert len(card["entries"]) == len(wanted) + 1
    unknown, *known = card["entries"]
    assert unknown["offer_id"].startswith("#") and unknown["channel"].startswith("#") and unknown["seen"]
    outcomes = [(entry["time"], entry["outcome"]) for entry in known if entry["kind"] == "outcome"]
    assert outcomes and all(outcome == "accepted" for _, outcome in outcomes)
    shown = sorted((key_of(e["offer_id"]), word_of(e["channel"])) for e in known if e["kind"] == "impression")
    assert shown == sorted((one[2], one[4]) for one in wanted if one[0] == IMPRESSION)
    assert {entry["group"] for entry in known} >= {"data"} and card["kept_away"]
    assert card_of(workspace, customer, parse_moment(card["at"])) == card
    table = opportune("contacts", "-w", str(workspace.folder), "--customer", customer).stdout
    assert "Kept away" in table and all(one["rule"] in table for one in card["kept_away"])
    assert "no contact is known" in opportune("contacts", "-w", str(workspace.folder), "--customer", "stranger").stdout
    make_workspace(tmp_path / "empty", customers=3)
    refused = opportune("contacts", "-w", str(tmp_path / "empty"), "--customer", customer)
    assert refused.returncode == 1 and "opportune import" in refused.stderr and "Traceback" not in refused.stderr


def test_materialize_brings_the_history(trained_workspace: Path, tmp_path: Path) -> None:
    """`opportune materialize` fills the ledger and says with how much; the second time nothing is new."""
    folder = copy_of(trained_workspace, tmp_path / "shop")
    (folder / "policies.yaml").write_text(yaml.safe_dump(POLICIES_NEW))
    told = []
    for _ in range(2):
        done = opportune("materialize", "-w", str(folder), "--json")
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout)["contacts"])
    first, second = told
    assert first["new"] == first["impressions"] + first["outcomes"] > 1_000
    assert second == first | {"new": 0} and steps.are_contacts_brought(load(folder))


def test_entries_are_kept_as_long_as_something_looks_back(tmp_path: Path) -> None:
    """An entry is stamped with the longest window that looks back at it, of its offer's group too."""
    workspace = imported(tmp_path / "shop", customers=5)
    steps.bring_contacts(workspace, now())
    found: list[Entry] = []
    for customer in sorted({row["customer_id"] for row in rows(workspace, "decisions")}):
        found += unpacked(history_of(workspace, customer))
    assert {entry.keep for entry in found} == {HORIZON_DAYS * 86_400}
    catalogue = contact_import.contacting_of(workspace)[1]
    groups = {key_of(offer.offer_id): key_of(offer.group) for offer in catalogue.offers}
    assert all(entry.group == groups[entry.offer] for entry in found) and len(found) > 50
