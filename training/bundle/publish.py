"""From a registered version to a verified bundle: digests, contract, compiled forest, a canary in a process of its
own.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import version as installed
from pathlib import Path

from features.common.timestamps import now, rfc3339
from features.workspace.workspace import Workspace
from training.bundle import artifacts, bundle, canary, registry
from training.bundle.artifacts import refuse_other_columns as refuse_other_columns
from training.bundle.bundle import BadBundle, Bundle, Manifest
from training.bundle.forest_compiler import ForestNotCompilable, compile_forest

LIBRARIES = ("lightgbm", "mlflow", "numpy", "feast")


def make(workspace: Workspace, version: str) -> Path:
    """Write and verify the bundle of a registered version; it does not serve yet.

    Raises:
        BadBundle: the model or what is beside it is not what was recorded at training, its columns are not the
            workspace's, its forest cannot be compiled, or it does not give its golden answers.
        RegistryUnavailable: MLflow does not have the version.
    """
    with tempfile.TemporaryDirectory(prefix="opportune-") as scratch:
        found = artifacts.fetch(workspace, version, Path(scratch))
        forest = Path(scratch) / "forest.npz"
        try:
            compile_forest(found.model.read_text()).save(forest)
        except ForestNotCompilable as error:
            raise BadBundle(str(error)) from error
        tags, metrics = found.record["tags"], found.record["metrics"]
        manifest = Manifest(
            format=bundle.FORMAT,
            name=workspace.model.name,
            version=version,
            run_id=found.record["run_id"],
            created_at=rfc3339(
                registry.registered_at(workspace, version) or now()
            ),  # one digest a version, whenever it is published
            contract=found.contract.fingerprint,
            files={},
            metrics={name: value for name, value in metrics.items() if "." not in name},
            data={
                name.removeprefix("opportune."): value for name, value in tags.items() if name.startswith("opportune.")
            },
            libraries={name: installed(name) for name in LIBRARIES},
        )
        contents: dict[str, bytes | Path] = {"model.txt": found.model, "forest.npz": forest}
        contents |= {name: found.folder / name for name in artifacts.NAMES}
        known = set(workspace.bundles.glob("*"))
        place = bundle.write(workspace.bundles, contents, manifest)
    try:
        verify(workspace, place)
    except BadBundle:
        if place not in known:
            shutil.rmtree(place, ignore_errors=True)
        raise
    return place


def verify(workspace: Workspace, place: Path) -> Bundle:
    """Run all checks that a bundle must pass before it may serve, and return it.

    Raises:
        BadBundle: with the reason.
    """
    found = bundle.read(place)
    refuse_other_columns(workspace, found.contract)
    if not found.golden:
        raise BadBundle("expected golden requests in the bundle, got none: a check that runs nothing has failed")
    try:
        canary.rehearse(place / "model.txt", place / "golden.json")
    except canary.CanaryFailed as error:
        raise BadBundle(str(error)) from error
    return found
