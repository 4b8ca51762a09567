"""Packages of Node for clients under test: installed with npm where it is, and said to be missing where it is not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

INSTALL = [
    "npm",
    "install",
    "--no-save",
    "--no-package-lock",
    "--no-audit",
    "--no-fund",
    "--ignore-scripts",
    "--prefer-offline",
]
INSTALL_SECONDS_MAX = 90


def installed(folder: Path, files: Iterable[Path], what: str) -> Path:
    """Return the folder with the files, a `package.json` among them, and its packages; skip the test where they cannot
    be had.

    Args:
        what: the client, for the closing lines.
    """
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip(f"{what}: node and npm are not installed")
    for file in files:
        shutil.copy(file, folder)
    try:
        done = subprocess.run(
            INSTALL, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what}: npm did not install its packages within {INSTALL_SECONDS_MAX} s")
    if done.returncode:
        pytest.skip(f"{what}: npm cannot install its packages: {done.stderr.strip()[-300:]}")
    return folder
