"""Send dead letters again: those that fit the workspace of today go into the event log, as if they were posted now.

    read a step of letters -> validate as POST /v1/events does -> one transaction: write the events, delete their
    letters, count -> the next step

A letter is deleted in the transaction that makes its event durable, so a kill at any moment loses nothing, and what is
done again finds the rest. Events are recognised by their ids: one that was posted again meanwhile is a duplicate and
counts once. The event log is shared by processes, so servers may run; one of them tells the ledger of what was sent
once this process lets go of its worker file, or the next server that starts does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

import msgspec
from msgspec import Struct

from features.common import timestamps
from features.common.errors import Failure
from features.common.moments import Micros
from features.common.types import ANONYMOUS, Event, Offer
from features.events import consumers, dead_letters
from features.events.dead_letters import LetterFilter
from features.events.log import EventLog, event_folder, exists
from features.events.rows import CONFLICT, DEAD_BYTES_MAX, FORGOTTEN, DeadLetter, Item, Result, event_item
from features.events.semantics import EventSchema, InvalidEvent, time_of
from features.lake.offers import catalogue_file, read_catalogue
from features.workspace.workspace import Workspace
from serving.api.events_body import Bad, read_events
from serving.http.problems import Problem

CUT_OFF = "cut-off"
"""Reason of a letter of which only a part was kept."""
LATE = {
    CONFLICT: "an id of its own: another event has it",
    CUT_OFF: f"a letter that was kept whole: of bodies above {DEAD_BYTES_MAX // 1024} KiB the rest is gone",
    "too-large": "an event of at most 16 KiB",
}
"""What is expected where no field of the event is at fault, by reason."""

Tell = Callable[[str, float | None], None]
"""Told what goes on, and the part that is done."""


class OffersUnreadable(Failure):
    """The catalogue, by which events about offers are validated, is missing or damaged."""


class RefusedLetters(Struct, frozen=True):
    """Letters that are still no events, for one reason; they stay."""

    reason: str
    """A code, as `POST /v1/events` answers with; or `cut-off`."""
    expected: str
    letters: int


class ResendReport(Struct, kw_only=True):
    """What became of the letters that were looked at: sent + duplicates + forgotten + gone + all refused."""

    dry_run: bool
    looked_at: int = 0
    sent: int = 0
    """Events that are in the log now, and were not before."""
    duplicates: int = 0
    """Events that were in the log already, the same to the byte: the letter is deleted."""
    forgotten: int = 0
    """Letters of customers who were forgotten: they stay out, and no body of them is kept."""
    gone: int = 0
    """Letters that another process sent, or that were deleted, meanwhile."""
    refused: list[RefusedLetters] = []
    """Most letters first."""


class _Refusal(NamedTuple):
    reason: str
    expected: str


class _Sender:
    """Takes letters step by step, and counts what becomes of them.

    Args:
        log: what the letters are sent to.
        schema: the events that the workspace understands today.
        moment: against which the times of events are held, microseconds since 1970.
    """

    def __init__(self, log: EventLog, schema: EventSchema, moment: Micros, report: ResendReport) -> None:
        self._log, self._schema, self._moment, self._report = log, schema, moment, report
        self._refused: Counter[_Refusal] = Counter()
        self._met: dict[bytes, bytes] = {}

    def take(self, letters: Sequence[DeadLetter], events_max: int | None) -> bool:
        """Send a step of letters, no more than `events_max` of them. Return whether all were looked at."""
        items, linked = list[Item](), dict[int, str]()
        for letter, read in zip(letters, asyncio.run(_read(letters)), strict=True):
            if len(items) == events_max:
                break
            self._report.looked_at += 1
            found = self._item(letter, read)
            if isinstance(found, Item):
                items.append(found)
                if isinstance(read, Event) and read.customer_id and read.anonymous_id:
                    linked[letter.seq] = ANONYMOUS + read.anonymous_id
            elif found.reason == FORGOTTEN:
                self._report.forgotten += 1
            else:
                self._refused[found] += 1
        else:
            letters = ()
        results = self._log.resubmit(items, linked, dry_run=self._report.dry_run) if items else []
        for item, result in zip(items, results, strict=True):
            self._count(item, result)
        return not letters

    def _item(self, letter: DeadLetter, read: Event | Bad | Problem) -> Item | _Refusal:
        """Return the event of a letter as it is written, or why it is none."""
        if letter.reason == FORGOTTEN:
            return _Refusal(FORGOTTEN, "")
        if letter.reason == CONFLICT:  # should the other event be pruned by now, this one still is not it
            return _Refusal(CONFLICT, LATE[CONFLICT])
        if isinstance(read, Problem):
            whole = len(letter.body) < DEAD_BYTES_MAX
            return _Refusal(read.slug, read.title) if whole else _Refusal(CUT_OFF, LATE[CUT_OFF])
        if isinstance(read, Bad):
            return _refusal(read.poison)
        if (poison := self._schema.poison(read, self._moment)) is not None:
            return _refusal(poison)
        item = event_item(read, time_of(read), letter.seq)
        return _Refusal(item.reason, LATE[item.reason]) if item.reason else item

    def _count(self, item: Item, result: Result | None) -> None:
        report = self._report
        if result is None:
            report.gone += 1
            return
        outcome, reason = result.outcome, result.reason
        if report.dry_run and outcome == "stored" and item.id in self._met:  # by a letter of a step before
            outcome, reason = ("duplicate", "") if self._met[item.id] == item.digest else ("dead", CONFLICT)
        if outcome == "stored":
            report.sent += 1
            if report.dry_run:
                self._met[item.id] = item.digest
        elif outcome == "duplicate":
            report.duplicates += 1
        elif reason == FORGOTTEN:
            report.forgotten += 1
        else:
            self._refused[_Refusal(reason, LATE[reason])] += 1

    def refused(self) -> list[RefusedLetters]:
        """Return the letters that stay, by reason, most first."""
        return [RefusedLetters(*one, letters) for one, letters in self._refused.most_common()]


def resend(
    workspace: Workspace,
    wanted: LetterFilter = dead_letters.ALL,
    *,
    events_max: int | None = None,
    dry_run: bool = False,
    now: Micros | None = None,
    tell: Tell = lambda *_: None,
    letters_a_step: int = dead_letters.LETTERS_A_STEP,
) -> ResendReport:
    """Send the dead letters again that are events by now, oldest first; the others stay.

    Args:
        wanted: which letters.
        events_max: send no more than so many; None: all.
        dry_run: say what would become of them, and change nothing.
        now: microseconds since 1970, against which the times of events are held; the clock's when None.
        tell: told what goes on, and the part of the letters that is done.

    Raises:
        OffersUnreadable: nobody can say which offers there are.
        LogUnavailable: some may have been sent; send again, and the rest is.
    """
    folder = event_folder(workspace.data)
    report = ResendReport(dry_run=dry_run)
    everything = sum(one.letters for one in dead_letters.counted(folder, wanted))
    if not everything or not exists(folder):
        return report
    schema = EventSchema(workspace, _offers(workspace))
    alive = None if dry_run else consumers.begin(folder)
    try:
        with closing(EventLog(folder, worker=0 if alive is None else alive.worker)) as log:
            sender = _Sender(log, schema, timestamps.now() if now is None else now, report)
            for letters in dead_letters.steps_of(folder, wanted, letters_a_step):
                left = None if events_max is None else events_max - report.sent - report.duplicates
                if left == 0 or not sender.take(letters, left):
                    break
                tell("letters", min(1.0, report.looked_at / everything))
            report.refused = sender.refused()
            if alive is not None and not report.sent:  # nobody has anything to tell the ledger
                alive.bury(log)
    finally:
        if alive is not None:
            alive.release()
    return report


async def _read(letters: Sequence[DeadLetter]) -> list[Event | Bad | Problem]:
    """Read each letter as the only item of a request."""
    return [await _read_one(letter.body) for letter in letters]


async def _read_one(body: bytes) -> Event | Bad | Problem:
    try:
        [read] = await read_events(b'{"events":[' + body + b"]}")
    except Problem as problem:
        return problem
    return read


def _refusal(poison: InvalidEvent) -> _Refusal:
    """Return why an item is no event, and where in it."""
    expected = f"{poison.pointer}: {poison.expected}" if poison.pointer else poison.expected
    return _Refusal(poison.code, expected)


def _offers(workspace: Workspace) -> list[Offer]:
    """Return the offers that serving knows."""
    try:
        return read_catalogue(workspace)
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        why = "nothing was imported yet" if isinstance(error, FileNotFoundError) else "it is damaged"
        raise OffersUnreadable(
            f"expected the offers in {catalogue_file(workspace)}: {why}. `opportune import` writes them"
        ) from error
