"""A workspace is portable: wherever its folder was copied, moved or linked to, it works from there, into itself
alone.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from pathlib import Path

import pytest
from feast import FeatureStore
from typer.testing import CliRunner

from features.common.files import digest_of
from features.common.timestamps import to_microseconds
from features.feature_store import definitions
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.deploy import publish as publishing
from pipelines.deploy.supervisor import only_one
from pipelines.main import app
from pipelines.materialize import steps
from pipelines.materialize.damage import servers_run
from pipelines.shipping import ship
from serving.decision.journal import Journal
from serving.runtime.metrics import memory_directory
from tests.trained import copy_of, end_of_data
from training.bundle import registry
from training.fitting.train import train

NAMES = ("plain", "Ünï code, with blanks", "a%41b", "a?b", "a#b", "a=b [x] 'q'")
HARD = "Ünï a=b [x] 'q' %41?c#d"


@pytest.fixture(scope="module")
def original(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that is at home where it lies, as version 1d4f7d4 has written it: with its absolute addresses in MLflow,
    and in Feast's files.
    """
    folder = copy_of(trained_workspace, tmp_path_factory.mktemp("original") / "fernruf")
    workspace = load(folder)
    registry.connect(workspace)
    definitions.open_store(workspace)
    file = workspace.data / "feast" / "feature_store.yaml"
    text = file.read_text()
    assert "path: registry.db" in text and "path: ../online" in text
    text = text.replace("path: registry.db", f"path: {workspace.data}/feast/registry.db")
    file.write_text(text.replace("path: ../online", f"path: {workspace.data}/online"))
    assert addresses(workspace, folder) == 4  # of the experiment, the run, its model and the version
    return folder


def addresses(workspace: Workspace, folder: Path) -> int:
    """How many texts of MLflow's database begin with the address of a folder."""
    count = 0
    with closing(sqlite3.connect(workspace.data / "mlflow.db")) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for _, column, *_ in db.execute(f'PRAGMA table_info("{table}")').fetchall():
                where = f'instr(CAST("{column}" AS TEXT), ?) = 1'
                count += db.execute(
                    f'SELECT count(*) FROM "{table}" WHERE {where}', (f"{folder.as_uri()}/",)
                ).fetchone()[0]
    return count


def state_of(folder: Path) -> dict[str, str]:
    """Every file of a folder, with the digest of its content."""
    return {str(file.relative_to(folder)): digest_of(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_copy_trains_into_itself(original: Path, tmp_path: Path) -> None:
    """Train, evaluate and go back to the version before, in a copy, change nothing in the original, and leave nothing
    beside the copy.
    """
    before = state_of(original)
    workspace = load(copy_of(original, tmp_path / HARD))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = train(workspace, to_microseconds(end_of_data()))
        publishing.publish(workspace, trained.version)
        assert trained.version == "2" and publishing.serving_version(workspace) == "2"
        publishing.publish(workspace, "1")
    assert publishing.serving_version(workspace) == "1"
    assert state_of(original) == before
    assert addresses(workspace, original) == 0 and addresses(workspace, workspace.folder) == 7
    assert [place.name for place in tmp_path.iterdir()] == [HARD]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(original: Path, tmp_path: Path, name: str) -> None:
    """Version 1 is handed out of the copy, byte for byte what the original has, and nothing is left beside the copy."""
    workspace = load(copy_of(original, tmp_path / "there" / name))
    registry.download(workspace, "1", tmp_path / "of copy")
    registry.download(load(original), "1", tmp_path / "of original")
    assert state_of(tmp_path / "of copy") == state_of(tmp_path / "of original")
    assert [place.name for place in (tmp_path / "there").iterdir()] == [name]


def test_a_moved_workspace_needs_nothing_of_its_old_place(original: Path, tmp_path: Path) -> None:
    """The commands work where the old folder is gone, and do not make it again: evaluate, materialize, forget."""
    first = copy_of(original, tmp_path / "first")
    registry.connect(load(first))
    second = tmp_path / "elsewhere" / "second"
    second.parent.mkdir()
    first.rename(second)
    for verb in (["evaluate", "--version", "1"], ["materialize"], ["forget", "nobody-of-ours"]):
        done = CliRunner().invoke(app, [verb[0], "-w", str(second), *verb[1:]])
        assert done.exit_code == 0, (verb, done.output, done.exception)
    assert not first.exists()


def test_a_link_to_the_workspace_is_the_workspace(original: Path, tmp_path: Path) -> None:
    """Through a symbolic link everything has the address of the folder itself, so that both ways lead to the same and
    nothing is rewritten.
    """
    folder = copy_of(original, tmp_path / "folder")
    link = tmp_path / "link"
    link.symlink_to(folder)
    by_link, itself = load(link), load(folder)
    assert registry.address(by_link) == registry.address(itself)
    assert addresses(itself, folder) == 4 and addresses(itself, link) == 0


def test_two_copies_are_strangers(original: Path, tmp_path: Path) -> None:
    """A copy of a workspace that is held, written and served is neither: it has locks, journals and counters of its
    own.
    """
    one = load(copy_of(original, tmp_path / "one"))
    with closing(Journal.open(one.data / "journal")), steps.alone(one), ship.alone(one), only_one(one):
        other = load(copy_of(one.folder, tmp_path / "other"))
        assert servers_run(one) and not servers_run(other)
        with closing(Journal.open(other.data / "journal")), steps.alone(other), ship.alone(other), only_one(other):
            assert servers_run(other)
        assert memory_directory(one.data) != memory_directory(other.data)


def test_the_tools_of_mlflow_and_feast_work_on_a_moved_workspace(original: Path, tmp_path: Path) -> None:
    """What `opportune registry` prints opens in a process that knows nothing of ours, and gives the model; Feast's own
    files are the copy's.
    """
    workspace = load(copy_of(original, tmp_path / "a%41?"))
    printed = CliRunner().invoke(app, ["registry", "-w", str(workspace.folder)]).stdout.strip()
    code = (
        "import sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]); "
        "print(len(mlflow.lightgbm.load_model('models:/fernruf-accepts/1').feature_name()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, printed], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(len(workspace.contract.columns)), done.stderr
    definitions.open_store(workspace)
    store = FeatureStore(repo_path=str(workspace.data / "feast"))
    assert {view.name for view in store.list_feature_views()} == {view.name for view in workspace.views}
    assert all(str(original) not in str(source) for source in store.list_data_sources())
    customers = [{"customer_id": "nobody"}]
    assert store.get_online_features(features=["calls:calls_all"], entity_rows=customers).to_dict()["calls_all"] == [
        None
    ]


def test_addresses_that_are_not_ours_stay(original: Path, tmp_path: Path) -> None:
    """Experiments that somebody else keeps in the same file, and texts that only contain the old address, are left as
    they are.
    """
    workspace = load(copy_of(original, tmp_path / "copy"))
    foreign = (tmp_path / "theirs").as_uri()
    with closing(sqlite3.connect(workspace.data / "mlflow.db")) as db, db:
        row = (
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time) VALUES"
            " ('x', ?, 'active', 0, 0)"
        )
        db.execute(row, (foreign,))
        db.execute("UPDATE tags SET value = ? WHERE key = 'mlflow.source.name'", (f"see {original.as_uri()}/x",))
        db.execute(
            "UPDATE tags SET value = ? WHERE key = 'mlflow.user'",
            (f"{original.as_uri()}/.opportune/mlflow-artifacts2/x",),
        )
    registry.connect(workspace)
    with closing(sqlite3.connect(workspace.data / "mlflow.db")) as db:
        assert db.execute("SELECT artifact_location FROM experiments WHERE name = 'x'").fetchone() == (foreign,)
        told = dict(db.execute("SELECT key, value FROM tags").fetchall())
    assert told["mlflow.source.name"] == f"see {original.as_uri()}/x"
    assert told["mlflow.user"] == f"{original.as_uri()}/.opportune/mlflow-artifacts2/x"


def test_a_registry_that_cannot_be_written_is_said(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that somebody keeps locked: one line says what could not be done, and no address has changed."""
    workspace = load(copy_of(original, tmp_path / "copy"))
    monkeypatch.setattr("training.bundle.artifact_locations.WAIT_SECONDS_MAX", 0.1)
    with closing(sqlite3.connect(workspace.data / "mlflow.db", isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            registry.RegistryUnavailable,
            match="find its artifacts where the workspace lies now, got: database is locked",
        ):
            registry.address(workspace)
        db.execute("ROLLBACK")
    assert addresses(workspace, workspace.folder) == 0
