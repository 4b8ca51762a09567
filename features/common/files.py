"""Files that are whole or not there: written aside, made durable, renamed into place; and where the code lies."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from features.common.errors import Failure

ROOT = Path(__file__).parents[2]
"""The folder that holds the four packages: a checkout, or where an installed package or a bento put them."""

MASK_VARIABLE = "OPPORTUNE_UMASK"
"""The mask of our processes, in octal digits: 027 lets a group read what is made."""
_PRIVATE = 0o077
_given: list[int] = []  # the mask that this process was started with, once another one holds

_CHUNK_BYTES = 1 << 20
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = (*map(os.strerror, _FULL), "database or disk is full")
"""What libraries that keep no number of the system's errors say of them."""
FULL_BYTES = 64 << 10
"""With less room than this, what fails to write fails for that."""


def is_full(error: BaseException | None) -> bool:
    """Return whether a full disk, or a quota that is used up, is behind an error."""
    while error is not None:
        if getattr(error, "errno", None) in _FULL or any(words in str(error) for words in _FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def free_bytes(place: Path) -> tuple[int, Path]:
    """Return how much room there is where a file or folder lies or would lie, and the folder that was asked."""
    place = next((folder for folder in (place, *place.absolute().parents) if folder.is_dir()), Path("/"))
    return shutil.disk_usage(place).free, place


def told_full(place: Path) -> str:
    """Say that the disk is full: which folder, how much is free there, and the way out."""
    free, folder = free_bytes(place)
    return (
        f"the disk is full: expected room in {folder}, got {free:,} bytes free. Remove or move what is not needed there"
        " (or raise the quota of this user)"
    )


def told_short(folder: Path, bytes_min: int, free: int) -> str:
    """Say that the room is below what is kept in reserve."""
    return f"{folder}: expected at least {bytes_min:,} bytes free on the disk, got {free:,}: make room"


class NotPlain(Exception):
    """A file that is not read; says what was expected, what came, and the way out, and nothing of its content."""

    def __init__(self, expected: str, got: str, remedy: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}" + (f". {remedy}" if remedy else ""))
        self.expected, self.got, self.remedy = expected, got, remedy


def read_plain(file: Path, bytes_max: int, within: Path | None = None) -> bytes:
    """Read a file that somebody else may have put there: never waits, and never takes more than `bytes_max`.

    Args:
        within: the folder in which the file must lie; a link may lead to another place in it, as those of a mounted
            ConfigMap do. None: anywhere.

    Raises:
        NotPlain: it is no plain file, lies elsewhere, or is too large; nothing of it was read.
        OSError: it is not there, or cannot be read.
    """
    place = Path(os.path.realpath(file))
    if within is not None and not place.is_relative_to(os.path.realpath(within)):
        raise NotPlain(
            "a file within its folder", "a link that leads out of it", "Put the file itself in place of the link."
        )
    _require_plain(place.stat())  # before it is opened: opening a device may already do something
    handle = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    with open(handle, "rb") as stream:
        found = os.fstat(handle)
        _require_plain(found)
        content = b"" if found.st_size > bytes_max else stream.read(bytes_max + 1)
    if max(found.st_size, len(content)) > bytes_max:
        got = f"{found.st_size} bytes" if found.st_size > bytes_max else "more"
        raise NotPlain(f"at most {bytes_max} bytes", got)
    return content


def _require_plain(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise NotPlain("a plain file", kind, "Put a file in its place.")


class BadMask(Failure):
    """The mask that the environment names is none."""


def mask_of(environment: Mapping[str, str] = os.environ) -> int:
    """Return the mask of our processes: nobody else reads what they make, unless the environment says otherwise.

    Raises:
        BadMask: what it says is none, or keeps the owner out.
    """
    text = environment.get(MASK_VARIABLE) or f"{_PRIVATE:o}"
    if re.fullmatch("0?0?[0-7]{1,2}", text) is None:
        raise BadMask(f"{MASK_VARIABLE}: expected octal digits from 000 to 077, such as 077 or 027, got {text!r}")
    return int(text, 8)


def keep_private() -> None:
    """Give this process, and those that it starts, the mask of `mask_of`; call it where a process begins."""
    before = os.umask(mask_of())
    if not _given:
        _given.append(before)


@contextmanager
def as_given() -> Iterator[int]:
    """Write what was asked for under the mask that the command was started with; for one thread at a time."""
    before = os.umask(_PRIVATE)
    given = _given[0] if _given else before
    os.umask(given)
    try:
        yield given
    finally:
        os.umask(before)


def make_private(folder: Path) -> None:
    """Make a folder of data, unless there is one, with the rights that `mask_of` leaves, whatever the mask is now."""
    folder.mkdir(mode=0o777 & ~mask_of(), parents=True, exist_ok=True)


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
    try:
        with open(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        error.filename = error.filename or str(file)  # a write that fails names none
        file.unlink(missing_ok=True)
        raise


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
