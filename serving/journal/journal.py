"""The journal: every answered decision, one file of frames a process, written before the answer leaves.

    <folder>/20261122T101530.123456Z-1a2b3c4d.open       being written; locked (flock) by its process
    <folder>/20261122T101018.654321Z-9e8f7a6b.lines      sealed: never written again
    <folder>/20261122T100000.000000Z-0c1d2e3f.damaged    set aside, beside a .reason; its whole frames can still be read
    <folder>/5f3a0b1c2d3e4f5061728394a5b6c7d8.lineup     the offers that lines of any process refer to by position
    <folder>/turn                                        touched: all processes seal what they have written, at once

`append` is one write into the page cache: it survives the death of the process, not of the machine. It never waits for
the disk, for another process, or for a thread. A keeper thread does what may wait: it opens the next file ahead, seals
the last, syncs (so that a power cut costs about `sync_seconds`), and holds the folder to its bounds.

When a write fails, decisions go on unrecorded and are counted; the keeper opens a new file as soon as the disk takes
one.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from features.common.files import is_full, told_full, told_short, write_whole
from features.events.journal import Line, Lineup, Settled, write_frame
from features.events.journal_frames import FRAME_BYTES_MAX, damage
from serving.journal.files import DAMAGED, LINEUP, OPEN, REASON, TURN, JournalFile, JournalLimits, seal
from serving.journal.retention import retain

logger = logging.getLogger("opportune.journal")

RETAIN_SECONDS = 10.0
"""How often the folder is held to its bounds."""


class Journal:
    """The journal of one process. `append` belongs to one thread, that of the event loop; make it with `open`, after
    any fork.

    Attributes:
        appended, failed, bytes: lines written, lines that could not be, and bytes of those written.
        rotated, deleted, set_aside: files sealed for the next one, deleted for space, and found damaged.
        complaint: what the disk refused, for people; empty once lines are recorded again.
    """

    def __init__(self, folder: Path, limits: JournalLimits) -> None:
        self.folder, self.limits = folder, limits
        self.appended = self.failed = self.bytes = self.rotated = self.deleted = self.set_aside = 0
        self.complaint = ""
        self._buffer = bytearray()
        self._file: JournalFile | None = None  # set by `append` alone, once the keeper runs
        self._next: JournalFile | None = None  # set by the keeper while it is None, cleared by `append` when it is not
        self._done: deque[JournalFile] = deque()  # left by `append`, sealed by the keeper
        self._lineup: Path | None = None
        self._hand = threading.Lock()  # on the file in use; free but for the moment in which the keeper turns it
        self._turned = self._asked_to_turn()
        self._seen, self._told = (0, 0), ""
        self._synced = self._retained = time.monotonic()
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="journal-keeper", daemon=True)

    @classmethod
    def open(cls, folder: Path, limits: JournalLimits | None = None) -> Journal:
        """Open a folder, blocking: takes in what dead processes left, reading it. A disk that refuses is a complaint,
        not an error.
        """
        journal = cls(folder, limits or JournalLimits())
        for step in (journal._inherit, journal._hold_to_bounds, journal._prepare):
            journal._try(step)
        journal._file, journal._next = journal._next, None
        journal._keeper.start()
        return journal

    def append(self, line: Line | Settled) -> bool:
        """Record a decision, or sticky assignments; True when it will survive the death of this process. Never raises
        for what a disk may do.
        """
        with self._hand:
            return self._append(line)

    def _append(self, line: Line | Settled) -> bool:
        file = self._file
        if file is None or file.bytes >= file.wanted_bytes:
            file = self._turn(file)
        if file is None or file.bytes >= file.bytes_max:
            return self._refused(self.complaint or "the file is full and there is no other yet")
        write_frame(line, self._buffer)
        size = len(self._buffer)
        if size > FRAME_BYTES_MAX:
            return self._refused(f"expected a line of at most {FRAME_BYTES_MAX} bytes, got {size}")
        refusal: OSError | None = None
        try:
            written = os.write(file.handle, self._buffer)
        except OSError as error:
            written, refusal = 0, error
        if written != size:
            # A disk that takes a part is full.
            full = refusal is None or is_full(refusal)
            why = told_full(self.folder) if full else str(refusal)
            self._file = None
            self._done.append(file)
            return self._refused(f"{file.path}: {why}")
        file.bytes += size
        self.bytes, self.appended = self.bytes + size, self.appended + 1
        return True

    def _refused(self, complaint: str) -> bool:
        self.failed, self.complaint = self.failed + 1, complaint
        return False

    def _turn(self, file: JournalFile | None) -> JournalFile | None:
        """Return the next file if the keeper has one ready, else the one in use."""
        if self._next is None:
            return file
        self._file, self._next = self._next, None
        if file is not None:
            self._done.append(file)
            self.rotated += 1
        return self._file

    def keep(self, lineup: Lineup) -> str:
        """Keep the offers that lines refer to; its digest, for `Versions`. Blocking: call it where a catalogue is
        loaded.

        Where the disk refuses it, lines are still complete for the offers they show, and for those only.
        """
        self._lineup = self.folder / f"{(digest := lineup.digest)}{LINEUP}"
        if not self._lineup.exists():
            self._try(partial(write_whole, self._lineup, msgspec.msgpack.encode(lineup)))
        return digest

    def close(self) -> None:
        """Seal the file in use, durably. What is appended afterwards fails."""
        if not self._stop.is_set():
            self._stop.set()
            self._keeper.join()
            self._done += [file for file in (self._file, self._next) if file is not None]
            self._file = self._next = None
            while self._done:
                self._try(self._seal)

    # What follows belongs to the keeper, or to `open` and `close` while it does not run.

    def _keep(self) -> None:
        while not self._stop.wait(self.limits.keep_seconds):
            file, now = self._file, time.monotonic()
            if file is not None and now - self._synced >= self.limits.sync_seconds and file.bytes > file.bytes_synced:
                self._synced = now
                self._try(partial(self._sync, file))  # before sealing, which may close it
            if (asked := self._asked_to_turn()) != self._turned and self._turn_now():
                self._turned = asked
            while self._done:
                self._try(self._seal)
            if self._next is None and (file is None or 2 * file.bytes >= file.wanted_bytes):
                self._try(self._prepare)
            if now - self._retained >= RETAIN_SECONDS:
                self._retained = now
                self._try(self._hold_to_bounds)
            self._tell()

    def _asked_to_turn(self) -> int:
        """Return when somebody asked last to turn, in nanoseconds since 1970; 0 when nobody ever did."""
        try:
            return (self.folder / TURN).stat().st_mtime_ns
        except OSError:
            return 0

    def _turn_now(self) -> bool:
        """Put the next file in place of one that has lines; False where there is no next one yet."""
        if self._next is None:
            self._try(self._prepare)
        with self._hand:
            file = self._file
            return file is None or not file.bytes or (self._next is not None and self._turn(file) is not file)

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except OSError as error:
            why = told_full(self.folder) if is_full(error) else error.strerror or error
            self.complaint = f"{error.filename or self.folder}: {why}"

    def _tell(self) -> None:
        """Log a complaint once, and its end: lines were appended since the last look, and none failed."""
        (appended, failed), self._seen = self._seen, (self.appended, self.failed)
        if self.appended > appended and self.failed == failed and self._file is not None and self._file.wanted_bytes:
            self.complaint = ""
        if self.complaint != self._told:
            self._told = self.complaint
            logger.error(
                "%s; %d decisions were not recorded", self.complaint or "decisions are recorded again", self.failed
            )

    def _prepare(self) -> None:
        """Open the file that comes next."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        if self._disk_has_room():
            self._next = JournalFile(self.folder, self.limits)

    def _disk_has_room(self) -> bool:
        free = shutil.disk_usage(self.folder).free
        if short := free < self.limits.free_bytes_min:
            self.complaint = told_short(self.folder, self.limits.free_bytes_min, free)
        return not short

    def _sync(self, file: JournalFile) -> None:
        size = file.bytes
        try:
            os.fdatasync(file.handle)
        except OSError:
            file.wanted_bytes = 0  # what a failed sync leaves is unknown: go on in another file
            raise
        file.bytes_synced = size
        if not self._disk_has_room():
            file.wanted_bytes = file.bytes_max = 0

    def _seal(self) -> None:
        """Make the oldest file that is done durable and give it its last name; one that never held a line is
        removed.
        """
        file = self._done.popleft()
        try:
            if file.bytes:
                os.truncate(file.handle, file.bytes)  # a write that failed may have left a part
                os.fdatasync(file.handle)
            seal(file.path, file.bytes)
        finally:
            os.close(file.handle)

    def _inherit(self) -> None:
        """Seal the files of dead processes; set aside what holds more than frames and the torn end of a killed
        writer.
        """
        for path in self.folder.glob(f"*{OPEN}"):
            with contextlib.suppress(BlockingIOError, FileNotFoundError):  # its process lives, or sealed it in between
                self._take_in(path)

    def _take_in(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            content = path.read_bytes()
            reason = damage(content)
            if not reason:
                return seal(path, len(content))
            self.set_aside += 1
            logger.error("%s is set aside: %s", path, reason)
            path.rename(path.with_suffix(DAMAGED))
            return write_whole(path.with_suffix(REASON), reason.encode())
        finally:
            os.close(handle)

    def _hold_to_bounds(self) -> None:
        for _ in retain(self.folder, self.limits, self._lineup):
            self.deleted += 1
