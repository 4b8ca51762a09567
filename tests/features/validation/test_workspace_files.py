"""Files of a workspace are plain files of its folder: whatever else stands there is refused before it is read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from features.common import files
from features.common.files import NotPlain, read_plain
from features.config.documents import BadWorkspace
from features.config.yaml import FILE_BYTES_MAX
from features.validation.load import FILES, data_of, load
from pipelines.doctor.facts.machine import machine
from pipelines.simulation.changed_files import changed
from serving.http.auth import FILE_VARIABLE
from tests.workspaces import make_workspace

SECRET = "sesame-7f3a"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "shop")


def _foreign(file: Path) -> None:
    """Put a link to a file of somebody else."""
    foreign = file.parent.parent / "shadow"
    foreign.write_text(f"root: {SECRET}\n{SECRET}: [\n")
    file.symlink_to(foreign)


def _sparse(file: Path) -> None:
    file.touch()
    os.truncate(file, FILE_BYTES_MAX + 1)


def _socket(file: Path) -> None:
    here = Path.cwd()
    os.chdir(file.parent)  # an address has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(file.name)
    finally:
        os.chdir(here)


PUT: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link out": (_foreign, "expected a file within its folder, got a link that leads out of it"),
    "a link to a device": (lambda file: file.symlink_to("/dev/zero"), "expected a file within its folder, got a link"),
    "a link to nothing": (lambda file: file.symlink_to("nothing.yaml"), "expected a readable file, got no such file"),
    "a link to itself": (lambda file: file.symlink_to(file.name), "expected a readable file, got too many levels"),
    "a pipe": (os.mkfifo, "expected a plain file, got a pipe"),
    "a socket": (_socket, "expected a plain file, got a socket"),
    "a folder": (Path.mkdir, "expected a plain file, got a folder"),
    "a large file": (_sparse, f"expected at most {FILE_BYTES_MAX} bytes, got {FILE_BYTES_MAX + 1} bytes"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("what", PUT)
def test_what_is_no_plain_file_is_refused(folder: Path, name: str, what: str) -> None:
    """Each file of the workspace is refused in one line that names it and tells nothing of what is behind it."""
    put, told = PUT[what]
    (folder / name).unlink(missing_ok=True)
    put(folder / name)
    with pytest.raises(BadWorkspace) as caught:
        load(folder)
    assert str(caught.value).startswith(f"{name}: at $: {told}")
    assert "\n" not in str(caught.value) and SECRET not in str(caught.value)
    assert data_of(folder) == folder / ".opportune"


def test_changed_files_are_held_to_the_same(folder: Path, tmp_path: Path) -> None:
    """Files that a simulation takes from another folder are plain files of that folder."""
    workspace = load(folder)
    for number, what in enumerate(("a link out", "a pipe")):
        other = tmp_path / str(number) / "other"
        other.mkdir(parents=True)
        PUT[what][0](other / "policies.yaml")
        with pytest.raises(BadWorkspace) as caught:
            changed(workspace, other)
        assert PUT[what][1] in str(caught.value) and SECRET not in str(caught.value)


def test_the_doctor_does_not_wait_for_keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe or a device in place of the key file is told, and not read."""
    os.mkfifo(folder / "keys")
    for path, told in (str(folder / "keys"), "got a pipe"), ("/dev/zero", "got a device"):
        monkeypatch.setenv(FILE_VARIABLE, path)
        assert told in machine(load(folder)).keys_fault


def test_a_mounted_configmap_is_taken(folder: Path) -> None:
    """Links to another place in the folder, by way of a linked folder, are what Kubernetes mounts: they are read."""
    (folder / "..2026").mkdir()
    (folder / "..data").symlink_to("..2026")
    linked = [name for name in FILES if (folder / name).exists()]
    for name in linked:
        (folder / name).rename(folder / "..2026" / name)
        (folder / name).symlink_to(f"..data/{name}")
    assert len(linked) >= 4
    beside = folder.parent / "by another name"
    beside.symlink_to(folder)
    assert load(folder).settings == load(beside).settings


def test_a_file_that_is_exchanged_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that takes the file's place after the first look is neither waited for nor read."""
    file = tmp_path / "offers.yaml"
    os.mkfifo(file)
    looks = []
    look = files._require_plain
    monkeypatch.setattr(files, "_require_plain", lambda found: looks.append(found) or (len(looks) > 1 and look(found)))
    with pytest.raises(NotPlain, match="got a pipe"):
        read_plain(file, 10)
    assert len(looks) == 2


def test_the_bound_holds_for_what_has_no_size() -> None:
    """A file that says that it is empty, as those of /proc do, is read up to the bound and then refused."""
    with pytest.raises(NotPlain, match="expected at most 10 bytes, got more"):
        read_plain(Path("/proc/self/status"), 10)
    assert len(read_plain(Path("/proc/self/status"), 1 << 20)) > 10
