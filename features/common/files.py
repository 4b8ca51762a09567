"""Files that are whole or not there: written aside, made durable, renamed into place; and where the code lies."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The folder that holds the four packages: a checkout, or where an installed package or a bento put them."""

_CHUNK_BYTES = 1 << 20


def write_whole(file: Path, content: bytes) -> None:
    """Replace a file so that a crash at any moment leaves the old or the new one, complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    _write_synced(aside, content, os.O_TRUNC, 0o666)
    aside.replace(file)
    sync(file.parent)


def write_once(file: Path, content: bytes, mode: int = 0o666) -> bool:
    """Make a file, complete and durable, unless there is one: of several processes the first makes it.

    Args:
        mode: of the file, from which the process's mask takes its part.

    Returns:
        Whether this call made it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    _write_synced(aside, content, os.O_EXCL, mode)
    try:
        os.link(aside, file)  # fails where another process was first, unlike a rename
    except FileExistsError:
        return False
    finally:
        aside.unlink()
    sync(file.parent)
    return True


def _write_synced(file: Path, content: bytes, flag: int, mode: int) -> None:
    """Write a file, and wait until its content is on the disk."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, mode)
    with open(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a file's lock: whoever comes second waits. The lock falls with its process, however that ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def digest_of(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def is_held(path: Path) -> bool:
    """Return whether a process holds the file's lock for itself; not for a file that is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
