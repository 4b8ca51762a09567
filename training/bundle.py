"""A bundle: the verified folder that serving loads. Text and plain arrays, with a manifest of digests; no pickle, no code.

`write` makes one aside and moves it in whole. `read` checks every digest before anything is decoded, so a damaged or foreign
bundle is refused with a reason and can never crash the process that reads it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.columns import Contract
from features.failures import Failure
from features.files import digest_of, sync_folder, write_whole
from training.calibrated import Calibration
from training.forest import Forest

FORMAT = 1
FILE_BYTES_MAX = 512 << 20
MANIFEST, CURRENT = "manifest.json", "current"
FILES = ("columns.json", "categories.json", "calibration.json", "golden.json", "forest.npz", "model.txt")
KEPT = 5
"""Bundles that are kept on disk, for going back."""

Floats = NDArray[np.float64]


class BadBundle(Failure):
    """A bundle that may not serve, and why."""


class FileStamp(Struct, frozen=True):
    sha256: str
    bytes: int


class Manifest(Struct, frozen=True):
    """What a bundle is: where it comes from, what it expects, and the digest of each of its files."""

    format: int
    name: str
    version: str
    run_id: str
    created_at: str
    contract: str
    """Fingerprint of the columns."""
    files: dict[str, FileStamp]
    metrics: dict[str, float] = {}
    data: dict[str, Any] = {}
    libraries: dict[str, str] = {}


class Golden(Struct, frozen=True):
    """One decision with the answer that LightGBM and the calibration gave; missing values are null.

    `shared`: customer and context columns; `offers`: offer columns, a row an offer; `pairs`: pair columns, likewise;
    `raw` and `propensities`: expected, one an offer.
    """

    shared: list[float | None]
    offers: list[list[float | None]]
    pairs: list[list[float | None]]
    raw: list[float]
    propensities: list[float]


class Bundle(Struct, frozen=True):
    """A bundle in memory, decoded."""

    id: str
    """`sha256:…` of the manifest, and through it of everything."""
    manifest: Manifest
    contract: Contract
    categories: dict[str, list[str]]
    calibration: Calibration
    golden: list[Golden]
    forest: Forest


def nullable(values: Floats) -> list[float | None]:
    """Numbers for JSON, which knows no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def numbers(values: list[float | None]) -> Floats:
    """The inverse of `nullable`."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def digest_of_manifest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def write(folder: Path, contents: dict[str, bytes | Path], manifest: Manifest) -> Path:
    """Write a bundle below `folder`, whole or not at all.

    Args:
        contents: the files of `FILES`, as bytes or as files to copy.
        manifest: its `files` are filled in here.

    Returns:
        The bundle's own folder, named by the digest of its manifest.
    """
    aside = folder / f".writing-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    stamps = {}
    for name in FILES:
        content, place = contents[name], aside / name
        if isinstance(content, Path):
            shutil.copyfile(content, place)
        else:
            write_whole(place, content)
        stamps[name] = FileStamp(digest_of(place), place.stat().st_size)
    text = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, files=stamps)), indent=1)
    write_whole(aside / MANIFEST, text)
    place = folder / digest_of_manifest(text).removeprefix("sha256:")[:16]
    if place.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(place)
        sync_folder(folder)
    return place


def read(place: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BadBundle: a file is missing, too large, changed, or does not decode.
    """
    try:
        content = (place / MANIFEST).read_bytes()
        manifest = msgspec.json.decode(content, type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadBundle(f"expected a manifest at {place.name}/{MANIFEST}, got: {error}") from error
    if manifest.format != FORMAT:
        raise BadBundle(f"expected bundle format {FORMAT}, got {manifest.format}: publish the model again with this version")
    if set(manifest.files) != set(FILES):
        raise BadBundle(f"expected the files {', '.join(FILES)}, got {', '.join(sorted(manifest.files))}")
    for name, stamp in manifest.files.items():
        _verify(place / name, stamp)
    try:
        return Bundle(
            digest_of_manifest(content),
            manifest,
            msgspec.json.decode((place / "columns.json").read_bytes(), type=Contract),
            msgspec.json.decode((place / "categories.json").read_bytes(), type=dict[str, list[str]]),
            msgspec.json.decode((place / "calibration.json").read_bytes(), type=Calibration),
            msgspec.json.decode((place / "golden.json").read_bytes(), type=list[Golden]),
            Forest.load(place / "forest.npz"),
        )
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise BadBundle(f"expected a readable bundle at {place.name}, got: {error}") from error


def _verify(file: Path, stamp: FileStamp) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise BadBundle(f"expected {file.name} in the bundle, got: {error.strerror}") from error
    if size != stamp.bytes or size > FILE_BYTES_MAX:
        raise BadBundle(f"expected {stamp.bytes} bytes of {file.name} (at most {FILE_BYTES_MAX}), got {size}: the bundle was changed or damaged")
    if digest_of(file) != stamp.sha256:
        raise BadBundle(f"expected {file.name} with the digest of the manifest, got another: the bundle was changed or damaged")


def current(folder: Path) -> Path | None:
    """The bundle that serves; None when none was published."""
    try:
        return folder / (folder / CURRENT).read_text().strip()
    except FileNotFoundError:
        return None


def switch(folder: Path, place: Path) -> None:
    """Make a bundle the one that serves, at once and for good; older ones are kept for going back, up to `KEPT`."""
    before = current(folder)
    write_whole(folder / CURRENT, place.name.encode())
    history = folder / "history.log"
    with history.open("a") as log:
        log.write(f"{place.name}\n")
    names = [name for name in dict.fromkeys(reversed(history.read_text().split())) if (folder / name).is_dir()]
    for name in names[KEPT:]:
        if name != place.name and (before is None or name != before.name):
            shutil.rmtree(folder / name, ignore_errors=True)
