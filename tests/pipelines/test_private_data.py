"""What the program keeps is its owner's alone, whatever mask it was started with; what was asked for is not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.common import files
from features.common.files import MASK_VARIABLE, BadMask, as_given, keep_private, make_private, mask_of, write_whole
from pipelines.deploy.package import _let_read
from tests.architecture.house import ROOT
from tests.workspaces import make_workspace

ENTRIES_MIN = 5


def modes(folder: Path) -> dict[str, int]:
    """Return the rights of a folder and of all that is in it."""
    return {str(place): stat.S_IMODE(place.stat().st_mode) for place in (folder, *folder.rglob("*"))}


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A verb that is started with a mask that lets everybody read and write."""
    line = [sys.executable, "-m", "pipelines.main", *words]
    given = {**os.environ, **environment}
    return subprocess.run(line, cwd=ROOT, env=given, capture_output=True, text=True, check=False, umask=0)


@pytest.fixture
def mask() -> Iterator[None]:
    """Give this process its own mask back."""
    before, given = os.umask(0o022), list(files._given)
    files._given.clear()
    try:
        yield
    finally:
        os.umask(before)
        files._given[:] = given


@pytest.mark.parametrize(("named", "left"), [("", 0o700), ("027", 0o750)])
def test_a_command_keeps_its_data_private(tmp_path: Path, named: str, left: int) -> None:
    """No right of a group or of others on anything that an import leaves, unless the environment allows it."""
    folder = make_workspace(tmp_path / "shop", customers=40)
    done = command("import", "-w", str(folder), **{MASK_VARIABLE: named})
    assert done.returncode == 0, done.stderr
    found = modes(folder / ".opportune")
    assert len(found) >= ENTRIES_MIN and found[str(folder / ".opportune")] == left
    assert not {place: oct(mode) for place, mode in found.items() if mode & 0o777 & ~left}
    assert left == 0o700 or any(mode == 0o640 for mode in found.values())


def test_a_mask_that_is_none_ends_the_command(tmp_path: Path) -> None:
    """One line that says what was expected."""
    done = command("check", "-w", str(tmp_path), **{MASK_VARIABLE: "rwx"})
    assert (
        done.returncode == 1 and "expected octal digits from 000 to 077, such as 077 or 027, got 'rwx'" in done.stderr
    )
    for text in ("777", "0o77", "-7", "12345"):
        with pytest.raises(BadMask):
            mask_of({MASK_VARIABLE: text})
    assert [mask_of({MASK_VARIABLE: text}) for text in ("", "0027", "27", "000")] == [0o077, 0o027, 0o027, 0]


def test_what_init_writes_has_the_mask_of_the_shell(tmp_path: Path) -> None:
    """A new workspace is a user's own files, with the rights that the shell gives."""
    assert command("init", str(tmp_path / "new")).returncode == 0
    assert modes(tmp_path / "new")[str(tmp_path / "new" / "workspace.yaml")] == 0o666


@pytest.mark.usefixtures("mask")
def test_what_is_packed_can_be_read_by_another_user(tmp_path: Path) -> None:
    """Copies of private files have, in a package, the rights of any file that is made now."""
    keep_private()
    write_whole(tmp_path / "stage" / "made" / "manifest.json", b"{}")
    assert set(modes(tmp_path / "stage").values()) == {0o700, 0o600}
    with as_given():
        _let_read(tmp_path / "stage")
        write_whole(tmp_path / "stage" / "later", b"")
    found = modes(tmp_path / "stage")
    assert sorted(found.values()) == [0o644, 0o644, 0o700, 0o755]
    assert os.umask(0o077) == 0o077


@pytest.mark.usefixtures("mask")
def test_the_data_folder_is_private_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made from Python, where nobody sets a mask, it is private too; one that is there stays as it is."""
    monkeypatch.delenv(MASK_VARIABLE, raising=False)
    make_private(tmp_path / "a" / "data")
    (tmp_path / "old").mkdir(mode=0o755)
    make_private(tmp_path / "old")
    assert modes(tmp_path / "a" / "data").popitem()[1] == 0o700 and modes(tmp_path / "old").popitem()[1] == 0o755
