"""The parts of a registered version, fetched from MLflow and verified before any of them is used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from features.columns.contract import Column, Contract
from features.common.files import digest_of
from features.workspace.workspace import Workspace
from training.bundle import registry
from training.bundle.bundle import BadBundle
from training.bundle.calibration_map import Calibration

NAMES = ("columns.json", "categories.json", "calibration.json", "golden.json")
"""What a run keeps beside its model for the bundle."""

DIGEST_TAG = "opportune.parts_sha256"


@dataclass(frozen=True)
class Artifacts:
    """Files of one version on disk, as they were recorded at training, and what MLflow says of its run."""

    model: Path
    folder: Path
    """Has the files of `NAMES`."""
    contract: Contract
    categories: dict[str, list[str]]
    calibration: Calibration
    record: dict[str, Any]


def digest(contents: dict[str, bytes]) -> str:
    """SHA-256 over the files of `NAMES`."""
    return hashlib.sha256("".join(hashlib.sha256(contents[name]).hexdigest() for name in NAMES).encode()).hexdigest()


def fetch(workspace: Workspace, version: str, place: Path) -> Artifacts:
    """Download a version into a folder and verify it against what was recorded at training. The model itself is not
    loaded.

    Raises:
        BadBundle: it is not what was trained, or not for the workspace's columns.
        RegistryUnavailable: MLflow does not have it, or does not answer.
    """
    record = registry.download(workspace, version, place)
    model, folder = place / "model.txt", place / registry.ARTIFACTS
    if digest_of(model) != record["digest"]:
        raise BadBundle(
            f"expected the model of version {version} to be the one that was trained, got another digest. Train again;"
            " do not serve it."
        )
    try:
        contents = {name: (folder / name).read_bytes() for name in NAMES}
        if digest(contents) != record["tags"].get(DIGEST_TAG):
            raise BadBundle(
                f"expected {', '.join(NAMES)} of version {version} as they were recorded, got others. Train again; do"
                " not serve it."
            )
        contract = msgspec.json.decode(contents["columns.json"], type=Contract)
        refuse_other_columns(workspace, contract)
        categories = msgspec.json.decode(contents["categories.json"], type=dict[str, list[str]])
        calibration = msgspec.json.decode(contents["calibration.json"], type=Calibration)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadBundle(f"expected {', '.join(NAMES)} beside the model of version {version}, got: {error}") from error
    return Artifacts(model, folder, contract, categories, calibration, record)


def refuse_other_columns(workspace: Workspace, contract: Contract) -> None:
    """A model that was trained on other columns would score nonsense without an error.

    Raises:
        BadBundle: with the difference.
    """
    wanted = workspace.contract
    if contract.fingerprint == wanted.fingerprint:
        return
    differences = _differences(wanted.columns, contract.columns)
    differences += [f"for rules, {text}" for text in _differences(wanted.auxiliary, contract.auxiliary)]
    raise BadBundle(
        f"expected a model on the workspace's columns, got another contract ({'; '.join(differences)}). Run `opportune"
        " train`."
    )


def _differences(wanted: tuple[Column, ...], found: tuple[Column, ...]) -> list[str]:
    ours, theirs = {column.name: column for column in wanted}, {column.name: column for column in found}
    changed = [
        f"{name} ({_change(ours[name], theirs[name])})"
        for name in sorted(set(ours) & set(theirs))
        if ours[name] != theirs[name]
    ]
    named = {
        "not in the model": sorted(set(ours) - set(theirs)),
        "only in the model": sorted(set(theirs) - set(ours)),
        "changed": changed,
    }
    if wanted != found and not any(named.values()):
        at = next((at for at, (one, other) in enumerate(zip(wanted, found, strict=False)) if one != other), len(wanted))
        named = {"another order from": [column.name for column in found[at : at + 2]]}
    return [f"{what}: {', '.join(names[:10])}" for what, names in named.items() if names]


def _change(ours: Column, theirs: Column) -> str:
    before, after = msgspec.structs.asdict(theirs), msgspec.structs.asdict(ours)
    return ", ".join(
        f"{key} {before[key]!r} in the model, {after[key]!r} here" for key in after if before[key] != after[key]
    )
