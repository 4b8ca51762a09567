"""The reckoning: what a service wrote, held against what its clients were told. Each function fails with what is lost,
doubled or unreadable.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import yaml

from features.common.types import ANONYMOUS, Event
from features.contact_history.history import IMPRESSION, OUTCOME, entries
from features.events.journal import Line
from features.events.journal_frames import frames
from features.events.log import counts, event_folder, read_all
from features.events.semantics import time_of
from features.events.sqlite_file import NAME, connect
from features.lake import lake
from features.lake.files import is_imported
from features.validation.load import load
from features.workspace.workspace import Workspace
from serving.journal.files import LINEUP, REASON
from serving.reload.reloader import Reloader
from tests.faults.traffic import CUSTOMERS, REGULARS, VISITORS, Told

TABLES = {"impression": "impressions", "calls": "streams.calls", "identify": "links", "consent": "consents"}
"""Of the lake, by type of event; all others are outcomes."""
LIMITS = {"seen": {"max": 100, "window": "1d", "per": "any", "count": "impressions"}}


def with_limits(folder: Path) -> Path:
    """A workspace of which every decision takes contacts, so that decisions write into the ledger too."""
    (folder / "policies.yaml").write_text(yaml.safe_dump({"limits": LIMITS}))
    return folder


class Logged(NamedTuple):
    """What the event log holds, read again as the type of the wire."""

    event: Event
    seq: int


def log_of(workspace: Workspace) -> list[Logged]:
    """All rows of the event log, in order: sound, ascending, and counted exactly."""
    folder = event_folder(workspace.data)
    with contextlib.closing(connect(folder / NAME)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        stored, dead = (
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("events", "dead")
        )
    found, rows = counts(folder), list(read_all(folder, 0))
    assert all(row.intact for row in rows)
    assert all(one.received < after.received and one.seq < after.seq for one, after in itertools.pairwise(rows))
    assert (found.stored, found.dead) == (stored, dead) and stored == len(rows)
    assert found.accepted == found.stored + found.duplicates + found.dead
    return [Logged(row.event, row.seq) for row in rows]


def reckon_log(workspace: Workspace, told: Told) -> list[Logged]:
    """Each acknowledged event is in the log once, with the body that was sent; one that was not is there at most
    once.
    """
    rows = log_of(workspace)
    found = Counter(row.event.event_id for row in rows)
    assert max(found.values()) == 1
    assert not (lost := told.acknowledged - found.keys()), (
        f"{len(lost)} acknowledged events are lost: {sorted(lost)[:5]}"
    )
    assert not (strange := found.keys() - told.sent.keys()), f"events that nobody sent: {sorted(strange)[:5]}"
    for row in rows:
        assert row.event == msgspec.convert(told.sent[row.event.event_id], Event), row.event.event_id
    accepted = counts(event_folder(workspace.data)).accepted
    assert told.accepted <= accepted <= told.accepted + told.unanswered
    return rows


def journal_of(workspace: Workspace) -> tuple[list[Line], int]:
    """Every decision of all journals, and how many files end in a torn frame. Nothing else in them may be
    unreadable.
    """
    lines, torn = [], 0
    for file in sorted((workspace.data / "journal").glob("*Z-*")):
        if file.suffix not in (REASON, LINEUP):
            content, gaps = file.read_bytes(), list[tuple[int, int]]()
            lines += [msgspec.msgpack.decode(body, type=Line) for _, _, body in frames(content, gaps)]
            assert not gaps or [end for _, end in gaps] == [len(content)], f"{file.name}: unreadable at {gaps}"
            torn += len(gaps)
    return lines, torn


def reckon_journal(workspace: Workspace, decided: Iterable[str]) -> tuple[list[Line], int]:
    """Each answered decision is in the journal once; one that was not answered at most once."""
    lines, torn = journal_of(workspace)
    found = Counter(line.decision_id for line in lines)
    assert max(found.values()) == 1
    assert not (lost := set(decided) - found.keys()), f"{len(lost)} answered decisions are lost: {sorted(lost)[:5]}"
    return lines, torn


def reckon_lake(workspace: Workspace, rows: Iterable[Logged], lines: Iterable[Line]) -> Counter[str]:
    """The lake has each event of the log once, and each offer shown of the journals once; how many rows by table."""
    expected: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        for what in row.event.purposes or ("",):
            expected[TABLES.get(row.event.type, "outcomes"), row.event.event_id, what] += 1
    for line in lines:
        expected.update([("recorded", line.decision_id, offer) for offer in line.offer_ids])
    found: Counter[tuple[str, str, str]] = Counter()
    connection = lake.connect(workspace)
    for table, keys in {
        **dict.fromkeys(("impressions", "outcomes", "streams.calls", "links"), "event_id, ''"),
        "consents": "event_id, purpose",
        "recorded": "decision_id, offer_id",
    }.items():
        files = [file for file in lake.counting(workspace.lake / table.replace(".", "/")) if not is_imported(file)]
        if files:
            found.update(
                [(table, *keys) for keys in connection.execute(f"SELECT {keys} FROM {lake.reader(files)}").fetchall()]
            )
    connection.close()
    assert found == expected, (
        f"lost {list((expected - found).items())[:5]}, doubled or strange {list((found - expected).items())[:5]}"
    )
    return Counter(table for table, *_ in found.elements())


class Tally(NamedTuple):
    """What a service knows of one customer, by whichever id."""

    calls: float
    accepted: float
    """Within 90 days; of customers without a history alone, which leaves that window as time goes by."""
    impressions: int
    outcomes: int
    service: bool | None
    """Whether the purpose is allowed."""


UNITS = (*CUSTOMERS, *REGULARS, *(ANONYMOUS + visitor for visitor in VISITORS))


def seen(workspace: Workspace) -> dict[str, Tally]:
    """What the next decision about each unit would know: row, recent events and history, read as a worker reads
    them.
    """
    desk = Reloader(workspace)
    try:
        desk.load()
        assert desk.loaded is not None, desk.refusal
        slots = [desk.loaded.layout.plan.scalars[name] for name in ("calls.calls_all", "outcomes.accepted_90d")]
        return asyncio.run(_seen(desk, slots))
    finally:
        desk.close()


async def _seen(desk: Reloader, slots: list[int]) -> dict[str, Tally]:
    found, loaded = {}, desk.loaded
    assert loaded is not None
    for unit in UNITS:
        person = await desk.stores.customers.known(unit, loaded)
        assert person.row is not None and person.contacts is not None and person.consent is not None, unit
        kinds = [int(entry["kind"]) for entry in entries(person.contacts) if not int(entry["decision"])]
        calls, accepted = (float(person.row.numbers[slot]) for slot in slots)
        accepted = 0.0 if unit in REGULARS else accepted
        said = person.consent.get("service")
        # What is not known of a stranger is nothing that happened.
        known = [0.0 if value != value else value for value in (calls, accepted)]
        found[unit] = Tally(*known, kinds.count(IMPRESSION), kinds.count(OUTCOME), None if said is None else said[1])
    return found


def modelled(rows: Iterable[Logged], before: dict[str, Tally]) -> dict[str, Tally]:
    """The same by counting the events of the log, upon what was known before.

    An anonymous id is its customer's once the two were linked.
    """
    rows = list(rows)
    linked = {
        ANONYMOUS + str(row.event.anonymous_id): row.event.customer_id for row in rows if row.event.type == "identify"
    }
    count: Counter[tuple[str, str]] = Counter()
    said: dict[str, tuple[int, bool, bool]] = {}
    for row in rows:
        unit = linked.get(row.event.unit, row.event.unit)
        count[unit, row.event.type] += 1
        if row.event.purposes:
            # Of two at the same moment, no.
            allowed = row.event.purposes["service"]
            said[unit] = max(said.get(unit, (0, False, False)), (time_of(row.event), not allowed, allowed))
    made = {}
    for unit in UNITS:
        owner = linked.get(unit, unit)
        known, answer = before[owner], said.get(owner)
        made[unit] = Tally(
            known.calls + count[owner, "calls"],
            0 if owner in REGULARS else count[owner, "accepted"],
            known.impressions + count[owner, "impression"],
            known.outcomes + count[owner, "dismissal"] + count[owner, "accepted"],
            known.service if answer is None else answer[2],
        )
    return made


def different(one: dict[str, Tally], other: dict[str, Tally]) -> dict[str, tuple[Tally, Tally]]:
    """Units of which two say different things."""
    return {unit: (one[unit], other[unit]) for unit in UNITS if one[unit] != other[unit]}


def loaded_again(folder: Path) -> Workspace:
    """A workspace without its sources."""
    return load(folder, sources=False)


def seed_told(capsys: pytest.CaptureFixture[str], seed: int) -> None:
    """Print a seed with which chance can be drawn again; threads and the kernel draw too."""
    with capsys.disabled():
        print(f"\n  OPPORTUNE_SEED={seed}", end=" ")
