"""Dead letters as the event log keeps them: items that could not be events, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from features.common.moments import Micros
from features.events.log import exists, reading
from features.events.rows import DeadLetter

LETTERS_A_STEP = 500
"""Letters of one step of reading; their bodies may take 4 MiB."""


class LetterFilter(NamedTuple):
    """Which letters are asked for; all where nothing is said."""

    reasons: Sequence[str] = ()
    since: Micros | None = None
    """Only letters that were written then or later, microseconds since 1970."""

    def where(self) -> tuple[str, list[int | str]]:
        """Return the condition in SQL, with its values."""
        conditions, values = ["TRUE"], list[int | str]()
        if self.reasons:
            conditions.append(f"reason IN ({', '.join('?' * len(self.reasons))})")
            values += self.reasons
        if self.since is not None:
            conditions.append("at >= ?")
            values.append(self.since)
        return " AND ".join(conditions), values


ALL = LetterFilter()


class ReasonCount(NamedTuple):
    """The letters of one reason."""

    reason: str
    letters: int
    oldest: Micros
    """When the first of them was written, microseconds since 1970."""
    newest: Micros


def counted(folder: Path, wanted: LetterFilter = ALL) -> list[ReasonCount]:
    """Return how many letters have which reason, most first; none where there is no log.

    Raises:
        LogUnavailable: the log cannot be read.
    """
    if not exists(folder):
        return []
    where, values = wanted.where()
    query = f"SELECT reason, count(*), min(at), max(at) FROM dead WHERE {where} GROUP BY reason ORDER BY 2 DESC, 1"
    with reading(folder) as connection:
        return [ReasonCount(*row) for row in connection.execute(query, values)]


def last_place(folder: Path) -> int:
    """Return the place of the newest letter; 0 where there is none.

    Raises:
        LogUnavailable: the log cannot be read.
    """
    if not exists(folder):
        return 0
    with reading(folder) as connection:
        return int(connection.execute("SELECT ifnull(max(seq), 0) FROM dead").fetchone()[0])


def steps_of(folder: Path, wanted: LetterFilter = ALL, rows: int = LETTERS_A_STEP) -> Iterator[list[DeadLetter]]:
    """Yield the letters that were there at the beginning, oldest first, in steps of at most `rows`.

    Letters that are written meanwhile are left out, those that are deleted meanwhile may be.

    Raises:
        LogUnavailable: the log cannot be read.
    """
    after, last = 0, last_place(folder)
    where, values = wanted.where()
    query = (
        f"SELECT seq, at, reason, unit, body FROM dead WHERE seq > ? AND seq <= ? AND {where} ORDER BY seq LIMIT {rows}"
    )
    while after < last:
        with reading(folder) as connection:
            found = connection.execute(query, (after, last, *values)).fetchall()
        if not found:
            return
        yield [DeadLetter(seq, at, reason, unit or "", body or b"") for seq, at, reason, unit, body in found]
        after = found[-1][0]


def letters(folder: Path, wanted: LetterFilter = ALL) -> Iterator[DeadLetter]:
    """Yield the letters one by one; see `steps_of`."""
    for step in steps_of(folder, wanted):
        yield from step
