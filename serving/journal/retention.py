"""Holding a journal's folder to its bounds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from features.common.clock import written_s
from serving.journal.files import DAMAGED, LINEUP, REASON, SEALED, JournalLimits, stamp

LINEUP_GRACE_SECONDS = 3_600.0
"""A lineup is kept this much longer than the oldest lines."""


def retain(folder: Path, limits: JournalLimits, lineup: Path | None) -> Iterator[Path]:
    """Delete the oldest files beyond the bounds, and lineups that are older than all lines; yield each file that was
    deleted.

    Args:
        lineup: the one that is in use.
    """
    found = _sizes(sorted((*folder.glob(f"*{SEALED}"), *folder.glob(f"*{DAMAGED}"))))
    total, count = sum(size for _, size, _ in found), len(found)
    for path, size, _ in found:
        if total <= limits.folder_bytes_max and count <= limits.files_max:
            break
        path.unlink(missing_ok=True)
        path.with_suffix(REASON).unlink(missing_ok=True)
        total, count = total - size, count - 1
        yield path
    if lineup is not None and lineup.exists():
        os.utime(lineup)  # in use: the newest
    oldest = min((path.name for path in folder.glob("*Z-*")), default="")
    room = limits.lineups_bytes_max
    for path, size, seconds in sorted(_sizes(folder.glob(f"*{LINEUP}")), key=lambda found: -found[2]):
        room -= size
        if room < 0 or stamp(seconds + LINEUP_GRACE_SECONDS) < oldest:
            path.unlink(missing_ok=True)


def _sizes(paths: Iterable[Path]) -> list[tuple[Path, int, float]]:
    """Return each file with its size and when it was last written, without those that were deleted meanwhile."""
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found.append((path, stat.st_size, written_s(stat)))
    return found
