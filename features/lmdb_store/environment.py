"""The embedded store on disk: generations of one LMDB environment, what its keys begin with, and its transactions.

    <path>/CURRENT                 name of the generation that is read and written
    <path>/g-00000001/data.mdb     rows, words, schemas, meta; more kinds of records may be added, read in the same
    transaction <path>/g-00000001/lock.mdb

A rebuild fills a new generation and swaps it in with one rename of CURRENT; readers notice and reopen. The lock file
moves with its data, which a rename of the data alone would not give.

Kinds of records are told apart by the first byte of their keys, not by LMDB's named databases: to open one of those, a
process must wait for whoever is writing.
"""

from __future__ import annotations

import mmap
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from features.columns.rows import StoreUnavailable
from features.common.files import write_once, write_whole
from features.lmdb_store.record import DamagedRecord, Schema

CURRENT = "CURRENT"
DATA = "data.mdb"
GENERATION = "g-{:08d}"

ROWS, WORDS, SCHEMAS, META = b"r", b"w", b"s", b"m"
"""First byte of the keys: entity key -> record; id -> text, UTF-8; id -> schema; name -> value. Words and schemas are
append-only.
"""

READERS_MAX = 1024
MAP_BYTES = 1 << 30
"""First size of the memory map; it doubles as the store grows. It costs address space, not memory or disk."""
MAP_BYTES_MAX = 1 << 36
WORDS_MAX = 2_000_000
"""Bound on distinct categories and keys: each costs every process some 150 bytes."""

_attached: dict[str, Environment] = {}
_attaching = threading.Lock()


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turns what LMDB and the file system throw into StoreUnavailable."""
    try:
        yield
    except lmdb.MapFullError as error:
        raise StoreUnavailable(
            f"cannot {what}: the online store is full; raise its largest size, `map_bytes_max`"
        ) from error
    except (lmdb.Error, OSError, DamagedRecord) as error:
        raise StoreUnavailable(f"cannot {what}: {error}") from error


class Environment:
    """One generation, open in this process: LMDB allows one handle a process, so readers and writers share it by
    `attach`.
    """

    def __init__(self, folder: Path, map_bytes: int, sync: bool = True) -> None:
        # Durable commits: a writer's batch is one commit, so that the sync costs it little, and a power cut tears
        # nothing. The contact ledger, which commits once a take, syncs beside it.
        self.folder = folder
        self.holders = 0
        self.bytes_needed = 2 * mmap.PAGESIZE
        self.process = os.getpid()
        self.env = lmdb.open(str(folder), map_size=map_bytes, max_readers=READERS_MAX, max_spare_txns=4, sync=sync)
        try:
            self.file = os.open(folder / DATA, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.measure()
                self.env.reader_check()
            except BaseException:
                os.close(self.file)
                raise
        except BaseException:
            self.env.close()
            raise
        found = os.fstat(self.file)
        self.identity = (found.st_dev, found.st_ino)
        self.remapping = threading.Lock()

    def measure(self) -> None:
        """Notes how long the file must be: reading a mapped page that was cut off would kill the process.

        Raises:
            lmdb.Error: when it is shorter than what was committed.
        """
        if self.whole():  # or else even LMDB's own two head pages may be gone
            self.bytes_needed = (self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"]
        if not self.whole():
            raise lmdb.CorruptedError(f"{self.folder / DATA} is shorter than what was written")

    def whole(self) -> bool:
        """Return whether the file still reaches as far as it did when last measured; costs 0.2 us."""
        return os.lseek(self.file, 0, os.SEEK_END) >= self.bytes_needed

    @property
    def same(self) -> bool:
        """Whether the path still leads to this file."""
        try:
            found = os.stat(self.folder / DATA)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self.identity

    def begin(self) -> lmdb.Transaction[bytes]:
        """Return a read transaction; adopts the map's new size when another process has grown it."""
        try:
            return self.env.begin()
        except lmdb.MapResizedError:
            with self.remapping:
                self.env.set_mapsize(0)
            return self.env.begin()

    def write(self) -> lmdb.Transaction[bytes]:
        """Return a write transaction, to be used in `with`; waits for the one writer there may be. MapFullError:
        `grow`, then all of it again.
        """
        try:
            return self.env.begin(write=True)
        except lmdb.MapResizedError:
            with self.remapping:
                self.env.set_mapsize(0)
            return self.env.begin(write=True)

    def grow(self, map_bytes_max: int) -> bool:
        """Doubles the map; False when it is as large as it may be."""
        with self.remapping:
            size = self.env.info()["map_size"]
            if size >= map_bytes_max:
                return False
            self.env.set_mapsize(min(2 * size, map_bytes_max))
        return True

    def release(self) -> None:
        """Let go of the environment; the last holder closes the environment."""
        with _attaching:
            self.holders -= 1
            if self.holders <= 0:
                self._close()

    def _close(self) -> None:
        if _attached.get(str(self.folder)) is self:
            del _attached[str(self.folder)]
        if self.file >= 0 and self.process == os.getpid():
            self.env.close()
            os.close(self.file)
            self.file = -1


def attach(root: Path, *, create: bool = False, generation: str = "", map_bytes: int = MAP_BYTES) -> Environment:
    """Return the environment that CURRENT (or `generation`) names, shared within the process; `release` it when done.

    Raises:
        StoreUnavailable: when there is none, or when it is damaged.
    """
    with failing(f"open the online store at {root}"):
        name = generation or current(root)
        if not name:
            if not create:
                raise StoreUnavailable(f"there is no online store at {root}; `opportune materialize` builds it")
            name = _create(root)
        folder = (root / name).resolve()
        # LMDB would take an empty file for a new store, and an empty store for a customer base of strangers.
        if not create and (not (folder / DATA).exists() or (folder / DATA).stat().st_size == 0):
            raise StoreUnavailable(
                f"the online store at {root} has lost its file {name}/{DATA}; `opportune materialize` builds it again"
            )
        return attach_folder(folder, map_bytes)


def attach_folder(folder: Path, map_bytes: int, sync: bool = True) -> Environment:
    """Return the environment in a folder, made if need be, shared within the process; `release` it when done.

    Raises:
        lmdb.Error, OSError: when it does not open.
    """
    with _attaching:
        found = _attached.get(str(folder))
        if found is not None and (found.process != os.getpid() or not found.same):
            # Holders notice by an lmdb.Error at their next transaction, and attach again.
            found._close()
            _attached.pop(str(folder), None)
            found = None
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            found = _attached[str(folder)] = Environment(folder, map_bytes, sync)
        else:
            found.measure()
        found.holders += 1
        return found


def current(root: Path) -> str:
    """Return the name of the generation in use; empty when there is none."""
    try:
        name = (root / CURRENT).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return name if name == Path(name).name else ""


def new_generation(root: Path) -> str:
    """Makes an empty generation to fill beside the one in use, and returns its name; `publish` swaps it in."""
    root.mkdir(parents=True, exist_ok=True)
    taken = [int(folder.name[2:]) for folder in root.glob("g-*") if folder.name[2:].isdigit()]
    for number in range(max(taken, default=0) + 1, 1 << 31):
        try:
            (root / GENERATION.format(number)).mkdir()
        except FileExistsError:
            continue
        return GENERATION.format(number)
    raise StoreUnavailable(f"no name is left for a new generation in {root}")


def publish(root: Path, generation: str) -> None:
    """Makes a filled generation the one in use, atomically and durably; keeps the last one, removes those before it."""
    last = current(root)
    write_whole(root / CURRENT, f"{generation}\n".encode())
    for folder in root.glob("g-*"):
        # Names grow: what is newer than the published one may be another rebuild at work.
        if folder.name < generation and folder.name != last:
            shutil.rmtree(folder, ignore_errors=True)


def _create(root: Path) -> str:
    name = new_generation(root)
    if write_once(root / CURRENT, f"{name}\n".encode()):
        return name
    (root / name).rmdir()
    return current(root)


def id_key(kind: bytes, number: int) -> bytes:
    """Return the key of a word or a schema; keys have the order of their numbers."""
    return kind + number.to_bytes(4, "big")


def entries_after(transaction: lmdb.Transaction[bytes], kind: bytes, count: int) -> list[bytes]:
    """Texts of words, or schemas, from id `count` on."""
    found = []
    with transaction.cursor() as cursor:
        if cursor.set_range(id_key(kind, count)):
            for key, value in cursor:
                if not key.startswith(kind):
                    break
                found.append(value)
    return found


def schemas_in(transaction: lmdb.Transaction[bytes], known: dict[int, Schema]) -> None:
    """Adds to `known` the schemas that it lacks."""
    for data in entries_after(transaction, SCHEMAS, len(known)):
        known[len(known)] = Schema.decode(data)
