"""The shipper: decisions from the journals and events from the event log become rows of the lake, each once, whatever
kills it.

    read      so much as one shipment may hold, beyond what was shipped
    intend    write durably which bytes of which files and which numbers of the log these are, and what the state will
    be (`shipping.json`) write     the rows by table and day aside, each file made durable, then move them in, under
    names made of the intent commit    the intent becomes the state, by one rename (`shipped.json`)

Whoever finds an intent does it again: the same bytes and numbers give the same rows under the same names, which replace
what is there. So a row is in the lake once, whether the first try came to nothing, to some files, or to all. Readers
may see some files of a shipment before the others, and no row twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from features.common.files import locked, sync
from features.common.timestamps import MICROSECONDS
from features.common.timestamps import now as clock
from features.events import log as event_log
from features.events.journal import Line, Settled
from features.events.journal_frames import FRAME_BYTES_MAX
from features.events.rows import Logged
from features.lake.recorded_bundles import bundle_file, keep_bundle
from features.workspace.workspace import Workspace
from pipelines.shipping.backlog import waiting
from pipelines.shipping.decision_rows import DecisionRows, add_kept
from pipelines.shipping.event_rows import EventRows
from pipelines.shipping.journal_files import READ_BYTES_MAX, JournalFile, journal_folder, lines, listed, read_part
from pipelines.shipping.parts import LakeParts, Step
from pipelines.shipping.state import (
    LoopState,
    Shipment,
    Shipped,
    intent_file,
    read_state,
    shipped_file,
    state_of,
    write_intent,
    write_loop,
)
from training.bundle import bundle

logger = logging.getLogger("opportune.shipping")


@dataclass(frozen=True, slots=True)
class ShippingLimits:
    """Bounds of one shipment, and so of what is held in memory."""

    shown_rows_max: int = 50_000
    """Offers shown; a decision is not torn apart."""
    event_rows_max: int = 50_000


LIMITS = ShippingLimits()

Progress = Callable[[int, int], None]
"""Told the rows that are shipped and those that waited at first."""


class _Load:
    """What one shipment holds: rows, and how far they lead."""

    def __init__(self, workspace: Workspace, state: Shipped) -> None:
        self.parts, self.state = LakeParts(workspace), state
        self.journals: dict[str, tuple[int, int]] = {}
        self.sizes: dict[str, int] = {}
        self.events = (state.events, state.events)
        self.decisions = self.shown = self.events_read = self.unreadable_bytes = 0
        self.left_out: dict[str, int] = {}
        self.gone = False
        """Something that was to be read is not there any more."""
        self.full = False
        """There was more than a shipment may hold."""


@contextmanager
def alone(workspace: Workspace) -> Iterator[None]:
    """Hold the shipper of a workspace: whoever comes second waits. Who changes rows of the lake ships first, and does
    both within one.
    """
    with locked(workspace.data / "shipping.lock"):
        yield


def ship(
    workspace: Workspace,
    progress: Progress = lambda _done, _all: None,
    step: Step = lambda _: None,
    limits: ShippingLimits = LIMITS,
) -> LoopState:
    """Bring into the lake all that waits in journals and event log.

    Args:
        step: told each step on the file system before it is taken.

    Raises:
        OSError, LogUnavailable: what was shipped so far stays, the rest is shipped by the next run.
    """
    with alone(workspace):
        begun = waiting(workspace, state_of(workspace))
        lag = 0.0 if begun.oldest is None else max(0.0, (clock() - begun.oldest) / MICROSECONDS)
        _keep_bundles(workspace)
        decisions = events = rows = 0
        for load in _shipments(workspace, step, limits):
            decisions, events = decisions + load.decisions, events + load.events_read
            rows += sum(load.parts.rows().values())
            progress(decisions + events, begun.rows)
        state = state_of(workspace)
        left = waiting(workspace, state)
        told = (state.rows, state.left_out, state.lost_bytes, state.unreadable_bytes)
        loop = LoopState(clock(), decisions, events, rows, lag, left.rows, *told)
        write_loop(workspace, loop)
        return loop


def unshipped(workspace: Workspace, limits: ShippingLimits = LIMITS) -> LakeParts:
    """Return what waits to be shipped as rows of the lake, so much as one shipment may hold. Nothing is written or
    shipped.
    """
    return _read(workspace, state_of(workspace), limits).parts


def _shipments(workspace: Workspace, step: Step, limits: ShippingLimits) -> Iterator[_Load]:
    """Ship until nothing waits of what waited at first: before all what was under way when a process died."""
    intent = read_state(intent_file(workspace))
    if intent is not None:
        load = _again(workspace, intent)
        _deliver(workspace, load, intent, step)
        yield load
    full = True
    while full:  # not until nothing comes: under load something always does
        load = _read(workspace, state_of(workspace), limits)
        after, full = _after(load), load.full
        if after is None:
            return
        step("intend")
        write_intent(workspace, after)
        _deliver(workspace, load, after, step)
        yield load


def _deliver(workspace: Workspace, load: _Load, after: Shipped, step: Step) -> None:
    """Write the rows of an intent into the lake, and make it the state."""
    assert after.last is not None
    load.parts.write(workspace, after.last.name(after.number), after.last.at, not load.gone, step)
    step("commit")
    intent_file(workspace).rename(shipped_file(workspace))
    sync(workspace.lake)


def _read(workspace: Workspace, state: Shipped, limits: ShippingLimits) -> _Load:
    """Return what comes next, within the bounds of a shipment."""
    load = _Load(workspace, state)
    rows, files = DecisionRows(workspace), listed(journal_folder(workspace.data))
    load.sizes = {file.stem: file.size for file in files}
    for file in files:
        begin = state.journals.get(file.stem, 0)
        if begin < file.size and not load.full:
            _read_journal(load, rows, workspace, file, begin, limits)
    if event_log.exists(folder := event_log.event_folder(workspace.data)):
        _add_events(load, workspace, event_log.read(folder, state.events, rows=limits.event_rows_max))
        load.full |= load.events_read >= limits.event_rows_max
    return load


def _read_journal(
    load: _Load, rows: DecisionRows, workspace: Workspace, file: JournalFile, begin: int, limits: ShippingLimits
) -> None:
    """Read the next decisions of one file, as many as there is room for."""
    content = read_part(journal_folder(workspace.data), file.stem, begin, min(file.size - begin, READ_BYTES_MAX))
    if content is None:
        return
    end, gaps = 0, list[tuple[int, int]]()
    for end, line, unreadable in lines(content, gaps):  # noqa: B007
        _add(load, rows, line, unreadable)
        if load.shown >= limits.shown_rows_max:
            load.full = True
            break
    else:
        load.full |= begin + len(content) < file.size
        if file.sealed and begin + len(content) >= file.size:
            end = len(content)  # what is left is the torn end of a killed writer: nothing will follow it
        elif not end and len(content) == READ_BYTES_MAX:
            end = READ_BYTES_MAX - FRAME_BYTES_MAX  # damage as long as that; a frame may begin in what is left
    load.unreadable_bytes += sum(min(until, end) - since for since, until in gaps if since < end)
    if end:
        load.journals[file.stem] = (begin, begin + end)


def _add(load: _Load, rows: DecisionRows, line: Line | Settled | None, unreadable: bool) -> None:
    if isinstance(line, Settled):
        add_kept(line, load.parts)
    elif line is not None and rows.add(line, load.parts):
        load.decisions += 1
        load.shown += max(1, len(line.offer_ids))
    elif line is not None or unreadable:
        load.left_out["unreadable"] = load.left_out.get("unreadable", 0) + 1


def _add_events(load: _Load, workspace: Workspace, found: Sequence[Logged]) -> None:
    rows = EventRows(workspace)
    for event in found:
        wrong = rows.add(event.received, event.unit, event.body, load.parts) if event.intact else "unreadable"
        if wrong:
            load.left_out[wrong] = load.left_out.get(wrong, 0) + 1
    if found:
        load.events = (load.state.events, found[-1].seq)
        load.events_read = len(found)


def _after(load: _Load) -> Shipped | None:
    """Return the state that a load leads to; None where there is nothing to ship and nothing to note."""
    state = load.state
    gone = state.sizes.keys() - load.sizes.keys()
    if not load.journals and load.events[1] == state.events and not gone:
        return None
    lost = sum(max(0, state.sizes[stem] - state.journals.get(stem, 0)) for stem in gone)
    if lost:
        logger.warning(
            "%d bytes of journals were deleted before they were shipped: the journal keeps its folder within its"
            " bounds",
            lost,
        )
    if load.left_out:
        logger.warning(
            "no table of the lake takes these events, or they cannot be read: %s; see the table `unclaimed`",
            load.left_out,
        )
    reached = state.journals | {stem: until for stem, (_, until) in load.journals.items()}
    return Shipped(
        number=state.number + 1,
        journals={stem: until for stem, until in reached.items() if stem in load.sizes},
        sizes=load.sizes,
        events=load.events[1],
        rows=_added(state.rows, load.parts.rows()),
        left_out=_added(state.left_out, load.left_out),
        lost_bytes=state.lost_bytes + lost,
        unreadable_bytes=state.unreadable_bytes + load.unreadable_bytes,
        last=Shipment(load.journals, load.events, clock()),
    )


def _added(before: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return before | {name: before.get(name, 0) + count for name, count in more.items()}


def _again(workspace: Workspace, intent: Shipped) -> _Load:
    """Return what an intent ships, read once more."""
    shipment = intent.last
    assert shipment is not None
    load, rows = _Load(workspace, intent), DecisionRows(workspace)
    for stem, (begin, until) in shipment.journals.items():
        content = read_part(journal_folder(workspace.data), stem, begin, until - begin)
        load.gone |= content is None
        for _, line, unreadable in lines(content or b"", []):
            _add(load, rows, line, unreadable)
    since, until = shipment.events
    while since < until:
        found = event_log.read(event_log.event_folder(workspace.data), since, rows=LIMITS.event_rows_max)
        load.gone |= not found or found[-1].seq < until
        _add_events(load, workspace, [event for event in found if event.seq <= until])
        since = found[-1].seq if found else until
    return load


def _keep_bundles(workspace: Workspace) -> None:
    """Keep what the numbers of every bundle on the disk mean, before it is deleted."""
    for manifest in sorted(workspace.bundles.glob("*/" + bundle.MANIFEST)):
        try:
            name = bundle.digest_of_manifest(manifest.read_bytes())
            if not bundle_file(workspace, name).exists():
                found = bundle.read(manifest.parent)
                keep_bundle(workspace, found.id, found.contract, found.categories)
        except (bundle.BadBundle, FileNotFoundError) as error:  # damaged, or deleted just now
            logger.warning("%s: its columns are not kept: %s", manifest.parent.name, error)
