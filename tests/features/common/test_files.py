"""Files are whole or not there, whoever is killed and whoever comes first."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from features.common import files
from features.common.files import sync, write_once, write_whole
from tests.architecture.house import ROOT

KILLED = """
import os, sys
from pathlib import Path
from features.common import files
calls, fsync = 0, os.fsync
def killed(handle):
    global calls
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    calls += 1
    fsync(handle)
files.os.fsync = killed
getattr(files, sys.argv[3])(Path(sys.argv[1]), b"new")
"""


@pytest.mark.parametrize("how", ["write_whole", "write_once"])
def test_a_kill_at_any_sync_leaves_a_whole_file(tmp_path: Path, how: str) -> None:
    """Killed before the content or the name is durable, the file is what it was or what it shall be."""
    ended = []
    for number in range(3):
        file = tmp_path / f"{how}-{number}" / "state"
        if how == "write_whole":
            write_whole(file, b"old")
        program = [sys.executable, "-c", KILLED, str(file), str(number), how]
        ended.append(subprocess.run(program, cwd=ROOT, check=False).returncode)
        found = file.read_bytes() if file.exists() else b"old"
        assert found == (b"old" if number == 0 else b"new")
        again = write_whole(file, b"last") or write_once(file, b"never")
        assert not again and file.read_bytes() == b"last"
    assert ended == [-signal.SIGKILL, -signal.SIGKILL, 0]


def test_of_several_the_first_makes_the_file(tmp_path: Path) -> None:
    """Many at once: one of them says that it made the file, which holds what it wrote; nothing is left beside it."""
    file = tmp_path / "secret"
    contents = [str(number).encode() * 1_000 for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda content: write_once(file, content, 0o600), contents))
    assert sum(made) == 1 and file.read_bytes() == contents[made.index(True)]
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_disk_that_refuses_is_told_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that fails raises, and what was there stays."""
    file = tmp_path / "state"
    write_whole(file, b"old")

    def refuse(_: int) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        write_whole(file, b"new")
    with pytest.raises(OSError, match="Input/output"):
        write_once(tmp_path / "other", b"new")
    for path in (file, tmp_path):
        with pytest.raises(OSError, match="Input/output"):
            sync(path)
    assert file.read_bytes() == b"old" and not (tmp_path / "other").exists()
