"""What the architecture tests look at: the files of this repository, its packages and what they import."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
import rooms

ROOT, PACKAGES = rooms.ROOT, rooms.PACKAGES
UNKEPT = frozenset({"__pycache__", "dist", "build", "node_modules"})
KEPT_DOT = frozenset({".ci", ".github"})


@cache
def files() -> tuple[Path, ...]:
    """Every file that is committed or would be, relative to the root; where there is no git, what the folder holds."""
    if (ROOT / ".git").exists():
        told = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True,
            check=False,
        )
        if told.returncode == 0:
            names = (Path(name) for name in told.stdout.decode().split("\0") if name)
            return tuple(sorted({name for name in names if (ROOT / name).is_file()}))
    return tuple(sorted(_walk(ROOT)))


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_file():
            if not entry.name.startswith(".coverage"):
                yield entry.relative_to(ROOT)
        elif (
            entry.name not in UNKEPT
            and (entry.name in KEPT_DOT or not entry.name.startswith("."))
            and entry.suffix != ".egg-info"
        ):
            yield from _walk(entry)


@cache
def tree(file: Path) -> ast.Module:
    """The syntax of a Python file, given relative to the root."""
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), str(file))


def modules(*folders: str) -> list[Path]:
    """The Python files of these folders (the four packages if none is named); a folder without one is an error."""
    found: list[Path] = []
    for folder in folders or PACKAGES:
        inside = [file for file in files() if file.suffix == ".py" and file.parts[0] == folder]
        assert inside, f"expected Python files under {folder}/, found none"
        found += inside
    return found


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything the file imports, wherever the import stands, by statement or by name."""
    return rooms.imports(tree(file))


def refuse(faults: Iterable[str]) -> None:
    """Fail with the faults, one a line, if there are any."""
    told = list(faults)
    if told:
        pytest.fail(f"{len(told)} fault(s)\n  " + "\n  ".join(told), pytrace=False)
