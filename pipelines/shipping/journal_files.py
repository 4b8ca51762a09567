"""The journal's files as the shipper reads them: by stem and byte, since a file changes its suffix while its stem
stays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from features.events.journal import Line, Settled, decode_settled
from features.events.journal_frames import DECISION, FORMAT, HEAD_BYTES, SETTLED, frames
from serving.journal.files import DAMAGED, OPEN, SEALED

READ_BYTES_MAX = 64 << 20
"""Read of a file at once: twice what a journal file grows to."""

_decoder = msgspec.msgpack.Decoder(Line)


class JournalFile(NamedTuple):
    """A journal file, as it was listed."""

    stem: str
    size: int
    sealed: bool
    """Nobody writes it any more."""


def journal_folder(workspace_data: Path) -> Path:
    """Return where the servers of a workspace keep their journals."""
    return workspace_data / "journal"


def listed(folder: Path) -> list[JournalFile]:
    """Return all journal files, the oldest first; one that is renamed meanwhile is listed once."""
    found: dict[str, JournalFile] = {}
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    for path in paths:
        if path.suffix in (OPEN, SEALED, DAMAGED):
            try:
                found[path.stem] = JournalFile(path.stem, path.stat().st_size, path.suffix != OPEN)
            except FileNotFoundError:  # renamed, and then it has the other suffix; or deleted
                size = _size(folder, path.stem)
                if size is not None:
                    found[path.stem] = JournalFile(path.stem, size, False)
    return list(found.values())


def _size(folder: Path, stem: str) -> int | None:
    for suffix in (SEALED, DAMAGED, OPEN):
        try:
            return (folder / f"{stem}{suffix}").stat().st_size
        except FileNotFoundError:
            continue
    return None


def read_part(folder: Path, stem: str, begin: int, bytes_max: int) -> bytes | None:
    """At most so many bytes of a file from a byte on; None where the file is gone."""
    for _ in range(2):  # it may be renamed between two tries of names
        for suffix in (SEALED, DAMAGED, OPEN):
            try:
                with (folder / f"{stem}{suffix}").open("rb") as file:
                    return os.pread(file.fileno(), bytes_max, begin)
            except FileNotFoundError:
                continue
    return None


def lines(content: bytes, gaps: list[tuple[int, int]]) -> Iterator[tuple[int, Line | Settled | None, bool]]:
    """Yield the frames of a part of a file: the byte after each, its decision or sticky assignments, and whether it
    cannot be read.

    Frames of other kinds, blanked ones among them, have neither and are passed over.

    Args:
        gaps: takes (from, to) of the bytes that are in no frame; see `journal.frames`.
    """
    framed = missed = counted = 0
    for kind, version, body in frames(content, gaps):
        framed += HEAD_BYTES + len(body)
        while counted < len(gaps):
            missed += gaps[counted][1] - gaps[counted][0]
            counted += 1
        line: Line | Settled | None = None
        ours = kind in (DECISION, SETTLED)
        if ours and version == FORMAT:
            with contextlib.suppress(msgspec.MsgspecError):
                line = _decoder.decode(body) if kind == DECISION else decode_settled(body)
        yield framed + missed, line, ours and line is None
