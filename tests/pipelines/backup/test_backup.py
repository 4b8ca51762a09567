"""Backups: whole or refused, hostile ones too; restored beside or in place, with nothing overwritten and nobody
remembered who was forgotten.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result
from typer.testing import CliRunner

from features.events.log import EventLog, event_folder
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.backup.archive import BackupManifest, BadBackup, read, write
from pipelines.backup.backup import CannotBackUp, back_up
from pipelines.backup.contents import Contents, contents_of
from pipelines.backup.restore import CannotRestore, restore
from pipelines.erasure.erase import forget
from pipelines.erasure.scan import scan
from pipelines.main import app
from pipelines.materialize import hold, rebuild, steps
from pipelines.materialize.damage import look
from pipelines.shipping.ship import ship
from serving.journal.journal import Journal
from tests.pipelines.erasure_cases import OTHER, UNITS, VICTIM, build, content
from tests.pipelines.loops import copy_of

EMPTY = Contents({}, 0, 0, 0, 0, 0, 0, None, None)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small workspace with something in every place, a part of it shipped; to be read only."""
    return build(tmp_path_factory.mktemp("backed up") / "shop").folder


@pytest.fixture
def workspace(base: Path, tmp_path: Path) -> Workspace:
    return copy_of(load(base), tmp_path / "shop")


@pytest.fixture(scope="module")
def saved(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it."""
    file = tmp_path_factory.mktemp("saved") / "shop.tar.zst"
    back_up(copy_of(load(base), file.parent / "shop"), file)
    return file


def said(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["shop.tar", "shop.tar.zst", "shop.tgz"])
def test_what_is_restored_is_what_was_there(workspace: Workspace, tmp_path: Path, name: str) -> None:
    """Every event, decision, row and file is there once, in any compression, and the rest of the work goes on: what
    waited is shipped.
    """
    expected = content(workspace)
    done = said("backup", tmp_path / name, "-w", workspace.folder, "--json")
    assert done.exit_code == 0, done.output
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    told = json.loads(done.stdout)["contents"]
    assert told["events"] > told["events_waiting"] > 0 and told["decisions_waiting"] > 0 and told["customers"] > 0
    assert (
        said("backup", tmp_path / name, "--verify").exit_code
        == said("restore", tmp_path / name, "-w", "x", "--verify").exit_code
        == 0
    )
    shutil.rmtree(workspace.folder)
    done = said("restore", tmp_path / name, "-w", tmp_path / "new" / "shop", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["contents"] == told
    restored = load(tmp_path / "new" / "shop")
    assert content(restored) == expected
    ship(restored)
    shipped = contents_of(restored)
    assert shipped.events_waiting == shipped.decisions_waiting == 0 and shipped.events == told["events"]


def test_a_backup_leaves_nothing_behind(workspace: Workspace, tmp_path: Path) -> None:
    """Neither copies in the data folder nor half a file; locks, logs and what was not finished are not in the
    archive.
    """
    back_up(workspace, tmp_path / "shop.tar")
    names = {member.name for member in read(tmp_path / "shop.tar").members}
    assert not list((workspace.data / "aside").glob("backup*")) and sorted(p.name for p in tmp_path.iterdir()) == [
        "shop",
        "shop.tar",
    ]
    assert not [
        name
        for name in names
        if name.endswith((".lock", ".alive", "-wal", "-shm", "lock.mdb", "/turn")) or "/aside/" in name
    ]
    assert {
        "data/events/events.db",
        "data/ledger/data.mdb",
        "data/lake/shipped.json",
        "workspace/features.yaml",
    } <= names
    assert any(name.startswith("workspace/data/calls") for name in names)


def test_a_disk_that_is_full_leaves_the_backup_of_before(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails while it is written is gone, and the file that was there under the name is as it was."""
    file = tmp_path / "shop.tar"
    file.write_bytes(b"of before")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(OSError, match="No space left"):
        back_up(workspace, file)
    assert file.read_bytes() == b"of before" and sorted(p.name for p in tmp_path.iterdir()) == ["shop", "shop.tar"]


def test_places_where_no_backup_can_be(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not within what is copied, not in a folder that is not there; and not while another process works on the
    workspace for too long.
    """
    for file in (workspace.data / "shop.tar", tmp_path / "nowhere" / "shop.tar", tmp_path):
        with pytest.raises(CannotBackUp, match="expected"):
            back_up(workspace, file)
    monkeypatch.setattr(hold, "ALONE_SECONDS_MAX", 0.2)
    with steps.alone(workspace), pytest.raises(steps.Busy):
        back_up(workspace, tmp_path / "shop.tar")


def test_a_damaged_ledger_is_told_and_made_again(workspace: Workspace, tmp_path: Path) -> None:
    """A store that cannot be copied keeps nothing else from being saved; where the backup is restored it is made again
    from the rest.
    """
    file = workspace.data / "ledger" / "data.mdb"
    file.write_bytes(os.urandom(file.stat().st_size))
    manifest = back_up(workspace, tmp_path / "shop.tar")
    assert "damaged" in manifest.left_out["ledger"] and manifest.contents.ledger == 0
    restore(tmp_path / "shop.tar", tmp_path / "new")
    restored, told = load(tmp_path / "new"), list[str]()
    rebuild.mend(restored, told.append)
    assert any("ledger" in line for line in told) and not look(restored)["ledger"].why
    assert contents_of(restored).ledger > 0


# where it goes
# ----------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(workspace: Workspace, saved: Path) -> None:
    """A data folder, or other files of a workspace, are in the way and stay as they are; with --force they go aside,
    sources never do.
    """
    before = {path: path.stat().st_mtime_ns for path in workspace.folder.rglob("*")}
    done = said("restore", saved, "-w", workspace.folder)
    assert isinstance(done.exception, CannotRestore) and "expected no data in" in str(done.exception)
    shutil.move(workspace.data, workspace.folder.parent / "kept")
    (workspace.folder / "offers.yaml").write_text("offers: []\n")
    done = said("restore", saved, "-w", workspace.folder)
    assert isinstance(done.exception, CannotRestore) and "got offers.yaml, which differ" in str(done.exception)
    shutil.move(workspace.folder.parent / "kept", workspace.data)
    assert {path: path.stat().st_mtime_ns for path in before if path.is_file()} == {
        path: path.stat().st_mtime_ns if path.name == "offers.yaml" else at
        for path, at in before.items()
        if path.is_file()
    }
    source = next((workspace.folder / "data").glob("calls*"))
    source.write_bytes(source.read_bytes() + b"x")
    restored = restore(saved, workspace.folder, force=True)
    kept = Path(restored.kept)
    assert kept.parent == workspace.folder and (kept / "lake").is_dir()
    assert (kept / "workspace" / "offers.yaml").read_text() == "offers: []\n"
    assert restored.sources_kept == [f"data/{source.name}"] and source.read_bytes().endswith(b"x")
    assert (workspace.folder / "offers.yaml").read_text() != "offers: []\n"
    assert not list(workspace.folder.glob(".restore-*"))


def test_not_under_a_server(workspace: Workspace, saved: Path) -> None:
    """While a server runs on the folder its data is not taken away, with --force neither."""
    journal = Journal.open(workspace.data / "journal")
    try:
        with pytest.raises(CannotRestore, match="expected no server"):
            restore(saved, workspace.folder, force=True)
    finally:
        journal.close()
    assert (workspace.data / "lake").is_dir()


def test_into_a_mounted_data_folder(saved: Path, tmp_path: Path) -> None:
    """An empty data folder, as a mounted disk is, stays the one that it is."""
    data = tmp_path / "shop" / ".opportune"
    (data / "lost+found").mkdir(parents=True)
    inode = data.stat().st_ino
    restored = restore(saved, tmp_path / "shop")
    assert data.stat().st_ino == inode and (data / "lake").is_dir() and not restored.kept


# who was forgotten since
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_who_was_forgotten_since_is_forgotten_again(workspace: Workspace, tmp_path: Path) -> None:
    """In place by itself, elsewhere when the later data folder is named; without one it is said that nobody can
    tell.
    """
    file = tmp_path / "shop.tar"
    back_up(workspace, file)
    assert forget(workspace, VICTIM).done
    later = workspace.data
    done = said("restore", file, "-w", tmp_path / "untold")
    assert "who was forgotten after the backup is in it again" in " ".join(done.output.split())
    assert scan(tmp_path / "untold" / ".opportune", UNITS).plaintext_hits
    done = said("restore", file, "-w", tmp_path / "told", "--forgotten-from", later, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["forgotten_again"] >= 1
    assert not scan(tmp_path / "told" / ".opportune", UNITS).plaintext_hits
    assert scan(tmp_path / "told" / ".opportune", [OTHER]).plaintext_hits
    done = said("restore", file, "-w", workspace.folder, "--force", "--json")
    assert json.loads(done.stdout)["forgotten_again"] >= 1 and not scan(workspace.data, UNITS).plaintext_hits


def test_logs_that_have_nothing_to_do_with_each_other(workspace: Workspace, saved: Path, tmp_path: Path) -> None:
    """Another log's marks have another key: it is said that they tell nothing."""
    other = tmp_path / "other"
    with closing(EventLog(event_folder(other))) as log:
        log.forget(VICTIM, 1)
    done = said("restore", saved, "-w", tmp_path / "new", "--forgotten-from", other, "--json")
    told = json.loads(done.stdout)
    assert told["forgotten_again"] == 0 and "with another key" in told["forgotten_unknown"]


@pytest.mark.parametrize("data", ["../elsewhere", "/tmp/elsewhere-of-nobody"])
def test_a_hostile_workspace_does_not_choose_its_place(base: Path, tmp_path: Path, data: str) -> None:
    """A data folder outside of the folder that was named is refused where that folder does not say so already."""
    for file in base.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    with (tmp_path / "workspace.yaml").open("a") as settings_:
        settings_.write(f"data: {data}\n")
    members = [(f"workspace/{file.name}", file) for file in sorted(tmp_path.glob("*.yaml"))]
    write(tmp_path / "x.tar", members, lambda made: BackupManifest(1, "x", 0, {}, EMPTY, {}, made), lambda *_: None)
    for force in (False, True):
        with pytest.raises(CannotRestore, match="expected a data folder below"):
            restore(tmp_path / "x.tar", tmp_path / "deep" / "new", force=force)
    assert not (tmp_path / "deep" / "new").exists() and not (tmp_path / "deep" / "elsewhere").exists()


def test_counts_that_differ_are_refused(base: Path, tmp_path: Path) -> None:
    """Digests that fit are not enough: what is counted in the restored files must be what was counted when they were
    copied.
    """
    (tmp_path / "a").write_bytes(b"a")
    members = [("data/a", tmp_path / "a"), *((f"workspace/{file.name}", file) for file in sorted(base.glob("*.yaml")))]
    lies = msgspec.structs.replace(EMPTY, events=7)
    write(tmp_path / "x.tar", members, lambda made: BackupManifest(1, "x", 0, {}, lies, {}, made), lambda *_: None)
    with pytest.raises(BadBackup, match="expected 7 as its events, got 0"):
        restore(tmp_path / "x.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()
