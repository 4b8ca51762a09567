"""Dead letters: what could not be an event, with the reason; and how they are sent again once the workspace understands
them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from features.common import timestamps
from features.common.moments import Micros
from features.common.types import Event
from features.events import consumers
from features.events.log import EventLog, dead_letters
from features.events.rows import CONFLICT, DeadLetter, Item, event_item
from features.events.semantics import EventSchema, time_of

LETTERS_A_STEP = 1_000

_decode = msgspec.json.Decoder(Event).decode


def letters(folder: Path) -> Iterable[DeadLetter]:
    """All dead letters, oldest first, read in steps."""
    after = 0
    while found := dead_letters(folder, after, LETTERS_A_STEP):
        yield from found
        after = found[-1].seq


def send_again(folder: Path, happenings: EventSchema, now: Micros | None = None) -> Counter[str]:
    """Sends those again that are events by now; the others stay. A worker of the service lets the ledger hear of them.

    What was posted since is recognised as a duplicate. What conflicts with another event of its id stays what it is.

    Args:
        folder: of the event log.
        now: microseconds since 1970, against which the times of events are held.

    Returns:
        How many were `stored`, `duplicate`, and how many were `left`.

    Raises:
        LogUnavailable: some may have been sent; send again.
    """
    moment = timestamps.now() if now is None else now
    sent: Counter[str] = Counter(stored=0, duplicate=0, left=0)
    alive = consumers.begin(folder)
    log = EventLog(folder, worker=alive.worker)
    try:
        after = 0
        while found := dead_letters(folder, after, LETTERS_A_STEP):
            after = found[-1].seq
            items = [item for letter in found if (item := _item(letter, happenings, moment)) is not None]
            outcomes = Counter(result.outcome for result in log.resubmit(items)) if items else Counter()
            sent.update(
                stored=outcomes["stored"],
                duplicate=outcomes["duplicate"],
                left=len(found) - len(items) + outcomes["dead"],
            )
    finally:
        log.close()
        alive.release()
    return sent


def _item(letter: DeadLetter, happenings: EventSchema, now: Micros) -> Item | None:
    """Return the event of a letter, if it is one by now."""
    if letter.reason == CONFLICT:
        return None
    try:
        event = _decode(letter.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    item = event_item(event, time_of(event), letter.seq) if happenings.poison(event, now) is None else None
    return None if item is None or item.reason else item
