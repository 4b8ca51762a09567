"""A disk that is full is told as full, by whatever library it shows: which folder, how much is free, the way out."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from features.common import files
from features.common.errors import Failure
from features.common.files import is_full, told_full, write_once, write_whole
from features.events.log import EventLog
from features.events.log_errors import LogUnavailable, unavailable
from pipelines.output.errors import REFUSED, problem_of

FULL = [OSError(number, os.strerror(number)) for number in (errno.ENOSPC, errno.EDQUOT)]


def _caused(error: BaseException) -> Failure:
    made = Failure("the store cannot be written")
    made.__cause__ = error
    return made


@pytest.mark.parametrize(
    "error",
    [
        *FULL,
        _caused(FULL[0]),
        RuntimeError("IO Error: Could not write file: No space left on device"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_a_command_says_that_the_disk_is_full(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with a folder and what is free there, a status of its own kind, and never a fault of the program."""
    monkeypatch.setattr("sys.argv", ["opportune", "up", "-w", str(tmp_path)])
    problem = problem_of(error)
    assert (problem.type, problem.exit_status) == ("urn:opportune:error:disk-full", REFUSED)
    assert "the disk is full: expected room in /" in problem.detail and "bytes free" in problem.detail
    assert "Remove or move" in problem.detail and "\n" not in problem.detail


def test_other_errors_are_not_a_full_disk() -> None:
    """Refusals of the system and faults of the program stay what they are."""
    others = [OSError(errno.EIO, os.strerror(errno.EIO)), PermissionError(13, "x"), _caused(ValueError("x"))]
    assert [is_full(error) for error in others] == [False] * 3
    assert problem_of(others[0]).type == "urn:opportune:error:system"


@pytest.mark.parametrize("write", [write_whole, write_once])
def test_a_file_that_finds_no_room_is_named(write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file, which the system does not, and nothing half written stays."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError) as caught:
        write(tmp_path / "state.json", b"{}")  # type: ignore[operator]
    assert str(tmp_path) in problem_of(caught.value).detail
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", FULL)
def test_the_event_log_says_that_the_disk_is_full(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is `full` to whoever posts, and operators read which folder it is."""
    log = EventLog(tmp_path / "events")

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(log.file, "_open", full)
    with pytest.raises(LogUnavailable) as caught, log.file.transaction():
        pass
    assert (caught.value.reason, caught.value.public) == ("full", "the disk of the event log is full")
    assert f"expected room in {tmp_path}" in str(caught.value)
    log.close()


def test_an_error_of_sqlite_without_any_room_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite calls what it cannot write an input/output error: whether there is room tells which of the two it is."""
    error = sqlite3.OperationalError("disk I/O error")
    assert unavailable(tmp_path / "events.db", error).reason == "io"
    monkeypatch.setattr("features.events.log_errors.free_bytes", lambda place: (0, place.parent))
    assert unavailable(tmp_path / "events.db", error).reason == "full"


def test_a_place_that_is_not_there_yet_has_a_disk(tmp_path: Path) -> None:
    """The folder that is told is the nearest one that there is."""
    assert f"room in {tmp_path}, got " in told_full(tmp_path / "a" / "b")
