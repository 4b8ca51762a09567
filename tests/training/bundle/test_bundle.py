"""The bundle: what is written comes back, and nothing that was changed, cut, swapped or put together is ever taken."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.examples import contract_of
from tests.training.bundle.bundle_cases import refusal, stamped_anew, written
from training.bundle import bundle
from training.bundle.bundle import nullable, numbers
from training.bundle.calibration_map import Calibration
from training.bundle.forest_compiler import compile_forest


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is never changed."""
    return written(tmp_path_factory.mktemp("sound"), metrics={"mrr": 0.5}, data={"rows": "12"})


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    """The same bundle, to be damaged."""
    return Path(shutil.copytree(sound, tmp_path / sound.name))


def test_what_is_written_is_read(sound: Path) -> None:
    """All parts come back equal; the id is the digest of the manifest and names the folder; the same content has the
    same id.
    """
    found = bundle.read(sound)
    assert found.id == "sha256:" + hashlib.sha256((sound / "manifest.json").read_bytes()).hexdigest()
    assert sound.name == found.id[7:23]
    assert set(found.manifest.files) == set(bundle.FILES)
    assert (found.manifest.version, found.manifest.metrics, found.manifest.data) == ("3", {"mrr": 0.5}, {"rows": "12"})
    assert found.contract.fingerprint == found.manifest.contract
    assert found.calibration == Calibration("isotonic", x=(-1.0, 0.5, 2.0), y=(0.01, 0.2, 0.9))
    assert list(found.forest.columns) == found.contract.names
    assert compile_forest((sound / "model.txt").read_text()).digest == found.forest.digest
    assert not [file for file in sound.parent.iterdir() if file.name.startswith(".")]


def test_writing_the_same_again_mends_what_was_damaged(tmp_path: Path) -> None:
    """The same content is the same bundle; one that lies there damaged is replaced."""
    place = written(tmp_path)
    (place / "model.txt").write_bytes(b"")
    refusal(place)
    assert written(tmp_path) == place
    assert bundle.read(place).manifest.version == "3"


def test_missing_values_travel_as_null() -> None:
    """JSON knows no NaN: `numbers` undoes `nullable`, to the bit."""
    values = np.array([np.nan, 0.1, -0.0, 5e-324, 1.7976931348623157e308])
    again = numbers(msgspec.json.decode(msgspec.json.encode(nullable(values)), type=list[float | None]))
    assert again.tobytes() == values.tobytes()


@pytest.mark.parametrize("name", [bundle.MANIFEST, *bundle.FILES])
def test_every_cut_flip_and_hole_is_refused(copy: Path, name: str) -> None:
    """Of each file: twelve lengths, sixteen flipped bits, six zeroed blocks, and more at its end; none is taken, none
    crashes.
    """
    file = copy / name
    whole, chance, refused = file.read_bytes(), np.random.default_rng(len(name)), 0
    mutants = [whole[: int(length)] for length in np.linspace(0, len(whole) - 1, 12)]
    for at in chance.integers(0, len(whole), 16):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(chance.integers(0, 8))
        mutants.append(bytes(flipped))
    for at in chance.integers(0, len(whole), 6):
        mutants.append(whole[:at] + bytes(min(512, len(whole) - at)) + whole[at + 512 :])
    mutants += [whole + b"\n", whole + whole, b"\0" * len(whole), gzip.compress(whole)]
    for mutant in dict.fromkeys(mutants):
        if mutant != whole:
            file.write_bytes(mutant)
            refusal(copy)
            refused += 1
    assert refused >= 30  # seven files: more than 200 mutants in all
    file.write_bytes(whole)
    assert bundle.read(copy).manifest.version == "3"


def swap(one: str, other: str) -> Callable[[Path], None]:
    def swapped(place: Path) -> None:
        (place / one).rename(place / "aside")
        (place / other).rename(place / one)
        (place / "aside").rename(place / other)

    return swapped


def lacking(name: str) -> Callable[[Path], None]:
    return lambda place: (place / name).unlink()


def sparse(name: str) -> Callable[[Path], None]:
    """Two gigabytes of nothing that take no room on the disk."""
    return lambda place: os.truncate(place / name, 2 << 30)


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replaced(place: Path) -> None:
        (place / name).unlink()
        make(place / name)

    return replaced


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    *((f"no {name}", lacking(name), name) for name in (bundle.MANIFEST, *bundle.FILES)),
    ("swapped", swap("columns.json", "categories.json"), "changed or damaged"),
    ("swapped back", swap("forest.npz", "model.txt"), "changed or damaged"),
    ("extra", lambda place: (place / "code.py").write_text("1"), "that its manifest does not name, got code.py"),
    ("hidden", lambda place: (place / ".hook").mkdir(), "that its manifest does not name, got .hook"),
    ("sparse forest", sparse("forest.npz"), "bytes of forest.npz"),
    ("sparse model", sparse("model.txt"), "bytes of model.txt"),
    ("sparse manifest", sparse("manifest.json"), "expected at most 1048576 bytes"),
    ("a folder", instead("golden.json", Path.mkdir), "golden.json to be a plain file"),
    ("a link", instead("golden.json", lambda file: file.symlink_to("/etc/hostname")), "golden.json to be a plain file"),
    ("a pipe", instead("golden.json", os.mkfifo), "golden.json to be a plain file"),
    ("a pipe first", instead("manifest.json", os.mkfifo), "manifest.json to be a plain file"),
    ("another name", lambda place: None, "expected the manifest that renamed is named by"),
]


@pytest.mark.parametrize(("damage", "reason"), [case[1:] for case in DAMAGE], ids=[case[0] for case in DAMAGE])
def test_other_damage_is_refused(copy: Path, damage: Callable[[Path], object], reason: str) -> None:
    """Missing, swapped, extra and monstrous files, pipes that nobody writes to, links out of the folder: each has its
    reason.
    """
    damage(copy)
    if "renamed" in reason:
        copy = copy.rename(copy.with_name("renamed"))
    assert reason in refusal(copy)


def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """No folder, a file in its place, a name that no folder can have."""
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "none", tmp_path / "file", tmp_path / "a\0b", tmp_path):
        assert "manifest" in refusal(place)


FOREIGN: list[tuple[str, dict[str, bytes], dict[str, object], str]] = [
    ("format", {}, {"format": 2}, "expected bundle format 1, got 2: publish the model again"),
    ("contract", {}, {"contract": "0" * 64}, "the columns that the manifest names, got others"),
    ("contract file", {"columns.json": msgspec.json.encode(contract_of(6))}, {}, "the columns that the manifest names"),
    (
        "other columns",
        {"columns.json": msgspec.json.encode(contract_of(6))},
        {"contract": contract_of(6).fingerprint},
        "a forest on the bundle's 6 columns in their order, got others (5)",
    ),
    (
        "categories",
        {"columns.json": msgspec.json.encode(contract_of(5, (1,)))},
        {"contract": contract_of(5, (1,)).fingerprint},
        "expected categories of c1, got those of c4",
    ),
    ("calibration", {"calibration.json": b'{"method":"sigmoid","slope":-1.0}'}, {}, "a slope above zero"),
    ("knots", {"calibration.json": b'{"method":"isotonic"}'}, {}, "knots for the isotonic method"),
    (
        "golden",
        {"golden.json": b'[{"shared":[],"offers":[[1.0]],"pairs":[[]],"raw":[1.0],"propensities":[0.5]}]'},
        {},
        "golden request 0",
    ),
    (
        "answers",
        {"golden.json": b'[{"shared":[],"offers":[[1,1,1,1,1]],"pairs":[[]],"raw":[],"propensities":[]}]'},
        {},
        "golden request 0",
    ),
    ("deep", {"categories.json": b'{"a":' * 5_000 + b"1" + b"}" * 5_000}, {}, "a readable bundle"),
    ("not UTF-8", {"categories.json": b'{"a":["\xff"]}'}, {}, "a readable bundle"),
    ("pickle", {"forest.npz": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00."}, {}, "a readable bundle"),
    ("empty", {"forest.npz": b""}, {}, "a readable bundle"),
    ("gzip", {"forest.npz": gzip.compress(bytes(1 << 20))}, {}, "a readable bundle"),
    ("deep manifest", {}, {"data": {"a": "DEEP"}}, "a manifest"),
]


@pytest.mark.parametrize(
    ("files", "manifest", "reason"), [case[1:] for case in FOREIGN], ids=[case[0] for case in FOREIGN]
)
def test_a_foreign_bundle_whose_digests_fit_is_refused(
    copy: Path, files: dict[str, bytes], manifest: dict[str, object], reason: str
) -> None:
    """Digests prove that nothing changed, not that it is ours: format, columns, calibration and answers are looked at
    too.
    """
    for name, content in files.items():
        (copy / name).write_bytes(content)
    place = stamped_anew(copy, **manifest)
    text = (place / bundle.MANIFEST).read_bytes()
    if b"DEEP" in text:
        text = text.replace(b'"DEEP"', b"[" * 50_000 + b"]" * 50_000)
        (place / bundle.MANIFEST).write_bytes(text)
        place = place.rename(place.with_name(hashlib.sha256(text).hexdigest()[:16]))
    assert reason in refusal(place)


def test_files_of_two_models_do_not_mix(copy: Path, tmp_path: Path) -> None:
    """The forest of another model, swapped in with its name kept, is refused by its digest."""
    other = written(tmp_path / "other", seed=2)
    shutil.copy(other / "forest.npz", copy / "forest.npz")
    assert "forest.npz" in refusal(copy)
