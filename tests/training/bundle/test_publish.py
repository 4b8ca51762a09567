"""From a registered version to a bundle: what is not what was trained never comes to serve."""

from __future__ import annotations

import re
import shutil
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from features.columns.contract import Contract
from features.common.errors import Failure
from features.config.workspace_file import Stores
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.deploy import publish as publishing
from tests.trained import copy_of
from training.bundle import bundle, publish, registry
from training.bundle.artifacts import refuse_other_columns
from training.bundle.bundle import BadBundle


@pytest.fixture(scope="module")
def copy(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A trained workspace whose artifacts may be damaged, and are mended after each test."""
    return load(copy_of(trained_workspace, tmp_path_factory.mktemp("publish") / "fernruf"))


@pytest.fixture
def workspace(copy: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    kept = shutil.copytree(copy.data / "mlflow-artifacts", tmp_path / "kept")
    served = bundle.current(copy.bundles)
    yield copy
    shutil.rmtree(copy.data / "mlflow-artifacts")
    shutil.copytree(kept, copy.data / "mlflow-artifacts")
    assert bundle.current(copy.bundles) == served  # what serves stays, whatever went wrong


def made(workspace: Workspace, version: str = "1") -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return publish.make(workspace, version)


def refusal(workspace: Workspace) -> str:
    """The message with which the version is refused; nothing of it stays on disk."""
    before = set(workspace.bundles.iterdir())
    with pytest.raises(BadBundle) as caught:
        made(workspace)
    assert set(workspace.bundles.iterdir()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def artifact(workspace: Workspace, name: str) -> Path:
    (found,) = (workspace.data / "mlflow-artifacts").glob(f"**/{name}")
    return found


def test_a_version_becomes_a_bundle(workspace: Workspace) -> None:
    """The bundle says where it comes from: version, run, columns, metrics, data, libraries; and it passes all checks
    again.
    """
    place = made(workspace)
    found = publish.verify(workspace, place)
    manifest = found.manifest
    assert (manifest.name, manifest.version, manifest.contract) == (
        workspace.model.name,
        "1",
        workspace.contract.fingerprint,
    )
    assert manifest.run_id and manifest.metrics["mrr"] > 0.4 and "popularity.mrr" not in manifest.metrics
    assert {"data_sha256", "model_sha256", "parts_sha256", "rows"} <= set(manifest.data)
    assert set(manifest.libraries) == set(publish.LIBRARIES)
    assert len(found.golden) == 13 and list(found.forest.columns) == workspace.contract.names
    publishing.rehearse(workspace, place)  # the kernel gives the same answers


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    at = content.index(b"leaf_value=") + 14
    content[at] = ord("1") if content[at] != ord("1") else ord("2")
    file.write_bytes(content)


TAMPERED: list[tuple[str, str, Callable[[Path], object], str]] = [
    (
        "a digit",
        "model.lgb",
        _flip,
        "expected the model of version 1 to be the one that was trained, got another digest",
    ),
    ("cut", "model.lgb", lambda file: file.write_bytes(file.read_bytes()[:-900]), "got another digest"),
    ("empty", "model.lgb", lambda file: file.write_bytes(b""), "got another digest"),
    ("golden", "golden.json", lambda file: file.write_bytes(b"[]"), "as they were recorded, got others"),
    (
        "calibration",
        "calibration.json",
        lambda file: file.write_bytes(b'{"method":"sigmoid","slope":2.0}'),
        "as they were recorded",
    ),
    ("categories", "categories.json", lambda file: file.write_bytes(b"{}"), "as they were recorded"),
    ("columns", "columns.json", lambda file: file.write_bytes(b"{}"), "as they were recorded"),
    ("no calibration", "calibration.json", Path.unlink, "expected columns.json"),
]


@pytest.mark.parametrize(
    ("name", "tamper", "reason"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED]
)
def test_a_changed_artifact_is_refused(
    workspace: Workspace, name: str, tamper: Callable[[Path], object], reason: str
) -> None:
    """Who can write to MLflow's folder cannot change what serves: model, calibration, columns and answers have
    digests.
    """
    tamper(artifact(workspace, name))
    assert reason in refusal(workspace)


def test_a_model_that_is_gone_is_said(workspace: Workspace) -> None:
    """No model text among the artifacts: one line, not a stack."""
    artifact(workspace, "model.lgb").unlink()
    with pytest.raises(registry.RegistryUnavailable, match="expected a LightGBM text model in version 1"):
        made(workspace)


def with_columns(workspace: Workspace, contract: Contract) -> Workspace:
    """The workspace, with other columns than its model was trained on."""
    changed = replace(workspace)
    changed.__dict__["contract"] = contract
    return changed


def _changed(contract: Contract) -> Contract:
    columns = list(contract.columns)
    at = contract.names.index("offer_price")
    columns[at] = msgspec.structs.replace(columns[at], dtype="category")
    return Contract(tuple(columns), contract.auxiliary)


def _swapped(contract: Contract) -> Contract:
    first, second, *rest = contract.columns
    return Contract((second, first, *rest), contract.auxiliary)


def _added(contract: Contract) -> Contract:
    more = msgspec.structs.replace(contract.columns[-1], name="brand_new")
    return Contract((*contract.columns, more), contract.auxiliary)


OTHER: list[tuple[str, Callable[[Contract], Contract], str]] = [
    ("removed", lambda c: Contract(c.columns[1:], c.auxiliary), "only in the model: tariff"),
    ("added", _added, "not in the model: brand_new"),
    (
        "renamed",
        lambda c: _added(Contract(c.columns[:-1], c.auxiliary)),
        "not in the model: brand_new; only in the model: ",
    ),
    ("swapped", _swapped, "another order from: "),
    ("dtype", _changed, "changed: offer_price (dtype 'number' in the model, 'category' here)"),
    ("rules", lambda c: Contract(c.columns, ()), "for rules, only in the model: targeted_all"),
]


@pytest.mark.parametrize(("change", "reason"), [case[1:] for case in OTHER], ids=[case[0] for case in OTHER])
def test_other_columns_are_refused_with_the_difference(
    workspace: Workspace, change: Callable[[Contract], Contract], reason: str
) -> None:
    """Removed, added, renamed, swapped, of another type: refused, never put in order silently, and it is said which."""
    changed = with_columns(workspace, change(workspace.contract))
    message = refusal(changed)
    assert reason in message and "Run `opportune train`" in message
    place = bundle.current(workspace.bundles)
    assert place is not None
    with pytest.raises(BadBundle, match=re.escape(reason)):
        publish.verify(changed, place)


def test_the_same_columns_are_not_refused(workspace: Workspace) -> None:
    """A contract that was written and read again is the same."""
    refuse_other_columns(workspace, msgspec.json.decode(msgspec.json.encode(workspace.contract), type=Contract))


# the registry
# -----------------------------------------------------------------------------------------------------------


def test_a_version_that_does_not_exist_is_said(workspace: Workspace) -> None:
    """Neither a number too many nor a word: one line that names it."""
    with pytest.raises(
        registry.RegistryUnavailable, match=r"expected MLflow to hand out version 99 of fernruf-accepts, got: .*99"
    ):
        made(workspace, "99")


def test_a_registry_that_is_away_fails_with_one_line(workspace: Workspace) -> None:
    """A closed port: every verb that needs MLflow says so, and none of them waits for minutes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stores = msgspec.structs.replace(workspace.settings.stores, registry=f"http://127.0.0.1:{port}")
    assert isinstance(stores, Stores)
    away = replace(workspace, settings=msgspec.structs.replace(workspace.settings, stores=stores))
    for verb in (
        lambda: made(away),
        lambda: registry.version_of(away, "champion"),
        lambda: registry.set_alias(away, "champion", "1"),
    ):
        with pytest.raises(Failure, match=f"expected MLflow to open its store, got: .*{port}") as caught:
            verb()
        assert "\n" not in str(caught.value)
    registry.connect(workspace)
    place = bundle.current(workspace.bundles)
    assert place is not None and bundle.read(place)  # and what serves needs no registry


def test_a_version_has_one_bundle_whenever_it_is_published(trained_workspace: Path, tmp_path: Path) -> None:
    """Published again, a version is the same bundle with the same digest, whose files are left as they lie, so that
    answers name one model.
    """
    workspace = load(copy_of(trained_workspace, tmp_path / "shop"), sources=False)
    version = publishing.serving_version(workspace)
    assert version is not None
    first = publish.make(workspace, version)
    before = {file.name: (file.stat().st_ino, file.read_bytes()) for file in first.iterdir()}
    again = publish.make(workspace, version)
    assert again == first and {file.name: (file.stat().st_ino, file.read_bytes()) for file in again.iterdir()} == before
    (first / "forest.npz").write_bytes(b"damaged")
    assert publish.make(workspace, version) == first and (first / "forest.npz").read_bytes() == before["forest.npz"][1]
