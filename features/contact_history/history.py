"""The contact history of one customer: what was offered, seen and done, as entries of fixed size.

A history is bytes: entries of 48 bytes, little-endian, in the order of their arrival. Every id is a hash, so that an
entry is small, says nothing by itself, and is compared without decoding. The same bytes lie in LMDB and in Redis.

    f8 time      seconds since 1970: of the take, the impression, the outcome
    u8 offer     `key_of` the offer's id
    u8 decision  `key_of` the decision's id; 0 none
    u8 group     `key_of` the offer's group; 0 none
    u4 channel   `word_of` the channel
    u4 what      `word_of` the outcome's type; 0 for contacts. In a gap: the kind of the entries that are missing
    u4 keep      seconds for which some limit or pause looks back at the entry
    u1 kind      DECISION, IMPRESSION, OUTCOME or GAP
    u1 seen      1 when the impression of a DECISION was reported
    u2           0

A history is bounded. Where it must drop an entry that a limit still looks back at, it leaves a GAP with that entry's
time: a limit whose window reaches behind a gap is taken as exhausted. So a full history refuses too much, and never too
little.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DECISION, IMPRESSION, OUTCOME, GAP = 1, 2, 3, 4
"""Kinds: taken, that is shown in an answer; seen without a known decision; what came of it; where entries are missing.
"""

ENTRY = struct.Struct("<dQQQIIIBBH")
ENTRY_BYTES = ENTRY.size
ENTRY_DTYPE = np.dtype(
    [
        ("time", "<f8"),
        ("offer", "<u8"),
        ("decision", "<u8"),
        ("group", "<u8"),
        ("channel", "<u4"),
        ("what", "<u4"),
        ("keep", "<u4"),
        ("kind", "u1"),
        ("seen", "u1"),
        ("unused", "<u2"),
    ]
)

CONTACTS_MAX = 384
"""Bound on the DECISION and IMPRESSION entries of one history, and so on what a limit may allow."""
OUTCOMES_MAX = 128
"""Bound on the OUTCOME entries of one history, and so on the outcomes that a pause may wait for; apart, so that neither
drives the other out.
"""
HISTORY_ENTRIES_MAX = CONTACTS_MAX + OUTCOMES_MAX + 2
_DOUBLE = struct.Struct("<d")


def key_of(text: str) -> int:
    """Return a stable hash of an id: BLAKE2b of its UTF-8 with 8 bytes, little-endian; never 0."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") or 1


def word_of(text: str) -> int:
    """Return the same in 32 bits, for channels and types of outcomes, of which there are few; never 0."""
    return key_of(text) & 0xFFFF_FFFF or 1


def entries(history: bytes) -> NDArray[np.void]:
    """Return a history as a read-only array of `ENTRY_DTYPE`, shape (entries,)."""
    return np.frombuffer(history, ENTRY_DTYPE) if history else np.empty(0, ENTRY_DTYPE)


class Entry(NamedTuple):
    """One entry, decoded; the fields are told above."""

    time: float
    offer: int
    decision: int
    group: int
    channel: int
    what: int
    keep: int
    kind: int
    seen: int
    unused: int = 0

    def pack(self) -> bytes:
        return ENTRY.pack(*self)

    @staticmethod
    def unpack_time(history: bytes, start: int) -> float:
        """Return the time of the entry at a byte, without the rest."""
        return float(_DOUBLE.unpack_from(history, start)[0])


def unpacked(history: bytes) -> list[Entry]:
    """Return the entries of a history."""
    return [Entry(*values) for values in ENTRY.iter_unpack(history)]
