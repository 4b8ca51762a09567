"""A checkout with its index, and `make env` in it by a user whose pip knows that index alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installing import index


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, index.Index]]:
    """A checkout, and the index that it is installed from."""
    (tmp_path / "checkout").mkdir()
    checkout = index.write_checkout(tmp_path / "checkout", index.write_index(tmp_path / "simple"))
    with index.serving(tmp_path / "simple") as served:
        (tmp_path / "pip.conf").write_text(
            f"[global]\nindex-url = {served.url}\nconstraint = {tmp_path / 'none.txt'}\n"
        )
        yield checkout, served


def variables(checkout: Path, **more: str) -> dict[str, str]:
    """Environment variables of a user whose pip knows the local index alone, by its file."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_", "MAKE", "MFLAGS", "VENV"))
    }
    return (
        kept
        | {"PIP_CONFIG_FILE": str(checkout.parent / "pip.conf"), "UV_CACHE_DIR": str(checkout.parent / "cache")}
        | more
    )


def make(checkout: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `make env`."""
    command = ["make", "--no-print-directory", "env", *words]
    return subprocess.run(
        command, cwd=checkout, env=variables(checkout, **more), capture_output=True, text=True, check=False
    )
