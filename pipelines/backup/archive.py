"""The file of a backup: a tar archive of plain files, closed by a manifest with the SHA-256 of each.

    workspace/<name>   the workspace's own files, and its sources that lie in its folder
    data/<path>        what it has made of them
    manifest.json      last: a file that was cut off has none

It is written aside and renamed, so that it is whole or not there. Whoever reads one trusts nothing of it: names lead
nowhere but below a new folder, links, devices and whatever else is no plain file are refused, and sizes are bounded by
the room on the disk.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
import pyarrow as pa
from msgspec import Struct

from features.common.errors import Failure
from features.common.files import sync
from pipelines.backup.contents import Contents

FORMAT = 1
MANIFEST = "manifest.json"
WORKSPACE, DATA = "workspace", "data"
Kind = Literal["zstd", "gzip"]

COMPRESSIONS: dict[str, Kind] = {".zst": "zstd", ".gz": "gzip", ".tgz": "gzip"}
"""By the ending of the file's name; any other: none, most of it is compressed already."""
_MAGIC: dict[bytes, Kind] = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}

MEMBERS_MAX = 2_000_000
NAME_BYTES_MAX = 1_024
READ_BYTES_MAX = 512 << 20
"""Of one read: `tarfile` takes whole headers into memory, however long they say they are, and the manifest is read at
once.
"""
FREE_BYTES_MIN = 64 << 20
"""Room that is left on the disk."""
_CHUNK_BYTES = 1 << 20
_PART = re.compile(r"[^\x00-\x1f\x7f/]+")

Tell = Callable[[str, float | None], None]


class BadBackup(Failure):
    """A file that is no whole backup."""


class Member(Struct, frozen=True):
    """One file of an archive."""

    name: str
    bytes: int
    sha256: str


class BackupManifest(Struct, frozen=True):
    """What an archive says of itself.

    Attributes:
        name: of the workspace.
        at: when the copy was made, microseconds since 1970: all that was acknowledged before is in it.
        versions: of Opportune, Python, and the libraries whose files it holds.
        contents: what was counted in the copy.
        left_out: what of the workspace is not in it, and why.
    """

    format: int
    name: str
    at: int
    versions: dict[str, str]
    contents: Contents
    left_out: dict[str, str]
    members: list[Member]


def write(
    file: Path, members: list[tuple[str, Path]], manifest: Callable[[list[Member]], BackupManifest], tell: Tell
) -> BackupManifest:
    """Write an archive, whole or not at all, readable by its owner alone.

    Args:
        members: names and the files that have their content.
        manifest: makes the manifest of what was written.

    Raises:
        OSError: the disk refuses. What was there under the name stays.
    """
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with (
            _begun(aside, file.suffix) as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            written = [_add(tar, name, source) for name, source in _told(members, tell)]
            made = manifest(written)
            content = msgspec.json.encode(made)
            tar.addfile(_head(MANIFEST, len(content)), io.BytesIO(content))
        sync(aside)
        aside.replace(file)
        sync(file.absolute().parent)
    finally:
        aside.unlink(missing_ok=True)
    return made


def read(file: Path, place: Path | None = None, tell: Tell = lambda *_: None) -> BackupManifest:
    """Read an archive as a whole and compare every digest; with a place, unpack it into that new folder too.

    Raises:
        BadBackup: it is no backup, not whole, or holds what no backup holds. The place is to be removed then.
        OSError: the file cannot be read, or the disk refuses.
    """
    seen: dict[str, Member] = {}
    found: BackupManifest | None = None
    try:
        with _opened(file) as (stream, tar):
            for info in tar:
                if found is not None:
                    raise BadBackup(f"{file}: expected {MANIFEST} to be the last file, got {info.name!r} after it")
                if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse() or info.size < 0:
                    raise BadBackup(f"{file}: expected plain files, got another kind at {info.name!r}")
                content = tar.extractfile(info)
                assert content is not None
                if info.name == MANIFEST:
                    found = _manifest(file, stream.bounded(content, info.size))
                    continue
                if not is_safe(info.name) or info.name in seen or len(seen) >= MEMBERS_MAX:
                    raise BadBackup(
                        f"{file}: expected a name below {WORKSPACE}/ or {DATA}/, each once, got {info.name!r}"
                    )
                tell(info.name.partition("/")[0], None)
                seen[info.name] = _unpacked(file, info, content, place)
    except (tarfile.TarError, pa.ArrowException, EOFError, UnicodeError, ValueError) as error:
        raise BadBackup(
            f"{file}: expected a backup of Opportune, got a file that cannot be read as one: {error}"
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise BadBackup(
            f"{file}: expected a backup of Opportune, got damaged data: {error}"
        ) from error  # of a decompressor
    if found is None:
        raise BadBackup(
            f"{file}: expected {MANIFEST} at the end, got none: it was cut off, or is no backup of Opportune"
        )
    _compare(file, found, seen)
    return found


def is_safe(name: str) -> bool:
    """Return whether a member may have this name: below one of the two folders, and nothing hidden among the
    workspace's own files.
    """
    top, *parts = name.split("/")
    plain = all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    hidden = top == WORKSPACE and any(part.startswith(".") for part in parts)
    return top in (WORKSPACE, DATA) and bool(parts) and plain and not hidden and len(name.encode()) <= NAME_BYTES_MAX


def _compare(file: Path, manifest: BackupManifest, seen: dict[str, Member]) -> None:
    said = {member.name: member for member in manifest.members}
    for name in sorted(said.keys() | seen.keys()):
        if said.get(name) != seen.get(name):
            got = "none" if name not in seen else "one that it does not name" if name not in said else "another content"
            raise BadBackup(
                f"{file}: expected the files of its manifest, got {got} at {name!r}: it is damaged, do not use it"
            )


def _manifest(file: Path, content: bytes) -> BackupManifest:
    try:
        found = msgspec.json.decode(content, type=BackupManifest)
    except msgspec.MsgspecError as error:
        raise BadBackup(f"{file}: expected the manifest of a backup, got something else: {error}") from error
    if found.format != FORMAT:
        raise BadBackup(
            f"{file}: expected a backup of format {FORMAT}, got {found.format}: restore it with the version that"
            " made it"
        )
    return found


def _unpacked(file: Path, info: tarfile.TarInfo, content: Any, place: Path | None) -> Member:
    """Return the digest of a member's content, which is written to the place on the way."""
    digest, left = hashlib.sha256(), info.size
    handle = -1
    if place is not None:
        if shutil.disk_usage(place).free - FREE_BYTES_MIN < info.size:
            raise BadBackup(
                f"{file}: expected {info.size} bytes free on the disk of {place} for {info.name!r}: make room"
            )
        target = place / info.name
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadBackup(f"{file}: expected each name once, got a file and a folder at {info.name!r}") from error
    try:
        while left:
            chunk = content.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise EOFError(f"it ends within {info.name!r}")
            digest.update(chunk)
            left -= len(chunk)
            if handle >= 0:
                os.write(handle, chunk)
        if handle >= 0:
            os.fsync(handle)
    finally:
        if handle >= 0:
            os.close(handle)
    return Member(info.name, info.size, digest.hexdigest())


def _told(members: list[tuple[str, Path]], tell: Tell) -> Iterator[tuple[str, Path]]:
    for number, member in enumerate(members):
        tell("write", number / len(members))
        yield member


def _add(tar: tarfile.TarFile, name: str, source: Path) -> Member:
    with source.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        hashed = _Hashed(stream)
        tar.addfile(_head(name, size), hashed)
        return Member(name, size, hashed.digest.hexdigest())


def _head(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


class _Hashed:
    """A stream whose digest is taken as it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._stream.read(size)
        self.digest.update(chunk)
        return chunk


class _Forward:
    """A stream that is read once from its beginning, and no more than `READ_BYTES_MAX` at a time; `tarfile` seeks
    forward only.
    """

    def __init__(self, stream: Any) -> None:
        self._stream, self._at = stream, 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= READ_BYTES_MAX:
            raise BadBackup(f"expected a backup of Opportune, got a header of {size} bytes")
        chunk: bytes = self._stream.read(size)
        self._at += len(chunk)
        return chunk

    def bounded(self, content: Any, size: int) -> bytes:
        """Return all of a member's content, if it is no more than may be read at once."""
        if size > READ_BYTES_MAX:
            raise BadBackup(f"expected a manifest of at most {READ_BYTES_MAX} bytes, got {size}")
        found: bytes = content.read(size)
        return found

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, whence: int = 0) -> int:
        if whence or place < self._at:
            raise tarfile.ReadError("it leads backwards")
        while self._at < place and self.read(min(place - self._at, _CHUNK_BYTES)):
            pass
        return self._at

    def seekable(self) -> bool:
        return True


@contextmanager
def _opened(file: Path) -> Iterator[tuple[_Forward, tarfile.TarFile]]:
    with file.open("rb") as raw:
        magic = raw.read(4)
        raw.seek(0)
        kind = next((kind for begin, kind in _MAGIC.items() if magic.startswith(begin)), None)
        stream = _Forward(raw if kind is None else pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), kind))
        with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
            yield stream, tar


@contextmanager
def _begun(file: Path, ending: str) -> Iterator[Any]:
    """Return a new file for its owner alone, compressed by the ending of the name that it will have."""
    kind = COMPRESSIONS.get(ending.lower())
    with open(file, "xb", opener=lambda path, flags: os.open(path, flags | os.O_CLOEXEC, 0o600)) as raw:
        if kind is None:
            yield raw
            return
        with pa.CompressedOutputStream(pa.PythonFile(raw, mode="w"), kind) as stream:  # closes the file too
            yield stream
