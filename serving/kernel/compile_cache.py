"""Machine code that a package brings along, so that its first start need not compile: numba takes it where it fits,
else compiles.

It fits when Python, numba, the processor and the sources are those of the machine that packed: numba checks all of
them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from features.common.cache_folders import COMPILED_PACKAGES, compiled_folder
from features.common.files import ROOT

FOLDER = "compiled"
"""Beside the packages: `compiled/<package>/<room>/<file of numba's cache>`."""


def pack(target: Path, root: Path = ROOT) -> int:
    """Copy numba's cache of the packages below `root` into `target`; return the number of files."""
    count = 0
    for package in COMPILED_PACKAGES:
        for room in sorted({file.parent for file in (root / package).rglob("*.py")}):
            for file in sorted(compiled_folder(room).glob("*.nb[ic]")):
                place = target / FOLDER / room.relative_to(root)
                place.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place / file.name)
                count += 1
    return count


def unpack(root: Path = ROOT) -> None:
    """Put what was packed where numba looks for it, before the compiled modules are imported; what cannot be written is
    compiled.
    """
    with contextlib.suppress(OSError):
        for file in sorted(
            (root / FOLDER).rglob("*.nb[ic]"), key=lambda file: file.suffix
        ):  # code before the index that names it
            target = compiled_folder(root / file.parent.relative_to(root / FOLDER)) / file.name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                aside = target.with_name(f"{target.name}.{os.getpid()}")
                shutil.copyfile(file, aside)
                aside.replace(target)
