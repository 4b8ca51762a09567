"""Blanking the lines of customers who are to be forgotten in what a journal file holds; all other bytes stay as and
where they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from features.events.journal import Line, decode_settled
from features.events.journal_frames import BLANK, DECISION, FORMAT, HEAD_BYTES, SETTLED, blank_frame, frames


class Blanked(NamedTuple):
    """A file's bytes without some customers' lines, and how many lines those were; damaged parts that named one count
    too.
    """

    content: bytes
    lines: int


class _Whose(msgspec.Struct, array_like=True):
    """The beginning of a `Line`: all that is needed to tell whose it is."""

    decision_id: str
    at: int
    customer_id: str


_decode = msgspec.msgpack.Decoder(_Whose).decode
assert Line.__struct_fields__[:3] == _Whose.__struct_fields__


def blanked(content: bytes, units: Collection[str]) -> Blanked:
    """Blank the frames of these units, and zero bytes that are in no whole frame where they hold one of the ids.

    Args:
        units: customer ids, anonymous units and accounts with their mark.
    """
    names = [unit.removeprefix("~").encode() for unit in units]
    if not any(name in content for name in names):
        return Blanked(content, 0)
    changed, count, at = bytearray(content), 0, 0
    gaps: list[tuple[int, int]] = []
    for kind, version, body in frames(content, gaps):
        if gaps and gaps[-1][0] == at:
            at = gaps[-1][1]
        end = at + HEAD_BYTES + len(body)
        if kind != BLANK and any(name in content[at:end] for name in names) and _is_theirs(kind, version, body, units):
            changed[at:end] = blank_frame(len(body))
            count += 1
        at = end
    for since, until in gaps:
        if any(name in content[since:until] for name in names):
            changed[since:until] = bytes(
                until - since
            )  # what a torn or damaged frame says of whom cannot be told apart
            count += 1
    return Blanked(bytes(changed), count)


def _is_theirs(kind: int, version: int, body: memoryview, units: Collection[str]) -> bool:
    """Return whether a frame that holds one of the ids, perhaps within another, is theirs; one that nobody can read
    is.
    """
    if kind not in (DECISION, SETTLED) or version != FORMAT:
        return False
    try:
        if kind == SETTLED:
            return decode_settled(body).unit in units
        return _decode(body).customer_id in units
    except msgspec.MsgspecError:
        return True
