"""What the tests of the loop share: a workspace whose journals and event log are filled, and what its lake must hold
then.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from features.common.timestamps import to_microseconds
from features.common.types import Event
from features.events.journal import Line, Versions, write_frame
from features.events.log import EventLog, event_folder
from features.events.rows import event_item
from features.lake import lake
from features.lake.files import is_imported
from features.validation.load import load
from features.workspace.workspace import Workspace
from serving.journal.files import SEALED
from tests.workspaces import make_workspace

START = datetime(2026, 11, 20, 23, 0, tzinfo=UTC)
CONTEXTS: tuple[dict[str, Any], ...] = (
    {"channel": "app", "hour": 3, "roaming_now": True},
    {"hour": 0.5},
    {"channel": None},
    {},
)
EVENTS = 14


def workspace_in(folder: Path, **settings: Any) -> Workspace:
    """A workspace of which nothing was imported."""
    return load(make_workspace(folder, customers=4, decisions=1, settings=settings))


def copy_of(workspace: Workspace, target: Path) -> Workspace:
    """The same at another place."""
    shutil.copytree(workspace.folder, target)
    return load(target)


def line(number: int, shown: int = 2, **changes: Any) -> Line:
    """A decision of some offers, whose columns tell its number; one of five minutes after the other."""
    at = to_microseconds(START + number * timedelta(minutes=5))
    numbers = np.arange(shown) + number
    pairs = np.stack([numbers / 7, np.full(shown, np.nan)], axis=1)
    made = Line(
        decision_id=f"{at:x}-w-{number:x}",
        at=at,
        customer_id=f"c{number % 3}" if number % 4 else f"~a{number % 5}",
        placement="home",
        limit=None,
        context=CONTEXTS[number % len(CONTEXTS)],
        exclude=[],
        degraded=("features_unavailable",) if number % 5 == 0 else (),
        versions=Versions("sha256:b1", "c1", "l1"),
        lineup_offers=8,
        considered=np.packbits(np.ones(8, bool)).tobytes(),
        shown=np.arange(shown, dtype="<i4").tobytes(),
        offer_ids=[f"offer-{at:02d}" for at in range(shown)],
        propensities=(numbers / 1000).tobytes(),
        probabilities=np.ones(shown).tobytes(),
        raw_of_considered=False,
        raw=np.zeros(shown).tobytes(),
        shared=np.array([number, np.nan, -0.0]).tobytes(),
        offers=numbers.astype(float).tobytes(),
        pairs_of_considered=False,
        pairs=pairs.tobytes(),
        config="k1",
        scores=(numbers / 100).tobytes(),
    )
    return msgspec.structs.replace(made, **changes)


def write_lines(workspace: Workspace, stem: str, lines: list[Line], suffix: str = SEALED, torn: bytes = b"") -> Path:
    """A journal file, or more of one that is open."""
    folder, buffer = workspace.data / "journal", bytearray()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"20261120T230000.000000Z-{stem}{suffix}"
    with file.open("ab") as out:
        for one in lines:
            write_frame(one, buffer)
            out.write(buffer)
        out.write(torn)
    return file


def events(begin: int, count: int) -> list[Event]:
    """Events of every kind, in turn, an hour apart."""
    made = []
    for number in range(begin, begin + count):
        moment = START + timedelta(hours=number, microseconds=number)
        who: dict[str, Any] = {"customer_id": f"c{number % 3}"} if number % 2 else {"anonymous_id": f"a{number % 5}"}
        about = {"offer_id": f"offer-{number % 4:02d}", "decision_id": f"d{number}"}
        kinds: list[tuple[str, dict[str, Any]]] = [
            ("impression", who | about | {"placement": "home", "channel": "app"}),
            ("click", who | about),
            ("accepted", who | {"offer_id": "offer-01", "value": number / 3}),
            ("calls", who | {"fields": {"minutes": number / 2, "topic": "data", "megabytes": None}}),
            ("payments", who | {"fields": {"amount": 5.0, "method": "card", "no_longer_declared": "x"}}),
            ("consent", who | {"purposes": {"service": True, "personalization": bool(number % 2)}}),
            ("identify", {"customer_id": f"c{number % 3}", "anonymous_id": f"a{number % 5}"}),
        ]
        kind, fields = kinds[number % len(kinds)]
        made.append(Event(event_id=f"e{number}", type=kind, occurred_at=moment, **fields))
    return made


def log_events(workspace: Workspace, happened: list[Event]) -> None:
    """Put events into the workspace's log."""
    log = EventLog(event_folder(workspace.data))
    try:
        log.append([event_item(event, to_microseconds(event.occurred_at)) for event in happened])
    finally:
        log.close()


def expected(lines: list[Line], happened: list[Event]) -> Counter[tuple[str, ...]]:
    """Rows that the lake must hold of these, as (table, id, what else tells it)."""
    rows: Counter[tuple[str, ...]] = Counter()
    for one in lines:
        for offer, columns in zip(one.offer_ids, one.columns(), strict=True):
            rows["recorded", one.decision_id, offer, columns.tobytes().hex()] += 1
            if one.customer_id:
                rows["decisions", one.decision_id, offer, json.dumps(one.context.get("hour"))] += 1
    tables = {
        "impression": "impressions",
        "calls": "streams.calls",
        "payments": "streams.payments",
        "identify": "links",
    }
    for event in happened:
        for purpose in event.purposes:
            rows["consents", event.event_id, event.unit, purpose] += 1
        if not event.purposes:
            unit = f"~{event.anonymous_id}" if event.type == "identify" else event.unit
            rows[tables.get(event.type, "outcomes"), event.event_id, unit, ""] += 1
    return rows


def in_lake(workspace: Workspace) -> Counter[tuple[str, ...]]:
    """The rows that events and journals brought, the same way; read file by file, without the views of linked
    customers.
    """
    rows: Counter[tuple[str, ...]] = Counter()
    con = lake.connect(workspace)
    for name, what in {
        "recorded": "decision_id, offer_id, columns",
        "decisions": "decision_id, offer_id, hour",
        "consents": "event_id, customer_id, purpose",
        "impressions": "event_id, customer_id, ''",
        "outcomes": "event_id, customer_id, ''",
        "streams.calls": "event_id, customer_id, ''",
        "streams.payments": "event_id, customer_id, ''",
        "links": "event_id, unit, ''",
    }.items():
        files = [file for file in lake.counting(workspace.lake / name.replace(".", "/")) if not is_imported(file)]
        if not files:
            continue
        for first, second, third in con.execute(f"SELECT {what} FROM {lake.reader(files)}").fetchall():
            if name == "recorded":
                third = np.array(third, np.float64).tobytes().hex()
            elif name == "decisions":
                third = json.dumps(None if third is None else int(third) if third == int(third) else third)
            rows[name, first, second, third] += 1
    con.close()
    return rows


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class KillAt:
    """A step that ends everything when it is taken for the n-th time."""

    def __init__(self, number: int | None, *, really: bool = False) -> None:
        self.number, self.really, self.taken = number, really, list[str]()

    def __call__(self, what: str) -> None:
        if len(self.taken) == self.number:
            if self.really:
                os.kill(os.getpid(), 9)
            raise Killed(what)
        self.taken.append(what)
