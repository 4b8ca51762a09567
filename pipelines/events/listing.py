"""Dead letters for people: how many there are of which reason, and what stands in them where that is asked for."""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct

from features.common.timestamps import rfc3339
from features.events import dead_letters
from features.events.dead_letters import LetterFilter
from features.events.log import event_folder
from features.events.rows import DeadLetter
from features.workspace.workspace import Workspace


class ReasonRow(Struct, frozen=True):
    """The letters of one reason; moments as RFC 3339."""

    reason: str
    letters: int
    oldest: str
    newest: str


class LetterBody(Struct, frozen=True):
    """One letter with what was sent: it may name a customer."""

    reason: str
    at: str
    """When it was refused, RFC 3339."""
    body: Any
    """The item as JSON; as a text where it was cut off; None where its customer was forgotten."""


class LettersReport(Struct, frozen=True, omit_defaults=True):
    """The dead letters of an event log."""

    letters: int
    reasons: list[ReasonRow]
    """Most letters first."""
    bodies: list[LetterBody] | None = None
    """The oldest letters; None where they were not asked for."""


def listed(workspace: Workspace, wanted: LetterFilter, bodies_max: int = 0) -> LettersReport:
    """Return how many dead letters have which reason.

    Args:
        bodies_max: how many letters are shown with their bodies, oldest first; 0 shows none.

    Raises:
        LogUnavailable: the event log cannot be read.
    """
    folder = event_folder(workspace.data)
    reasons = [
        ReasonRow(one.reason, one.letters, rfc3339(one.oldest), rfc3339(one.newest))
        for one in dead_letters.counted(folder, wanted)
    ]
    shown = [_body(letter) for letter in islice(dead_letters.letters(folder, wanted), bodies_max)]
    return LettersReport(sum(one.letters for one in reasons), reasons, shown if bodies_max else None)


def _body(letter: DeadLetter) -> LetterBody:
    """Return a letter as it is shown."""
    body: Any = None
    if letter.body:
        try:
            body = msgspec.json.decode(letter.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            body = letter.body.decode("utf-8", "replace")
    return LetterBody(letter.reason, rfc3339(letter.at), body)
