"""Is an embedded store whole? Every record of an environment is read once and its checksum compared, in a process of
its own.

    python -m features.lmdb_store.verify FOLDER online|ledger

LMDB keeps no checksums of its pages: a tree that a power cut has torn may be walked in circles, or lead out of the map,
which kills whoever walks it. So nobody walks a tree in doubt but this program, within a time limit; its death is an
answer too.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import lmdb
import msgspec
from msgspec import Struct

from features.common.files import ROOT
from features.lmdb_store.environment import DATA, ROWS, WORDS, current, entries_after, schemas_in
from features.lmdb_store.record import HEADER, DamagedRecord, Schema, unpack

CHECK_BYTES = 4
VERIFY_SECONDS_MAX = 600.0
"""Bound on one verification: some gigabytes from a slow disk."""


class Verdict(Struct, frozen=True):
    """What one look found. `why` is empty where the store is whole; `lost`: nobody can use any of it as it is."""

    records: int = 0
    damaged: int = 0
    why: str = ""
    lost: bool = False


def folder_of(place: Path, what: str) -> Path:
    """Return the folder of the environment in use: of the online store the generation that CURRENT names."""
    return place / current(place) if what == "online" else place


def verify(place: Path, what: str, seconds_max: float = VERIFY_SECONDS_MAX) -> Verdict:
    """Look at all records of the online store or the ledger, without changing anything; it may be in use.

    Args:
        place: the store's folder. One that is not there is lost.
        what: `online` or `ledger`.
    """
    folder = folder_of(place, what)
    if what == "online" and folder == place:
        return Verdict(why="CURRENT, which names the generation in use, is missing or unreadable", lost=True)
    data = folder / DATA
    if not data.is_file() or not data.stat().st_size:
        return Verdict(why=f"{data.relative_to(place.parent)} is missing or empty", lost=True)
    command = [sys.executable, "-m", "features.lmdb_store.verify", str(folder.resolve()), what]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=seconds_max, check=False)
    except subprocess.TimeoutExpired:
        return Verdict(why=f"reading it did not end within {seconds_max:.0f} s", lost=True)
    if told.returncode:
        return Verdict(why=f"reading it ended with status {told.returncode}: its pages are torn", lost=True)
    return msgspec.json.decode(told.stdout, type=Verdict)


def _verdict(folder: Path, what: str) -> Verdict:
    try:
        size = (folder / DATA).stat().st_size
        # Where there is a lock file, our place in it keeps writers from freeing what we read.
        env = lmdb.open(
            str(folder),
            readonly=True,
            lock=(folder / "lock.mdb").exists(),
            max_readers=1024,
            map_size=max(size, 1 << 20),
        )
    except (lmdb.Error, OSError) as error:
        return Verdict(why=str(error), lost=True)
    try:
        if (env.info()["last_pgno"] + 1) * env.stat()["psize"] > (folder / DATA).stat().st_size:
            return Verdict(why="the file is shorter than what was written", lost=True)
        with env.begin() as transaction:
            return _read(transaction, what)
    except (lmdb.Error, OSError, DamagedRecord) as error:
        return Verdict(why=str(error), lost=True)
    finally:
        env.close()


def _read(transaction: lmdb.Transaction[bytes], what: str) -> Verdict:
    expected, seen, damaged, last = transaction.stat()["entries"], 0, 0, b""
    if what == "online":
        schemas: dict[int, Schema] = {}
        schemas_in(transaction, schemas)
        words = len(entries_after(transaction, WORDS, 0))
    with transaction.cursor() as cursor:
        for key, value in cursor:
            seen += 1
            if seen > expected or key <= last:
                return Verdict(seen, damaged, "its records are not in the order of their keys", lost=True)
            damaged += _is_torn(value) if what == "ledger" else _is_damaged(key, value, schemas, words)
            last = key
    if seen != expected:
        return Verdict(seen, damaged, f"expected {expected} records, read {seen}", lost=True)
    return Verdict(seen, damaged, f"{damaged} of {seen} records are damaged" if damaged else "")


def _is_torn(value: bytes) -> bool:
    """Return whether a record of the ledger does not end with its own checksum."""
    return len(value) < CHECK_BYTES or crc32(value[:-CHECK_BYTES]) != int.from_bytes(value[-CHECK_BYTES:], "little")


def _is_damaged(key: bytes, value: bytes, schemas: dict[int, Schema], words: int) -> bool:
    """Return whether an entry of the online store does not decode: rows carry a checksum, words are numbered without
    gaps.
    """
    try:
        if key.startswith(ROWS):
            unpack(value, schemas)
            return int(HEADER.unpack_from(value)[3]) > words
        if key.startswith(WORDS):
            value.decode("utf-8", "surrogatepass")
            return int.from_bytes(key[1:], "big") >= words
    except (DamagedRecord, UnicodeDecodeError, struct.error):
        return True
    return False


def main(folder: str, what: str) -> None:
    """Print the verdict as JSON."""
    sys.stdout.buffer.write(msgspec.json.encode(_verdict(Path(folder), what)))


if __name__ == "__main__":
    main(*sys.argv[1:3])
