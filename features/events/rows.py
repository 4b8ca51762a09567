"""Rows of the event log: what is written of one item of a batch, and the step that writes batches within a transaction.

An item is an event, or a dead letter: what cannot be an event, with the reason. Of each that was accepted exactly one
thing holds: it was stored, it is a duplicate (same id, same body), or it is a dead letter. The counters are written in
the same transaction.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

import msgspec

from features.common.moments import Micros
from features.common.types import Event
from features.common.yielding import give_way

ID_BYTES = 16
EVENT_BYTES_MAX = 16 * 1024
"""Of the body of one event in the log."""
DEAD_BYTES_MAX = 8 * 1024
"""Of the body of a dead letter as it is kept; the rest is cut off."""
DEAD_ROWS_MAX = 50_000
"""Dead letters that are kept: beyond, the oldest go. The counters keep on counting them."""

CONFLICT, FORGOTTEN = "idempotency-conflict", "forgotten"
"""Reasons of dead letters that only the log can know."""

# One statement writes many rows: at each step of a statement the interpreter may be lost to another thread for a while.
_ROWS_A_STATEMENT = (256, 64, 16, 4, 1)
_INSERT = {
    rows: "INSERT INTO events(seq, id, digest, received, unit, worker, body) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * rows)
    + " ON CONFLICT(id) DO NOTHING"
    for rows in _ROWS_A_STATEMENT
}

_encode = msgspec.msgpack.Encoder(order="deterministic").encode

Outcome = Literal["stored", "duplicate", "dead"]
_Letter = tuple[int, str, str | None, bytes | None]
"""When, the reason, the unit and the body of a dead letter."""


class Item(NamedTuple):
    """What is to be written of one item; `event_item` and `dead_item` make it."""

    reason: str
    """Of a dead letter; empty: an event."""
    unit: str
    """Whose it is; empty where that cannot be read."""
    body: bytes
    """MessagePack of the `Event`; of a dead letter its JSON."""
    id: bytes = b""
    digest: bytes = b""
    time: int = 0
    """When it happened, microseconds since 1970."""
    letter: int = 0
    """The dead letter that is sent again with it; 0: none."""


class Result(NamedTuple):
    """What became of an item."""

    outcome: Outcome
    reason: str = ""
    """Of a dead letter."""
    seq: int = 0
    """Place in the log; of a duplicate the place of the first."""
    received: int = 0
    """When the log took it, microseconds since 1970, ascending with `seq`; of a duplicate that of the first."""
    heard: bool = False
    """Of a duplicate: whether the ledger is known to have heard the first."""


class Logged(NamedTuple):
    """One event of the log."""

    seq: int
    received: int
    unit: str
    body: bytes
    intact: bool
    """Whether the body is what was written."""

    @property
    def event(self) -> Event:
        """Raises msgspec.DecodeError where it is not intact."""
        return _decode(self.body)


class DeadLetter(NamedTuple):
    """One dead letter. The body is JSON that may be cut off; it is empty where the unit was forgotten."""

    seq: int
    at: int
    reason: str
    unit: str
    body: bytes


class EventCounts(NamedTuple):
    """The conservation law: accepted = stored + duplicates + dead. Counted since the log was begun, whatever was pruned
    since.
    """

    accepted: int = 0
    stored: int = 0
    duplicates: int = 0
    dead: int = 0
    dropped: int = 0
    """Of the dead: events of forgotten units."""


class LogState(NamedTuple):
    """The one row of counters, and where the log stands."""

    counts: EventCounts
    seq: int
    received: int


_decode = msgspec.msgpack.Decoder(Event).decode


def short(data: bytes) -> bytes:
    """BLAKE2b with 16 bytes."""
    return blake2b(data, digest_size=ID_BYTES).digest()


def event_item(event: Event, time: int, letter: int = 0) -> Item:
    """Return an event as it is written; one that is too large as a dead letter. Bodies are equal when the events are,
    however they were sent.
    """
    body = _encode(event)
    if len(body) > EVENT_BYTES_MAX:
        return dead_item("too-large", event.unit, msgspec.json.encode(event), letter)
    return Item("", event.unit, body, short(event.event_id.encode()), short(body), time, letter)


def dead_item(reason: str, unit: str, body: bytes, letter: int = 0) -> Item:
    """Return a dead letter as it is written."""
    return Item(reason, unit, body[:DEAD_BYTES_MAX], letter=letter)


def read_state(connection: sqlite3.Connection) -> LogState:
    """Counters and last places."""
    *counts, seq, received = connection.execute(
        "SELECT accepted, stored, duplicates, dead, dropped, seq, received FROM counted"
    ).fetchone()
    return LogState(EventCounts(*counts), seq, received)


def append(connection: sqlite3.Connection, items: Sequence[Item], worker: int, now: Micros) -> list[Result]:
    """Writes items within a transaction that holds the write lock; what became of each, in their order."""
    counts, last, taken = read_state(connection)
    events = [item for item in items if not item.reason]
    gone = forgotten(connection, events)
    first: dict[bytes, tuple[int, Item]] = {}
    for item in events:
        if item.id not in first and item.digest not in gone:
            first[item.id] = (len(first), item)
    begin, moment = last + 1, max(now, taken + 1)
    rows = [
        (begin + at, item.id, item.digest, moment + at, item.unit, worker, item.body) for at, item in first.values()
    ]
    give_way()
    written = _insert(connection, rows)
    letters: list[_Letter] = []
    if written == len(items):  # all are events, and new: nearly always
        results = [Result("stored", "", begin + at, moment + at) for at in range(written)]
    else:
        known = {} if written == len(rows) else _known(connection, list(first))
        fresh = set(first)
        results = [_became(item, first, known, fresh, gone, begin, moment) for item in items]
        letters = [
            _letter(item, result.reason, now)
            for item, result in zip(items, results, strict=True)
            if result.outcome == "dead"
        ]
    give_way()
    _bury(connection, letters)
    again = [item.letter for item in items if item.letter]
    if again:
        connection.execute(f"DELETE FROM dead WHERE seq IN ({', '.join('?' * len(again))})", again)
    tally = [result.outcome for result in results]
    after = EventCounts(
        counts.accepted + len(items) - len(again),
        counts.stored + tally.count("stored"),
        counts.duplicates + tally.count("duplicate"),
        counts.dead + tally.count("dead") - len(again),
        counts.dropped + sum(result.reason == FORGOTTEN for result in results),
    )
    connection.execute(
        "UPDATE counted SET accepted = ?, stored = ?, duplicates = ?, dead = ?, dropped = ?, seq = ?, received = ?",
        (*after, last + len(rows), moment + len(rows) - 1 if rows else taken),
    )
    return results


def _became(
    item: Item,
    first: dict[bytes, tuple[int, Item]],
    known: dict[bytes, tuple[bytes, int, int, bool]],
    fresh: set[bytes],
    gone: set[bytes],
    begin: int,
    moment: int,
) -> Result:
    if item.reason:
        return Result("dead", item.reason)
    if item.digest in gone:
        return Result("dead", FORGOTTEN)
    at, holder = first[item.id]
    digest, seq, received, heard = known.get(item.id, (holder.digest, begin + at, moment + at, False))
    if seq == begin + at and item.id in fresh:
        fresh.discard(item.id)
        return Result("stored", "", seq, received)
    return Result("duplicate", "", seq, received, heard) if digest == item.digest else Result("dead", CONFLICT)


def _letter(item: Item, reason: str, now: Micros) -> _Letter:
    """Return what is kept of a dead item; of one of a forgotten unit the reason alone. A conflict is found here only,
    and letters are JSON.
    """
    if reason == FORGOTTEN:
        return now, FORGOTTEN, None, None
    return now, reason, item.unit, item.body if item.reason else _as_json(item.body)


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> int:
    """Writes the rows whose ids are new; how many those are."""
    written, at = 0, 0
    for size in _ROWS_A_STATEMENT:
        while len(rows) - at >= size:
            values = list(itertools.chain.from_iterable(rows[at : at + size]))
            written += connection.execute(_INSERT[size], values).rowcount
            give_way()
            at += size
    return written


def _known(connection: sqlite3.Connection, ids: list[bytes]) -> dict[bytes, tuple[bytes, int, int, bool]]:
    """Digest, place and moment of the events with these ids, and whether they are known to be heard."""
    marks: dict[int, int] = dict(connection.execute("SELECT worker, heard FROM hearers"))
    known: dict[bytes, tuple[bytes, int, int, bool]] = {}
    for at in range(0, len(ids), 500):
        part = ids[at : at + 500]
        [(found,)] = connection.execute(
            "SELECT json_group_array(json_array(hex(id), hex(digest), seq, received, worker)) FROM events "
            f"WHERE id IN ({', '.join('?' * len(part))})",
            part,
        )
        for key, digest, seq, received, worker in json.loads(found):
            known[bytes.fromhex(key)] = (bytes.fromhex(digest), seq, received, seq <= marks.get(worker, seq))
    return known


def forgotten(connection: sqlite3.Connection, events: Sequence[Item]) -> set[bytes]:
    """Return the digests of the events that happened before their unit was forgotten."""
    if connection.execute("SELECT 1 FROM forgotten LIMIT 1").fetchone() is None:
        return set()
    [(salt,)] = connection.execute("SELECT salt FROM counted")
    before: dict[str, int] = {}
    for unit in {item.unit for item in events}:
        found = connection.execute("SELECT at FROM forgotten WHERE unit = ?", (unit_digest(unit, salt),)).fetchone()
        if found is not None:
            before[unit] = found[0]
    return {item.digest for item in events if item.time < before.get(item.unit, item.time)}


def unit_digest(unit: str, salt: bytes) -> bytes:
    """Return a keyed hash that stands for a unit that was forgotten."""
    return blake2b(unit.encode(), digest_size=ID_BYTES, key=salt).digest()


def _as_json(body: bytes) -> bytes:
    return msgspec.json.encode(_decode(body))[:DEAD_BYTES_MAX]


def _bury(connection: sqlite3.Connection, letters: list[_Letter]) -> None:
    if letters:
        connection.executemany("INSERT INTO dead(at, reason, unit, body) VALUES (?, ?, ?, ?)", letters)
        connection.execute("DELETE FROM dead WHERE seq <= (SELECT max(seq) FROM dead) - ?", (DEAD_ROWS_MAX,))
