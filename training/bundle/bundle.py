"""A bundle: the verified folder that serving loads. Text and plain arrays, with a manifest of digests; no pickle, no
code.

`write` makes one aside and moves it in whole. `read` checks every digest before anything is decoded, so a damaged or
foreign bundle is refused with a reason and can never crash the process that reads it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.columns.contract import Contract
from features.common.errors import Failure
from features.common.files import digest_of, sync, write_whole
from training.bundle.calibration_map import Calibration
from training.bundle.forest import Forest

FORMAT = 1
FILE_BYTES_MAX = 512 << 20
MANIFEST_BYTES_MAX = 1 << 20
MANIFEST, CURRENT, HISTORY, ALIASES = "manifest.json", "current", "history.log", "aliases"
FILES = ("columns.json", "categories.json", "calibration.json", "golden.json", "forest.npz", "model.txt")
KEPT = 5
"""Bundles that are kept on disk, for going back; `history.log` names them, the one that serves last."""
NAME_CHARACTERS = 16

Floats = NDArray[np.float64]


class BadBundle(Failure):
    """A bundle that may not serve, and why."""


class FileStamp(Struct, frozen=True):
    """Digest (hex) and size of one file."""

    sha256: str
    bytes: int


class Manifest(Struct, frozen=True):
    """What a bundle is: where it comes from, what it expects, and the digest of each of its files."""

    format: int
    name: str
    version: str
    run_id: str
    created_at: str
    """When its version was registered."""
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
    """Return the inverse of `nullable`."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def digest_of_manifest(content: bytes) -> str:
    """Return the id of the bundle that a manifest describes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def write(folder: Path, contents: dict[str, bytes | Path], manifest: Manifest) -> Path:
    """Write a bundle below `folder`, whole or not at all.

    Args:
        contents: the files of `FILES`, as bytes or as files to copy.
        manifest: its `files` are filled in here.

    Returns:
        The bundle's own folder, named by the digest of its manifest: one that is there already and whole is left as it
        is.
    """
    aside = folder / f".writing-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    stamps = {}
    for name in FILES:
        content, place = contents[name], aside / name
        write_whole(place, content.read_bytes() if isinstance(content, Path) else content)
        stamps[name] = FileStamp(digest_of(place), place.stat().st_size)
    text = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(manifest, files=stamps)), indent=1)
    write_whole(aside / MANIFEST, text)
    place = folder / _name(digest_of_manifest(text))
    if _is_whole(place):  # the same bundle, which a server may be reading
        shutil.rmtree(aside)
        return place
    shutil.rmtree(place, ignore_errors=True)  # damaged
    aside.rename(place)
    sync(folder)
    return place


def _is_whole(place: Path) -> bool:
    """Return whether a folder holds a bundle in which nothing is missing or damaged."""
    try:
        read(place)
    except (BadBundle, OSError):
        return False
    return True


def _name(digest: str) -> str:
    """Name of the folder of a bundle."""
    return digest.removeprefix("sha256:")[:NAME_CHARACTERS]


def read(place: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        BadBundle: a file is missing, too many, too large, changed, or does not decode; or the parts do not fit each
            other.
    """
    content = _manifest_bytes(place)
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadBundle(f"expected a manifest at {place.name}/{MANIFEST}, got: {error}") from error
    if manifest.format != FORMAT:
        raise BadBundle(
            f"expected bundle format {FORMAT}, got {manifest.format}: publish the model again with this version"
        )
    if place.name != _name(digest_of_manifest(content)):
        raise BadBundle(
            f"expected the manifest that {place.name} is named by, got another: the bundle was changed or damaged"
        )
    if set(manifest.files) != set(FILES):
        raise BadBundle(f"expected the files {', '.join(FILES)}, got {', '.join(sorted(manifest.files))}")
    more = sorted({file.name for file in place.iterdir()} - {MANIFEST, *FILES})
    if more:
        raise BadBundle(f"expected nothing in {place.name} that its manifest does not name, got {', '.join(more[:5])}")
    for name, stamp in manifest.files.items():
        _verify(place / name, stamp)
    try:
        found = Bundle(
            digest_of_manifest(content),
            manifest,
            msgspec.json.decode((place / "columns.json").read_bytes(), type=Contract),
            msgspec.json.decode((place / "categories.json").read_bytes(), type=dict[str, list[str]]),
            msgspec.json.decode((place / "calibration.json").read_bytes(), type=Calibration),
            msgspec.json.decode((place / "golden.json").read_bytes(), type=list[Golden]),
            Forest.load(place / "forest.npz"),
        )
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadBundle(f"expected a readable bundle at {place.name}, got: {error}") from error
    _refuse_misfits(found)
    return found


def _manifest_bytes(place: Path) -> bytes:
    try:
        size = _size(place / MANIFEST)
        if size > MANIFEST_BYTES_MAX:
            raise BadBundle(f"expected at most {MANIFEST_BYTES_MAX} bytes of {place.name}/{MANIFEST}, got {size}")
        return (place / MANIFEST).read_bytes()
    except (OSError, ValueError) as error:
        raise BadBundle(f"expected a manifest at {place.name}/{MANIFEST}, got: {error}") from error


def _size(file: Path) -> int:
    """Bytes of a plain file; anything else (a pipe would be waited for) is refused."""
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise BadBundle(f"expected {file.name} to be a plain file, got another kind: the bundle was changed or damaged")
    return found.st_size


def _verify(file: Path, stamp: FileStamp) -> None:
    try:
        size = _size(file)
        if size != stamp.bytes or size > FILE_BYTES_MAX:
            raise BadBundle(
                f"expected {stamp.bytes} bytes of {file.name} (at most {FILE_BYTES_MAX}), got {size}: the bundle was"
                " changed or damaged"
            )
        if digest_of(file) != stamp.sha256:
            raise BadBundle(
                f"expected {file.name} with the digest of the manifest, got another: the bundle was changed or damaged"
            )
    except OSError as error:
        raise BadBundle(f"expected {file.name} in the bundle, got: {error.strerror}") from error


def _refuse_misfits(found: Bundle) -> None:
    """Parts that are sound, each for itself, and not of one model.

    Raises:
        BadBundle: with the first misfit.
    """
    contract = found.contract
    if found.manifest.contract != contract.fingerprint:
        raise BadBundle(
            "expected the columns that the manifest names, got others: the bundle was put together from several"
        )
    if list(found.forest.columns) != contract.names:
        raise BadBundle(
            f"expected a forest on the bundle's {len(contract.names)} columns in their order, got others"
            f" ({len(found.forest.columns)})"
        )
    wanted = {column.name for column in contract.columns if column.dtype == "category"}
    if set(found.categories) != wanted:
        raise BadBundle(
            f"expected categories of {', '.join(sorted(wanted)) or 'no column'}, got those of"
            f" {', '.join(sorted(found.categories)) or 'none'}"
        )
    shared = len(contract.of_kind("customer")) + len(contract.of_kind("context"))
    offer, pair = len(contract.of_kind("offer")), len(contract.of_kind("pair"))
    for at, case in enumerate(found.golden):
        widths = ({len(case.shared)}, {*map(len, case.offers)}, {*map(len, case.pairs)})
        if widths != ({shared}, {offer}, {pair}) or not len(case.offers) == len(case.pairs) == len(case.raw) == len(
            case.propensities
        ):
            raise BadBundle(
                f"expected golden request {at} to be of the bundle's columns, one answer an offer, got another shape"
            )


def current(folder: Path) -> Path | None:
    """Return the bundle that serves; None when none was published. It may not be there, or be damaged: `read` tells."""
    try:
        return folder / (folder / CURRENT).read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None


def switch(folder: Path, place: Path) -> None:
    """Make a bundle the one that serves, at once and for good; older ones are kept for going back, up to `KEPT`."""
    before = current(folder)
    write_whole(folder / CURRENT, place.name.encode())
    history = folder / HISTORY
    known = history.read_text("ascii", "replace").split() if history.exists() else []
    latest = [name for name in dict.fromkeys([place.name, *reversed(known)]) if (folder / name).is_dir()]
    used = _used(folder) | ({before.name} if before is not None else set())
    keep = [name for at, name in enumerate(latest) if at < KEPT or name in used]
    write_whole(history, "".join(f"{name}\n" for name in reversed(keep)).encode())
    for name in set(latest) - set(keep):
        shutil.rmtree(folder / name, ignore_errors=True)


def aliased(folder: Path, alias: str) -> Path | None:
    """Return the bundle that serves the arms of experiments that name this model; None when none was published. See
    `current`.
    """
    try:
        return folder / (folder / ALIASES / alias).read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None


def point(folder: Path, alias: str, place: Path) -> None:
    """Make a bundle the one of an alias, beside the one that serves; the one before it goes where nothing else needs
    it.
    """
    before = aliased(folder, alias)
    (folder / ALIASES).mkdir(exist_ok=True)
    write_whole(folder / ALIASES / alias, place.name.encode())
    history = folder / HISTORY
    known = history.read_text("ascii", "replace").split() if history.exists() else []
    # A pointer that is empty or foreign leads to no bundle of ours.
    if before is not None and before.parent == folder and before.name not in {*known, *_used(folder), ALIASES}:
        shutil.rmtree(before, ignore_errors=True)


def _used(folder: Path) -> set[str]:
    """Names of the bundles that serve, beside aliases or by themselves."""
    served = current(folder)
    found = {pointer.read_text("ascii", "replace").strip() for pointer in (folder / ALIASES).glob("*")}
    return found if served is None else {*found, served.name}
