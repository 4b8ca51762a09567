"""A workspace as a folder: what loads, what is missing, and what the loaded one says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from features.config.documents import BadWorkspace
from features.config.experiments import ExperimentsFile
from features.config.policies import PoliciesFile
from features.validation.load import load
from features.workspace.workspace import ONLINE_URL_VARIABLE
from tests.workspaces import make_workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "fern ruf [1]", customers=3, decisions=1, days=2)


def test_a_good_workspace_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole workspace loads from a folder whose name would be a glob, relative or not, and holds one column of every
    kind.
    """
    monkeypatch.chdir(folder.parent)
    workspace = load(Path(folder.name))
    assert workspace.folder == folder.resolve()
    assert {column.kind for column in workspace.contract.columns} == {"customer", "context", "offer", "pair"}
    assert {column.dtype for column in workspace.contract.columns} == {"number", "category", "age"}
    assert workspace.contract.fingerprint == load(folder).contract.fingerprint
    assert workspace.data == folder.resolve() / ".opportune"


def test_a_folder_without_workspace_says_what_to_do(tmp_path: Path) -> None:
    """A folder that is none names the file that is missing and both ways out."""
    with pytest.raises(
        BadWorkspace,
        match="workspace.yaml: at \\$: expected a workspace folder, got no such file. Name a folder with -w",
    ):
        load(tmp_path)


@pytest.mark.parametrize("name", ["features.yaml", "offers.yaml", "model.yaml"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    """Each of the files must be there."""
    (folder / name).unlink()
    with pytest.raises(
        BadWorkspace, match=f"{name}: at \\$: expected a readable file, got no such file or directory. See"
    ):
        load(folder)


def test_policies_may_be_absent(folder: Path) -> None:
    """No policies are the same as empty ones."""
    (folder / "policies.yaml").unlink()
    assert load(folder).policies == PoliciesFile()


def test_experiments_may_be_absent(folder: Path) -> None:
    """No experiments are the same as an empty file of them."""
    assert load(folder).experiments == ExperimentsFile()
    (folder / "experiments.yaml").write_text("")
    assert load(folder).experiments == ExperimentsFile()


def test_faults_of_experiments_come_with_the_workspace(folder: Path) -> None:
    """An experiment that cannot be is a fault of the workspace, with its place in the file."""
    (folder / "experiments.yaml").write_text("experiments:\n  one: {status: running, arms: {alone: {}}}\n")
    with pytest.raises(BadWorkspace, match=r"experiments.yaml.*expected two arms at least, got 1"):
        load(folder)


def test_faults_of_several_files_come_together(folder: Path) -> None:
    """A broken file does not hide the faults of the next."""
    (folder / "model.yaml").write_text("nme: x")
    (folder / "workspace.yaml").write_text("name: [")
    with pytest.raises(BadWorkspace) as caught:
        load(folder)
    assert {fault.file for fault in caught.value.faults} == {"workspace.yaml", "model.yaml"}


def test_sources_are_found_by_short_and_long_form(folder: Path) -> None:
    """A source is a path, or a path with renamed columns; streams are found by their full name."""
    workspace = load(folder)
    customers, offers = workspace.source("customers"), workspace.source("offers")
    assert customers is not None
    assert customers.columns == {"customer_id": "msisdn", "valid_from": "since"}
    assert offers is not None
    assert offers.path == "data/offers.csv"
    assert workspace.source("streams.payments") is not None
    assert workspace.source("streams.nothing") is None


def test_the_environment_may_name_another_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One workspace in several places: the variable wins over the file."""
    assert load(folder).online_url == "embedded"
    monkeypatch.setenv(ONLINE_URL_VARIABLE, "redis://cache:6379/1")
    assert load(folder).online_url == "redis://cache:6379/1"


def test_a_copy_means_the_same(folder: Path, tmp_path: Path) -> None:
    """The contract depends on what the files say and not on where they are."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert load(copy).contract == load(folder).contract
