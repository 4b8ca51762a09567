"""Frames of the journal: how lines lie in a file.

A frame is a head (magic, checksum, length, kind, version) and a body in MessagePack. A file is frames one after another
and nothing else, so that whatever a killed process left behind is still a file: a reader takes every whole frame,
wherever it stands, and says which bytes were none.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

DECISION = 1
"""Kind of a frame. Others may come (events); a reader of decisions passes over them."""
SETTLED = 2
"""Kind of a frame that holds sticky assignments."""
BLANK = 0
"""Kind of a frame whose line was forgotten: zeros, as long as it was, so that those behind it keep their places in the
file.
"""
FORMAT = 1
"""Version of a body. Raised only when older bodies would be misread."""
FRAME_BYTES_MAX = 1 << 20

MAGIC = b"\xf7oj\n"
HEAD = struct.Struct("<4sIIBB")
HEAD_BYTES = HEAD.size
CHECKED_FROM = 8  # the checksum covers what follows it: length, kind, version, body


def blank_frame(body_bytes: int) -> bytes:
    """Return a whole frame that says nothing."""
    frame = bytearray(HEAD_BYTES + body_bytes)
    HEAD.pack_into(frame, 0, MAGIC, 0, body_bytes, BLANK, FORMAT)
    frame[4:8] = zlib.crc32(frame[CHECKED_FROM:]).to_bytes(4, "little")
    return bytes(frame)


def frames(data: bytes, gaps: list[tuple[int, int]]) -> Iterator[tuple[int, int, memoryview]]:
    """Yield every whole frame of a file as (kind, version, body).

    `gaps` takes (from, to) of the bytes that are in no frame. A gap that reaches the end is what a killed writer
    leaves, or what is being written now; any other is damage.
    """
    at, size, view = 0, len(data), memoryview(data)
    while at < size:
        head = _head_at(view, at)
        if head is not None:
            length, kind, version = head
            yield kind, version, view[at + HEAD_BYTES : at + HEAD_BYTES + length]
            at += HEAD_BYTES + length
            continue
        start = at
        at = data.find(MAGIC, start + 1)
        while at >= 0 and _head_at(view, at) is None:
            at = data.find(MAGIC, at + 1)
        at = size if at < 0 else at
        gaps.append((start, at))


def damage(content: bytes) -> str:
    """Return why a file that nobody writes holds more than frames and a torn end; empty when it does not.

    Torn ends are what a killed writer or a power cut leaves: the beginning of one frame, or zeros.
    """
    gaps: list[tuple[int, int]] = []
    whole = sum(1 for _ in frames(content, gaps))
    if gaps and gaps[-1][1] == len(content):
        tail = content[gaps[-1][0] :]
        if len(tail) <= FRAME_BYTES_MAX and (MAGIC.startswith(tail[: len(MAGIC)]) or not tail.strip(b"\0")):
            gaps.pop()
    return (
        f"expected frames only, got other bytes in {len(gaps)} places: {gaps[:10]}; {whole} frames are whole"
        if gaps
        else ""
    )


def _head_at(view: memoryview, at: int) -> tuple[int, int, int] | None:
    """Return length of the body, kind and version of the frame that begins here; None when no whole frame does."""
    if at + HEAD_BYTES > len(view):
        return None
    magic, checksum, length, kind, version = HEAD.unpack_from(view, at)
    end = at + HEAD_BYTES + length
    if (
        magic != MAGIC
        or length > FRAME_BYTES_MAX
        or end > len(view)
        or zlib.crc32(view[at + CHECKED_FROM : end]) != checksum
    ):
        return None
    return length, kind, version
