"""The files of a journal: their names, the bounds of their folder, and the one that a process writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from features.common.clock import now_s

OPEN, SEALED, DAMAGED, REASON, LINEUP = ".open", ".lines", ".damaged", ".reason", ".lineup"
TURN = "turn"


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """Bounds of one journal folder."""

    file_bytes_max: int = 32 << 20
    """A file is sealed at this size; at twice the size, should the keeper be stuck, it takes no more."""
    folder_bytes_max: int = 4 << 30
    """The oldest sealed files, of whichever process, are deleted beyond it."""
    files_max: int = 1_024
    lineups_bytes_max: int = 512 << 20
    free_bytes_min: int = 64 << 20
    """With less space on the disk nothing is recorded: events and stores need the rest more."""
    keep_seconds: float = 0.2
    """How soon the keeper sees that a file is full or failed."""
    sync_seconds: float = 1.0
    """How much a power cut may cost."""


class JournalFile:
    """A file that this process writes, locked."""

    def __init__(self, folder: Path, limits: JournalLimits) -> None:
        while True:
            self.path = folder / f"{stamp(now_s())}-{secrets.token_hex(4)}{OPEN}"
            self.handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            # Whoever opens the folder right now may lock the file before us; it is empty, so they remove it.
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(self.handle).st_nlink:
                    break
            os.close(self.handle)
        self.bytes = self.bytes_synced = 0
        self.wanted_bytes = limits.file_bytes_max  # from here on the next file is wanted
        self.bytes_max = 2 * limits.file_bytes_max  # from here on this one takes no more


def stamp(seconds: float) -> str:
    """Return a moment as names of files begin with it: they sort by time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def seal(path: Path, size: int) -> None:
    """Seal a finished file by renaming it; remove it if it is empty."""
    path.rename(path.with_suffix(SEALED)) if size else path.unlink()
