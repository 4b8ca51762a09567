"""Facts of the doctor from the event log, the journal and the shipper."""

from __future__ import annotations

import contextlib

from features.common.timestamps import parse_moment
from features.events import consumers, dead_letters
from features.events import log as event_log
from features.events.sqlite_file import LogUnavailable
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.facts import LogFacts, LoopFacts
from pipelines.shipping.journal_files import journal_folder, listed
from pipelines.shipping.state import loop_of, state_of


def log(workspace: Workspace) -> LogFacts | str:
    """Return the counters of the event log, and how many dead letters have which reason."""
    folder = event_log.event_folder(workspace.data)
    if not event_log.exists(folder):
        return _why_no_log(workspace)
    counts = event_log.counts(folder)
    reasons = {one.reason: one.letters for one in dead_letters.counted(folder)}
    return LogFacts(counts.accepted, counts.stored, counts.duplicates, counts.dead, reasons)


def _why_no_log(workspace: Workspace) -> str:
    """Return a log begins with its first event; a server's journal begins with the server."""
    if consumers.anybody(event_log.event_folder(workspace.data)):
        return "a server runs, and no event has come to it yet"
    if journal_folder(workspace.data).exists():
        return "a server ran here, and no event ever came to it"
    return "no server ran here yet"


def loop(workspace: Workspace) -> LoopFacts | str:
    """Return what waits to be shipped, and how the last run of the shipper did."""
    state, ran = state_of(workspace), loop_of(workspace)
    files = [file for file in listed(journal_folder(workspace.data)) if file.size]
    folder = event_log.event_folder(workspace.data)
    if not files and not event_log.exists(folder):
        return "no decision and no event was recorded here yet"
    waiting, oldest = 0, list[int]()
    for file in files:
        rest = file.size - state.journals.get(file.stem, 0)
        if rest > 0:
            waiting += rest
            oldest.append(_began(file.stem))
    with contextlib.suppress(LogUnavailable):
        events = event_log.read(folder, state.events) if event_log.exists(folder) else []
        waiting += len(events)
        oldest += [events[0].received] if events else []
    if not ran:
        return LoopFacts(None, waiting, min(oldest, default=None), 0.0, state.lost_bytes, state.left_out)
    # A journal file that is being written began long ago; what waits in it came after the last run.
    since = [max(moment, ran.at) for moment in oldest]
    return LoopFacts(ran.at, waiting, min(since, default=None), ran.lag_seconds, ran.lost_bytes, ran.left_out)


def _began(stem: str) -> int:
    """Return when a journal file was begun, by its name."""
    text = stem.partition("-")[0]
    return parse_moment(f"{text[:4]}-{text[4:6]}-{text[6:11]}:{text[11:13]}:{text[13:22]}Z")
