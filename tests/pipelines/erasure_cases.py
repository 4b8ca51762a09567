"""What the tests of forgetting share: a workspace in which one customer stands in every place, and what is in it of all
others.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import warnings
from collections import Counter
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from features.common import clock
from features.common.timestamps import MICROSECONDS, to_microseconds
from features.common.types import Event
from features.contact_history import history
from features.contact_history.history import key_of
from features.contact_history.limits import ContactPolicy
from features.contact_history.takes import ContactEvent
from features.events.journal import read_lines
from features.events.log import EventLog, event_folder
from features.events.rows import dead_item
from features.ledger.ledger import ledger_of
from features.ledger.lmdb_records import CUSTOMERS, RECENT, hash_of
from features.ledger.recent import Heard, RecentEvent
from features.lmdb_store.environment import MAP_BYTES, attach_folder, current
from features.lmdb_store.record import entity_key
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from pipelines.shipping.ship import ship
from serving.journal.files import DAMAGED, OPEN
from tests.pipelines.loops import line, log_events, write_lines
from tests.workspaces import make_workspace

VICTIM, VISITOR, OTHER = "436600003", "canary-visitor", "436600005"
UNITS = (VICTIM, f"~{VISITOR}")
NOW = clock.now().replace(microsecond=0) - timedelta(hours=3)
PLACES = ("events", "ledger", "online", "journal", "lake", "offline", "online_files", "ledger_files", "leftovers")

Content = dict[str, Counter[Any]]


def build(folder: Path) -> Workspace:
    """Make one: imported, computed, materialized, with events and decisions of which a part was shipped, and what
    crashes leave.
    """
    workspace = load(make_workspace(folder, seed=3, customers=9, decisions=1, days=4, now=NOW))
    moment = to_microseconds(NOW)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.import_tables(workspace, moment)
        steps.compute_features(workspace, moment)
        steps.materialize(workspace)
    for folder in (
        workspace.lake / "streams" / "calls",
        workspace.lake / "streams" / "payments",
        workspace.lake / "outcomes",
    ):
        for day in sorted(folder.glob("day=*"))[:-2]:  # a few files are enough
            shutil.rmtree(day)
    happen(workspace, "one")
    decide(workspace, "00000001")
    ship(workspace)
    happen(workspace, "two")
    decide(workspace, "00000002")
    decide(workspace, "00000003", DAMAGED, b"torn " + VICTIM.encode() + b" end")
    decide(workspace, "00000004", OPEN)
    with closing(EventLog(event_folder(workspace.data))) as log:
        log.append([dead_item("field-type", who, b'{"customer_id": "%b"}' % who.encode()) for who in (VICTIM, OTHER)])
    (workspace.data / "aside" / "shipping").mkdir(parents=True, exist_ok=True)
    (workspace.data / "aside" / "shipping" / "0.parquet").write_bytes(f"half a file of {VICTIM}".encode())
    return workspace


def happen(workspace: Workspace, batch: str) -> None:
    """Events of the victim, of their visitor before and after log-in, and of another customer; logged and heard."""
    made, heard = [], []
    whose: list[dict[str, Any]] = [
        {"anonymous_id": VISITOR},
        {"customer_id": VICTIM},
        {"customer_id": OTHER},
        {"anonymous_id": "stays"},
    ]
    for number, who in enumerate(whose):
        for kind, fields in (
            ("impression", {"offer_id": "offer-01", "channel": "app"}),
            ("calls", {"fields": {"minutes": 4.0, "topic": "data"}}),
        ):
            moment = NOW + timedelta(minutes=number)
            event = Event(event_id=f"{batch}-{kind}-{number}", type=kind, occurred_at=moment, **who, **fields)  # type: ignore[arg-type]
            made.append(event)
            at = to_microseconds(moment)
            if kind == "impression":
                heard.append(
                    Heard(
                        event.unit,
                        ContactEvent(history.IMPRESSION, at / MICROSECONDS, key_of("offer-01"), key_of(event.event_id)),
                    )
                )
            else:
                heard.append(
                    Heard(event.unit, event=RecentEvent(key_of(event.event_id), kind, at, at, {"minutes": 4.0}))
                )
    known = Event(event_id=f"{batch}-known", type="identify", occurred_at=NOW, customer_id=VICTIM, anonymous_id=VISITOR)
    log_events(workspace, [*made, known])
    asyncio.run(_hear(workspace, [*heard, Heard(f"~{VISITOR}", identify=VICTIM)]))


async def _hear(workspace: Workspace, heard: list[Heard]) -> None:
    with closing(ledger_of(workspace)) as ledger:
        await ledger.hear(heard, ContactPolicy(remember_seconds=86_400.0), NOW.timestamp())


def decide(workspace: Workspace, stem: str, suffix: str = ".lines", torn: bytes = b"") -> None:
    """Decisions of the victim between those of others."""
    who = [OTHER, VICTIM, f"~{VISITOR}", "436600001", VICTIM]
    number = int(stem, 16) * 10
    lines = [line(number + at, customer_id=one, decision_id=f"{stem}-{at}") for at, one in enumerate(who)]
    write_lines(workspace, stem, lines, suffix, torn)


def content(workspace: Workspace) -> Content:
    """What every place holds of everybody but the victim, as rows that can be compared, each as often as it occurs."""
    return {
        "parquet": _parquet(workspace),
        "events": _events(workspace),
        "journal": Counter(
            (file.stem, msgspec.msgpack.encode(one))
            for file in sorted((workspace.data / "journal").glob("2*"))
            for one in read_lines(file)
            if one.customer_id not in UNITS
        ),
        "online": _records(
            workspace.online / current(workspace.online), {entity_key("customer_id", unit) for unit in UNITS}
        ),
        "ledger": _records(
            workspace.data / "ledger", {kind + hash_of(unit) for unit in UNITS for kind in (CUSTOMERS, RECENT)}
        ),
    }


def _parquet(workspace: Workspace) -> Counter[Any]:
    rows: Counter[Any] = Counter()
    with closing(duckdb.connect()) as con:
        for root in (workspace.lake, workspace.offline):
            for file in sorted(root.glob("**/*.parquet")):
                found = con.execute("SELECT * FROM read_parquet(?, hive_partitioning = false)", [str(file)])
                names = [column[0] for column in found.description or []]
                for row in found.fetchall():
                    told = dict(zip(names, row, strict=True))
                    if not {told.get("customer_id"), told.get("unit")} & set(UNITS):
                        rows[str(file.relative_to(workspace.data)), repr(row)] += 1
    return rows


def _events(workspace: Workspace) -> Counter[Any]:
    with closing(sqlite3.connect(event_folder(workspace.data) / "events.db")) as connection:
        rows = [
            *connection.execute("SELECT 'event', seq, id, received, unit, body FROM events"),
            *connection.execute("SELECT 'dead', seq, at, reason, unit, body FROM dead"),
        ]
    return Counter(row for row in rows if not set(row) & set(UNITS))


def _records(folder: Path, but: set[bytes | None]) -> Counter[Any]:
    environment = attach_folder(folder.resolve(), MAP_BYTES)
    try:
        with environment.begin() as transaction:
            return Counter((key, value) for key, value in transaction.cursor() if key not in but)
    finally:
        environment.release()


def fork_and_kill(work: Any) -> int:
    """Does some work in a child of this process; the signal that killed it, or 0."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
