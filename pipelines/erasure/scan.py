"""The bytes of every file of a workspace's data, looked through for an id: what no re-read of a place would show.

An id is looked for as a whole: between characters that no id has. One of fewer than `SHORT_BYTES` stands by chance in
other numbers and in compressed data, so it is looked for only where rows of customers are, and only as formats frame a
text. Files of Parquet are compressed: here their heads and statistics are looked through, their rows are re-read as
rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from features.common.pseudonyms import SECRET
from pipelines.erasure.places import plain
from pipelines.erasure.task import FOLDER

SHORT_BYTES = 6
TOLD_BYTES_MIN = 3
"""An id of one or two bytes stands everywhere by chance: the re-read of the places is all that can be said of it."""
OVERLAP_BYTES = 256
PIECE_BYTES = 16 << 20
"""Looked through at once; pieces overlap by more than an id has."""
SHORT_FOLDERS = ("events", "online", "ledger", "journal", "logs", "aside", "spill", "imports")
"""Where a short id is looked for; elsewhere `"7"` is as likely an offer."""

_ID = rb"A-Za-z0-9._:@+=|~\-"


class Scan(Struct):
    """What was looked through, and the names of the files that hold the id; never the id."""

    files: int = 0
    bytes: int = 0
    plaintext_hits: int = 0
    where: list[str] = []
    not_looked_for: int = 0
    """Ids that are too short to be told from chance."""


def scan(data: Path, units: Sequence[str]) -> Scan:
    """Look through all files of a data folder but the tasks of forgetting themselves. A gigabyte takes some seconds."""
    done = Scan(where=[])
    names = _told(units)
    done.not_looked_for = untold(units)
    for file in sorted(_files(data)):
        inside = file.relative_to(data)
        wanted = [name for name in names if len(name) >= SHORT_BYTES or inside.parts[0] in SHORT_FOLDERS]
        try:
            size, hit = _look(file, wanted)
        except FileNotFoundError:  # sealed, merged or replaced meanwhile
            continue
        done.files, done.bytes = done.files + 1, done.bytes + size
        if hit:
            done.where.append(str(inside))
    done.plaintext_hits = len(done.where)
    return done


def holds(folder: Path, units: Sequence[str]) -> bool:
    """Return whether any file of a folder holds one of the ids."""
    names = _told(units)
    return any(_look(file, names)[1] for file in _files(folder))


def untold(units: Sequence[str]) -> int:
    """Return how many ids are too short to be told from chance."""
    return len(units) - len(_told(units))


def _told(units: Sequence[str]) -> list[bytes]:
    """Return the ids that bytes can be told to hold."""
    names = [plain(unit).encode() for unit in units]
    return [name for name in names if len(name) >= TOLD_BYTES_MIN]


def _files(data: Path) -> Iterator[Path]:
    for file in data.glob("**/*"):
        inside = file.relative_to(data)
        if inside.parts[0] != FOLDER and inside.name != SECRET and file.is_file() and not file.is_symlink():
            yield file


@lru_cache(maxsize=256)
def _pattern(name: bytes) -> re.Pattern[bytes]:
    escaped = re.escape(name)
    if len(name) >= SHORT_BYTES:
        return re.compile(rb"(?<![%b])%b(?![%b])" % (_ID, escaped, _ID))
    # As JSON and logs have it, as MessagePack has it (its length before it), as a key of the embedded store has it.
    length = re.escape(bytes([0xA0 | len(name)]))
    return re.compile(rb"[\"'`]%b[\"'`]|%b%b(?![%b])|\x00%b(?![%b])" % (escaped, length, escaped, _ID, escaped, _ID))


def _look(file: Path, names: Sequence[bytes]) -> tuple[int, bool]:
    """Size of a file, and whether it holds one of the ids."""
    if not names:
        return file.stat().st_size, False
    size, hit = 0, False
    for size, found in _pieces(file, names):  # noqa: B007
        hit |= bool(found)
    return size, hit


def offsets(file: Path, units: Sequence[str]) -> list[int]:
    """Return where a file holds one of the ids, in bytes from its beginning."""
    return [at for _, found in _pieces(file, _told(units)) for at in found]


def _pieces(file: Path, names: Sequence[bytes]) -> Iterator[tuple[int, list[int]]]:
    """Yield a file piece by piece: bytes read so far, and where the ids stand. Not mapped: somebody may cut the file
    off meanwhile.
    """
    kept, read = b"", 0
    with file.open("rb") as handle:
        while piece := handle.read(PIECE_BYTES):
            content, begin = kept + piece, read - len(kept)
            read += len(piece)
            is_last = len(piece) < PIECE_BYTES
            found = [
                begin + match.start()
                for name in names
                if name in content  # ten times quicker than the pattern
                for match in _pattern(name).finditer(content)
                # At an edge within the file its neighbours are not known: the piece before, or behind, has it whole.
                if (match.start() or not begin) and (match.end() < len(content) or is_last)
            ]
            yield read, found
            kept = content[-OVERLAP_BYTES:]
