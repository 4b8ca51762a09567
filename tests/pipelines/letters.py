"""A workspace whose event log has dead letters, and what is in the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from features.common.timestamps import to_microseconds
from features.common.types import Event, Offer
from features.events.dead_letters import letters
from features.events.log import EventLog, event_folder, read_all
from features.events.rows import (
    Item,
    dead_item,
    event_item,
)
from features.events.semantics import time_of
from features.events.sqlite_file import LogLimits
from features.lake.offers import catalogue_file
from features.validation.load import load
from features.workspace.workspace import Workspace
from tests.workspaces import make_workspace

START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
NOW = to_microseconds(START + timedelta(hours=1))
ROOMY = LogLimits(free_bytes_min=0)


def body(event_id: str, customer: str = "c1", **fields: Any) -> bytes:
    """A click as a client sends it."""
    sent = {"event_id": event_id, "type": "click", "occurred_at": "2026-11-22T09:00:00Z", "customer_id": customer}
    return json.dumps(sent | {"offer_id": "o1"} | fields).encode()


def letter(reason: str, sent: bytes, unit: str = "c1") -> Item:
    return dead_item(reason, unit, sent)


def event(sent: bytes) -> Item:
    """An event as the log takes it."""
    decoded = msgspec.json.decode(sent, type=Event)
    return event_item(decoded, time_of(decoded))


def workspace_of(folder: Path, *items: Item) -> Workspace:
    """A workspace with one offer, whose log holds these items."""
    workspace = load(make_workspace(folder, customers=2, decisions=1), sources=False)
    catalogue_file(workspace).parent.mkdir(parents=True, exist_ok=True)
    catalogue_file(workspace).write_bytes(msgspec.json.encode([Offer("o1", "one"), Offer("o2", "two")]))
    written(workspace, *items)
    return workspace


def written(workspace: Workspace, *items: Item) -> None:
    log = EventLog(event_folder(workspace.data), ROOMY, lambda: NOW)
    log.append(items)
    log.close()


def in_log(workspace: Workspace) -> list[str]:
    return [row.event.event_id for row in read_all(event_folder(workspace.data), 0)]


def reasons(workspace: Workspace) -> list[str]:
    return sorted(one.reason for one in letters(event_folder(workspace.data)))
