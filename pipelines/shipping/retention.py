"""What has been kept long enough goes: days of the lake, journal files and events that were shipped, dead letters."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from features.common.clock import written_s
from features.common.files import write_whole
from features.common.moments import Micros
from features.common.timestamps import DAY_SECONDS, MICROSECONDS, duration_seconds
from features.events import log as event_log
from features.events.log import EventLog
from features.lake.files import EXPIRED, writing
from features.lake.loop_tables import RECORDED, UNCLAIMED
from features.lake.tables import stream_table
from features.workspace.workspace import Workspace
from pipelines.shipping.compact import GRACE_SECONDS
from pipelines.shipping.journal_files import journal_folder
from pipelines.shipping.ship import alone
from pipelines.shipping.state import Shipped, state_of
from serving.journal.files import DAMAGED, REASON, SEALED

_EPOCH_DAY = date(1970, 1, 1).toordinal()


class Retained(NamedTuple):
    """What went."""

    days: int
    """Folders of days of the lake: hidden now, removed an hour later."""
    journal_files: int
    events: int
    dead_letters: int


def retain(workspace: Workspace, now: Micros) -> Retained:
    """Let go what is beyond `retention` in workspace.yaml, and of the event log what is beyond `events.recognised` and
    was shipped.

    Args:
        now: microseconds since 1970.

    Raises:
        LogUnavailable: the event log cannot be written now.
    """
    with alone(workspace):
        days = sum(_retain_days(workspace, folder, kept, now) for folder, kept in _kept(workspace).items())
        state = state_of(workspace)
        files = _retain_journal(workspace, state, now)
        pruned = {"events": 0, "dead_letters": 0}
        folder = event_log.event_folder(workspace.data)
        if event_log.exists(folder):
            log = EventLog(folder)
            try:
                recognised, dead = (
                    now - duration_seconds(text) * MICROSECONDS
                    for text in (workspace.settings.events.recognised, workspace.settings.retention.dead_letters)
                )
                pruned = log.prune(recognised, state.events, dead)
            finally:
                log.close()
    return Retained(days, files, pruned["events"], pruned["dead_letters"])


class Hidden(msgspec.Struct, frozen=True):
    """When days of a table were let go last, and up to which moment all of it may be gone; both in microseconds since
    1970.
    """

    at: int
    before: int


def hidden(workspace: Workspace) -> dict[str, Hidden]:
    """Return, by the table's folder in the lake, what retention has let go so far."""
    try:
        return msgspec.json.decode(_hidden_file(workspace).read_bytes(), type=dict[str, Hidden])
    except FileNotFoundError:
        return {}


def _note_hidden(workspace: Workspace, folder: str, gone: Hidden) -> None:
    told = hidden(workspace)
    before = max(gone.before, told[folder].before) if folder in told else gone.before
    write_whole(_hidden_file(workspace), msgspec.json.encode(told | {folder: Hidden(gone.at, before)}))


def _hidden_file(workspace: Workspace) -> Path:
    return workspace.data / "retained.json"


def _kept(workspace: Workspace) -> dict[str, int]:
    """For how many seconds the rows of a table are kept, by its folder; tables that are kept for good are not there."""
    settings = workspace.settings.retention
    wanted = {name: getattr(settings, name) for name in ("decisions", "impressions", "outcomes")}
    wanted |= {RECORDED.folder: settings.recorded, UNCLAIMED.folder: settings.dead_letters}
    wanted |= {stream_table(name).replace(".", "/"): text for name, text in settings.streams.items()}
    return {folder: duration_seconds(text) for folder, text in wanted.items() if text is not None}


def _retain_days(workspace: Workspace, folder: str, kept_seconds: int, now: Micros) -> int:
    """Hide days all of whose rows are too old; remove those that were hidden long enough ago for whoever listed them
    before.
    """
    gone = 0
    for day in sorted((workspace.lake / folder).glob("day=*")):
        try:
            number = date.fromisoformat(day.name.removeprefix("day=")).toordinal() - _EPOCH_DAY
        except ValueError:
            continue
        if (number + 1) * DAY_SECONDS + kept_seconds > now // MICROSECONDS:
            continue
        marker = day / EXPIRED
        with writing(workspace.lake):
            if not marker.exists():
                _note_hidden(
                    workspace, folder, Hidden(now, (number + 1) * DAY_SECONDS * MICROSECONDS)
                )  # first: who compares must know
                write_whole(marker, msgspec.json.encode(now))
                gone += 1
            elif now - int(msgspec.json.decode(marker.read_bytes())) >= GRACE_SECONDS * MICROSECONDS:
                _remove(workspace, day)
    return gone


def _remove(workspace: Workspace, day: Path) -> None:
    """Take a folder out at once; what a crash leaves of it lies aside, where nobody reads."""
    aside = workspace.data / "aside" / "expired"
    shutil.rmtree(aside, ignore_errors=True)
    aside.parent.mkdir(parents=True, exist_ok=True)
    day.rename(aside)
    shutil.rmtree(aside)


def _retain_journal(workspace: Workspace, state: Shipped, now: Micros) -> int:
    """Remove files that nobody writes, that were shipped whole, and that are older than they need be."""
    oldest = now / MICROSECONDS - duration_seconds(workspace.settings.retention.journal)
    removed = 0
    for file in sorted(journal_folder(workspace.data).glob("*Z-*")):
        if file.suffix not in (SEALED, DAMAGED):
            continue
        found = file.stat()
        if written_s(found) < oldest and state.journals.get(file.stem, 0) >= found.st_size:
            file.unlink(missing_ok=True)
            file.with_suffix(REASON).unlink(missing_ok=True)
            removed += 1
    return removed
