"""The file of the embedded ledger: opened, watched, written to and made durable. One that is lost in use stays lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import TypeVar

import lmdb

from features.columns.rows import StoreUnavailable
from features.common.files import write_whole
from features.lmdb_store.environment import DATA, MAP_BYTES, MAP_BYTES_MAX, Environment, attach_folder

T = TypeVar("T")

LEDGER = "LEDGER"
CHECK_SECONDS = 0.2
"""How often the path is looked at: a ledger that was deleted or replaced is noticed within this time."""


class LedgerFile:
    """An LMDB environment of a ledger. Made when its folder is not there.

    Args:
        path: the folder.
        map_bytes, map_bytes_max: first and largest size of the memory map; it doubles as the ledger grows.
    """

    def __init__(
        self,
        path: Path | str,
        check_seconds: float = CHECK_SECONDS,
        map_bytes: int = MAP_BYTES,
        map_bytes_max: int = MAP_BYTES_MAX,
    ) -> None:
        self.path = Path(path)
        self._check_seconds = check_seconds
        self._map_bytes = map_bytes
        self._map_bytes_max = map_bytes_max
        self._check_at = 0.0
        self._environment: Environment | None = None
        self._bytes_seen = 0
        self._met = False
        self._why = ""
        # `sync` and `sweep` come from another thread; the map must not grow under a transaction.
        self._using = threading.RLock()

    def sync(self) -> None:
        """Make durable what was taken, and free the places of dead readers."""
        try:
            with self._using:
                self._opened()
                environment = attach_folder(
                    self.path.resolve(), self._map_bytes, sync=False
                )  # held: the loop may leave it meanwhile
            try:
                environment.env.sync(True)  # takes go on beside it
                environment.env.reader_check()
            finally:
                environment.release()
        except (lmdb.Error, OSError) as error:
            raise StoreUnavailable(f"cannot sync the ledger at {self.path}: {error}") from error

    def close(self) -> None:
        """Sync and leave the ledger."""
        with self._using:
            if self._environment is not None:
                try:
                    self.sync()
                except StoreUnavailable:
                    pass  # whoever cares has called `sync`; nothing more can be done here
            self._leave("the ledger was closed")
            self._check_at = float("inf")

    def _read(self, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        with self._using:
            environment = self._opened()
            try:
                transaction = environment.begin()
                try:
                    return work(transaction)
                finally:
                    transaction.abort()
            except (lmdb.Error, OSError) as error:
                raise self._failed("read", error) from error

    def _write(self, work: Callable[[lmdb.Transaction[bytes]], T]) -> T:
        """Do some work in a write transaction, again where the map had to grow."""
        with self._using:
            while True:
                environment = self._opened()
                try:
                    with environment.write() as transaction:
                        return work(transaction)
                except lmdb.MapFullError as error:
                    if not environment.grow(self._map_bytes_max):
                        raise StoreUnavailable(
                            f"cannot write to the ledger at {self.path}: it is full; raise its largest size,"
                            " `map_bytes_max`"
                        ) from error
                except (lmdb.Error, OSError) as error:
                    raise self._failed("write to", error) from error

    def _opened(self) -> Environment:
        if monotonic() >= self._check_at:
            self._check()
        environment = self._environment
        if environment is None:
            raise StoreUnavailable(self._why)
        # The file never shrinks by itself, and grows between two looks: to touch a page that was cut off would kill the
        # process.
        size = os.lseek(environment.file, 0, os.SEEK_END)
        if size != self._bytes_seen or size < environment.bytes_needed:
            if size < max(self._bytes_seen, environment.bytes_needed):
                raise self._failed("use", lmdb.CorruptedError("the file was cut off"))
            self._bytes_seen = size
        return environment

    def _check(self) -> None:
        """Check that the path still leads to the ledger that is open; otherwise open the one that it leads to."""
        self._check_at = monotonic() + self._check_seconds
        environment = self._environment
        if environment is not None:
            try:
                if environment.same:
                    environment.measure()
                    return
                self._leave("")
            except lmdb.Error as error:
                self._failed("use", error)
                return
        data = self.path / DATA
        try:
            if (self._met or (self.path / LEDGER).exists()) and not (data.exists() and data.stat().st_size):
                self._why = (
                    f"the ledger at {self.path} has lost its file; put it back, or stop the servers and remove the"
                    " folder to begin without histories"
                )
                return
            self._environment = attach_folder(self.path.resolve(), self._map_bytes, sync=False)
            if not (self.path / LEDGER).exists():
                write_whole(
                    self.path / LEDGER, b"The contact ledger of Opportune: do not delete while a server runs.\n"
                )
            self._met = True
        except (lmdb.Error, OSError) as error:
            self._failed("open", error)

    def _failed(self, what: str, error: Exception) -> StoreUnavailable:
        self._leave(f"cannot {what} the ledger at {self.path}: {error}")
        return StoreUnavailable(self._why)

    def _leave(self, why: str) -> None:
        environment, self._environment, self._why, self._bytes_seen = self._environment, None, why, 0
        if environment is not None:
            environment.release()
