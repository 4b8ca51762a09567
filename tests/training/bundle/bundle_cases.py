"""Small bundles, the message with which one is refused, and a manifest that fits what was changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from features.columns.contract import Contract
from tests.examples import contract_of
from tests.forests import trained
from training.bundle import bundle
from training.bundle.bundle import BadBundle, Golden, Manifest, nullable
from training.bundle.calibration_map import Calibration
from training.bundle.forest_compiler import compile_forest

CREATED = "2026-11-22T09:30:00Z"


def contents_of(seed: int, folder: Path) -> tuple[dict[str, bytes | Path], Contract]:
    """The files of a small model with one offer column a feature, one of them a category."""
    booster = trained(seed, 8, "binary", trees=3)
    text = booster.model_to_string().replace("Column_", "c")
    contract = contract_of(5, (4,))
    chance = np.random.default_rng(seed)
    rows = np.where(chance.random((3, 5)) < 0.2, np.nan, chance.normal(size=(3, 5)))
    raw = np.asarray(booster.predict(rows, raw_score=True))
    calibration = Calibration("isotonic", x=(-1.0, 0.5, 2.0), y=(0.01, 0.2, 0.9))
    golden = [
        Golden([], [nullable(row) for row in rows], [[], [], []], raw.tolist(), calibration.probabilities(raw).tolist())
    ]
    compile_forest(text).save(folder / "made.npz")
    (folder / "made.txt").write_text(text)
    return {
        "columns.json": msgspec.json.encode(contract),
        "categories.json": msgspec.json.encode({"c4": [f"text {number}" for number in range(9)]}),
        "calibration.json": msgspec.json.encode(calibration),
        "golden.json": msgspec.json.encode(golden),
        "forest.npz": folder / "made.npz",
        "model.txt": folder / "made.txt",
    }, contract


def manifest_of(contract: Contract, **more: object) -> Manifest:
    given = {
        "format": 1,
        "name": "m",
        "version": "3",
        "run_id": "r",
        "created_at": CREATED,
        "contract": contract.fingerprint,
        "files": {},
    }
    return Manifest(**given | more)  # type: ignore[arg-type]


def written(folder: Path, seed: int = 1, **more: object) -> Path:
    folder.mkdir(exist_ok=True)
    contents, contract = contents_of(seed, folder)
    return bundle.write(folder / "bundles", contents, manifest_of(contract, **more))


def refusal(place: Path) -> str:
    """The message with which a bundle is refused: it says what was expected and what came, in a line."""
    with pytest.raises(BadBundle) as caught:
        bundle.read(place)
    message = str(caught.value)
    assert "expected" in message and ("got" in message or "came" in message) and "\n" not in message
    return message


def stamped_anew(place: Path, **more: object) -> Path:
    """The bundle with a manifest that fits what its files are by now, and the name that fits the manifest."""
    manifest = msgspec.json.decode((place / bundle.MANIFEST).read_bytes(), type=Manifest)
    files = {
        name: bundle.FileStamp(bundle.digest_of(place / name), (place / name).stat().st_size) for name in bundle.FILES
    }
    text = msgspec.json.encode(msgspec.structs.replace(manifest, files=files, **more))
    (place / bundle.MANIFEST).write_bytes(text)
    return place.rename(place.with_name(hashlib.sha256(text).hexdigest()[:16]))
