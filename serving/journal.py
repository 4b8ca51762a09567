"""The journal: every answered decision, one file of frames a process, written before the answer leaves.

    <folder>/20261122T101530.123456Z-1a2b3c4d.open       being written; locked (flock) by its process
    <folder>/20261122T101018.654321Z-9e8f7a6b.lines      sealed: complete, never written again
    <folder>/20261122T100000.000000Z-0c1d2e3f.damaged    set aside, beside a .reason; its whole frames can still be read
    <folder>/5f3a…​.lineup                                the offers that lines of any process refer to by position

`append` is one write into the page cache: it survives the death of the process, not of the machine. It never waits for the disk,
for another process, or for a thread. A keeper thread does what may wait: it opens the next file ahead, seals the last, syncs
(so that a power cut costs `SYNC_SECONDS`), takes in what dead processes left, and holds the folder to its bounds.

When a write fails, decisions go on unrecorded and are counted; the keeper opens a new file as soon as the disk takes one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from features.files import write_whole
from features.journal_lines import FRAME_BYTES_MAX, Line, Lineup, frames, write_frame

logger = logging.getLogger("opportune.journal")

OPEN, SEALED, DAMAGED, LINEUP = ".open", ".lines", ".damaged", ".lineup"

KEEP_SECONDS = 0.2
SYNC_SECONDS = 1.0
SWEEP_SECONDS = 10.0
LINEUP_GRACE_SECONDS = 3_600.0
"""A lineup is kept this much longer than the oldest lines: clocks of processes differ a little."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one journal folder."""

    file_bytes_max: int = 64 << 20
    """A file is sealed at this size; at twice the size, should the keeper be stuck, nothing more is written."""
    folder_bytes_max: int = 4 << 30
    """The oldest sealed files of all processes are deleted beyond it."""
    files_max: int = 4_096
    free_bytes_min: int = 64 << 20
    """With less space on the disk no file is opened, and the one in use is closed: events and stores need it more."""


class _File:
    """A file that this process writes. `limit_bytes` 0 asks for the next one."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        while True:
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            self.path = folder / f"{stamp}-{secrets.token_hex(4)}{OPEN}"
            self.handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(BlockingIOError):  # a sweep may lock it first, and then removes it: it is empty
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(self.handle).st_nlink:
                    break
            os.close(self.handle)
        self.bytes, self.bytes_synced, self.limit_bytes = 0, 0, limit_bytes


class Journal:
    """The journal of one process. `append` belongs to one thread, that of the event loop; make it with `open`.

    Attributes:
        appended, failed, bytes: lines written, lines that could not be, and bytes of those written.
        rotated, deleted, set_aside: files sealed for the next one, deleted for space, and found damaged.
        complaint: why lines are failing, for people; empty when they are not.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.appended = self.failed = self.bytes = self.rotated = self.deleted = self.set_aside = 0
        self.complaint = ""
        self._buffer = bytearray()
        self._file: _File | None = None  # set by `append` alone once the keeper runs
        self._next: _File | None = None  # set by the keeper, taken by `append`
        self._done: deque[_File] = deque()  # left by `append`, sealed by the keeper
        self._lineup: Path | None = None
        self._told = ""
        self._synced = self._swept = time.monotonic()
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="journal-keeper", daemon=True)

    @classmethod
    def open(cls, folder: Path, limits: Limits | None = None) -> Journal:
        """Open a folder, blocking; takes in what dead processes left. A disk that refuses is a complaint, not an error."""
        journal = cls(folder, limits or Limits())
        journal._try(journal._sweep)
        journal._try(journal._prepare)
        journal._file, journal._next = journal._next, None
        journal._keeper.start()
        return journal

    def append(self, line: Line) -> bool:
        """Record a decision; True when it will survive the death of this process. Never raises for what a disk may do."""
        file = self._file
        if file is None or file.bytes >= file.limit_bytes:
            file = self._turn(file)
        write_frame(line, self._buffer)
        size = len(self._buffer)
        if file is None or size > FRAME_BYTES_MAX or file.bytes >= 2 * self.limits.file_bytes_max:
            self.failed += 1
            return False
        try:
            written = os.write(file.handle, self._buffer)
        except OSError as error:
            written, self.complaint = 0, f"{file.path}: {error.strerror}"
        if written != size:
            self.failed += 1
            self.complaint = self.complaint or f"{file.path}: the disk took {written} of {size} bytes"
            self._file = None
            self._done.append(file)
            return False
        file.bytes += size
        self.bytes += size
        self.appended += 1
        return True

    def _turn(self, file: _File | None) -> _File | None:
        """The next file if the keeper has one ready, else the one in use."""
        following, self._next = self._next, None
        if following is None:
            return file
        self._file = following
        if file is not None:
            self._done.append(file)
            self.rotated += 1
        return following

    def keep(self, lineup: Lineup) -> str:
        """Keep the offers that lines refer to; its digest, for `Versions`. Blocking: call it where a catalogue is loaded.

        A disk that refuses is a complaint: lines are complete for the offers they show, and for those only.
        """
        digest = lineup.digest
        path = self.folder / f"{digest}{LINEUP}"
        self._lineup = path
        self._try(lambda: None if path.exists() else write_whole(path, msgspec.msgpack.encode(lineup)))
        return digest

    def close(self) -> None:
        """Seal the file in use, durably. Nothing may be appended afterwards."""
        if not self._stop.is_set():
            self._stop.set()
            self._keeper.join()
            self._done += [file for file in (self._file, self._next) if file is not None]
            self._file = self._next = None
            self._try(self._seal)

    # What follows belongs to the keeper, or to `open` and `close` while it does not run.

    def _keep(self) -> None:
        while not self._stop.wait(KEEP_SECONDS):
            file, now = self._file, time.monotonic()
            self._try(self._seal)
            if file is not None and now - self._synced >= SYNC_SECONDS and file.bytes > file.bytes_synced:
                self._synced = now
                self._try(lambda file=file: self._sync(file))  # type: ignore[misc]
            if self._next is None and (file is None or 2 * file.bytes >= file.limit_bytes):
                self._try(self._prepare)
            if now - self._swept >= SWEEP_SECONDS:
                self._swept = now
                self._try(self._sweep)
            self._tell()

    def _try(self, step: object) -> None:
        assert callable(step)
        try:
            step()
        except OSError as error:
            self.complaint = f"{error.filename or self.folder}: {error.strerror or error}"

    def _tell(self) -> None:
        """Log a complaint once, and its end."""
        if self.complaint != self._told:
            if self.complaint:
                logger.error("decisions are answered and not recorded: %s", self.complaint)
            else:
                logger.info("decisions are recorded again; %d were not", self.failed)
            self._told = self.complaint

    def _prepare(self) -> None:
        """Open the file that comes next."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        free = shutil.disk_usage(self.folder).free
        if free < self.limits.free_bytes_min:
            self.complaint = f"{self.folder}: expected {self.limits.free_bytes_min} bytes free on the disk, got fewer: make room"
            return
        self._next = _File(self.folder, self.limits.file_bytes_max)

    def _sync(self, file: _File) -> None:
        size = file.bytes
        try:
            os.fdatasync(file.handle)
        except OSError:
            file.limit_bytes = 0  # what a failed sync left is unknown: no more into this file
            raise
        file.bytes_synced = size
        if shutil.disk_usage(self.folder).free < self.limits.free_bytes_min:
            file.limit_bytes = 0

    def _seal(self) -> None:
        """Make the files that are done durable and give them their last name; what never held a line is removed."""
        while self._done:
            file = self._done.popleft()
            try:
                if file.bytes:
                    os.truncate(file.handle, file.bytes)  # a write that failed may have left a part
                    os.fdatasync(file.handle)
                _rest(file.path, file.bytes)
            finally:
                os.close(file.handle)

    def _sweep(self) -> None:
        """Take in the files of dead processes, and delete the oldest beyond the bounds."""
        for path in self.folder.glob(f"*{OPEN}"):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                self._inherit(path)
        if self._lineup is not None and self._lineup.exists():
            os.utime(self._lineup)
        self._retain()

    def _inherit(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists():  # its process sealed it in between
                return
            gaps: list[tuple[int, int]] = []
            content = path.read_bytes()
            whole = sum(1 for _ in frames(content, gaps))
            torn = gaps.pop() if gaps and gaps[-1][1] == len(content) else (0, 0)
            if not gaps and torn[1] - torn[0] <= FRAME_BYTES_MAX and (whole or not content or torn[0]):
                _rest(path, len(content))
                return
            gaps += [torn] if torn[1] else []
            reason = f"expected frames only, got {len(gaps)} stretches of other bytes: {gaps[:10]}; {whole} frames are whole"
            write_whole(path.with_suffix(".reason"), reason.encode())
            path.rename(path.with_suffix(DAMAGED))
            self.set_aside += 1
            logger.error("%s is set aside: %s", path, reason)
        finally:
            os.close(handle)

    def _retain(self) -> None:
        files = sorted((*self.folder.glob(f"*{SEALED}"), *self.folder.glob(f"*{DAMAGED}")))
        sizes = []
        for path in files:
            with contextlib.suppress(FileNotFoundError):  # another process deletes too
                sizes.append((path, path.stat().st_size))
        total, count = sum(size for _, size in sizes), len(sizes)
        for path, size in sizes:
            if total <= self.limits.folder_bytes_max and count <= self.limits.files_max:
                break
            path.unlink(missing_ok=True)
            path.with_suffix(".reason").unlink(missing_ok=True)
            total, count, self.deleted = total - size, count - 1, self.deleted + 1
        oldest = min((path.name for path in self.folder.glob("*Z-*")), default="")
        if oldest:
            since = datetime.strptime(oldest[:22], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC).timestamp() - LINEUP_GRACE_SECONDS
            for path in self.folder.glob(f"*{LINEUP}"):
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < since:
                        path.unlink()


def _rest(path: Path, size: int) -> None:
    """The last name of a file that nobody writes."""
    if size:
        path.rename(path.with_suffix(SEALED))
    else:
        path.unlink()
