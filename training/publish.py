"""From a registered version to a verified bundle: digests, contract, compiled forest, a canary in a process of its own."""

from __future__ import annotations

import tempfile
from importlib.metadata import version as installed
from pathlib import Path

import msgspec

from features.columns import Contract
from features.files import digest_of
from features.moments import now, rfc3339
from features.workspace import Workspace
from training import bundle, canary, registry
from training.bundle import BadBundle, Bundle, Manifest
from training.forest import ForestNotCompilable, compile_forest

LIBRARIES = ("lightgbm", "mlflow", "numpy", "feast")


def make(workspace: Workspace, version: str) -> Path:
    """Write and verify the bundle of a registered version; it does not serve yet.

    Raises:
        BadBundle: the model's digest is not the one recorded at training, its columns are not the workspace's, its forest
            cannot be compiled, or it does not give its golden answers.
        RegistryUnavailable: MLflow does not have the version.
    """
    with tempfile.TemporaryDirectory(prefix="opportune-") as scratch:
        parts = Path(scratch)
        record = registry.download(workspace, version, parts)
        model, source = parts / "model.txt", parts / registry.ARTIFACTS
        if digest_of(model) != record["digest"]:
            raise BadBundle(f"expected the model of version {version} to be the one that was trained, got another digest. Train again; do not serve it.")
        contract = msgspec.json.decode((source / "columns.json").read_bytes(), type=Contract)
        refuse_other_columns(workspace, contract)
        try:
            compile_forest(model.read_text()).save(parts / "forest.npz")
        except ForestNotCompilable as error:
            raise BadBundle(str(error)) from error
        manifest = Manifest(
            format=bundle.FORMAT,
            name=workspace.model.name,
            version=version,
            run_id=record["run_id"],
            created_at=rfc3339(now()),
            contract=contract.fingerprint,
            files={},
            metrics={name: value for name, value in record["metrics"].items() if "." not in name},
            data={name.removeprefix("opportune."): value for name, value in record["tags"].items() if name.startswith("opportune.")},
            libraries={name: installed(name) for name in LIBRARIES},
        )
        contents: dict[str, bytes | Path] = {"model.txt": model, "forest.npz": parts / "forest.npz"}
        contents |= {name: source / name for name in ("columns.json", "categories.json", "calibration.json", "golden.json")}
        place = bundle.write(workspace.bundles, contents, manifest)
    verify(workspace, place)
    return place


def verify(workspace: Workspace, place: Path) -> Bundle:
    """All checks that a bundle must pass before it may serve.

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


def refuse_other_columns(workspace: Workspace, contract: Contract) -> None:
    """A model that was trained on other columns would score nonsense without an error.

    Raises:
        BadBundle: with the difference.
    """
    wanted = workspace.contract
    if contract.fingerprint == wanted.fingerprint:
        return
    ours, theirs = {column.name: column for column in wanted.columns}, {column.name: column for column in contract.columns}
    missing, more = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    changed = sorted(name for name in set(ours) & set(theirs) if ours[name] != theirs[name])
    parts = [f"{what}: {', '.join(names[:10])}" for what, names in (("not in the model", missing), ("only in the model", more), ("changed", changed)) if names]
    raise BadBundle(f"expected a model on the workspace's columns, got another contract ({'; '.join(parts) or 'another order'}). Run `opportune train`.")
