"""What waits to be shipped: how many decisions and events, and since when."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from features.events import log as event_log
from features.events.journal_frames import FRAME_BYTES_MAX, HEAD_BYTES, MAGIC
from features.workspace.workspace import Workspace
from pipelines.shipping.journal_files import journal_folder, lines, listed, read_part
from pipelines.shipping.state import Shipped

ROWS_COUNTED_MAX = 1_000_000
"""Decisions that are counted one by one; beyond, there are more."""
_COUNTED_BYTES = 16 << 20


class Waiting(NamedTuple):
    """Decisions and events that were not shipped."""

    oldest: int | None
    """When the oldest was made or received, microseconds since 1970; None where none waits."""
    rows: int


def waiting(workspace: Workspace, state: Shipped) -> Waiting:
    """Return what waits beyond a state of the shipper."""
    moments: list[int] = []
    count = 0
    folder = journal_folder(workspace.data)
    for file in listed(folder):
        begin = state.journals.get(file.stem, 0)
        if begin < file.size:
            first = next(
                (
                    line
                    for _, line, _ in lines(read_part(folder, file.stem, begin, 2 * FRAME_BYTES_MAX) or b"", [])
                    if line
                ),
                None,
            )
            if first is not None:
                moments.append(first.at)
                count += _frames(folder, file.stem, begin, ROWS_COUNTED_MAX - count)
    log = event_log.event_folder(workspace.data)
    if event_log.exists(log):
        with event_log.reading(log) as connection:
            events, oldest = connection.execute(
                "SELECT count(*), min(received) FROM events WHERE seq > ?", (state.events,)
            ).fetchone()
        count += events
        moments += [] if oldest is None else [oldest]
    return Waiting(min(moments, default=None), count)


def _frames(folder: Path, stem: str, begin: int, most: int) -> int:
    """Frames of a file from a byte on, by their heads alone; up to what is damaged."""
    count = 0
    while count < most and (content := read_part(folder, stem, begin, _COUNTED_BYTES)):
        at = 0
        while content.startswith(MAGIC, at) and count < most:
            length = HEAD_BYTES + int.from_bytes(content[at + 8 : at + 12], "little")
            if at + length > len(content):
                break
            at, count = at + length, count + 1
        if not at:
            break
        begin += at
    return count
