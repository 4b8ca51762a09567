"""The command and packages of others that are called as ours are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import opportune

ROOT = Path(__file__).parents[2]


def run(python_path: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command from a folder, with that path first, as an installed one is run."""
    code = f"import sys; sys.path[:0] = [{str(python_path)!r}, {str(ROOT)!r}]; import opportune; opportune.main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", opportune.PACKAGES)
@pytest.mark.parametrize("kind", ["package", "folder", "file"])
def test_another_package_of_our_name_is_told(name: str, kind: str, tmp_path: Path) -> None:
    """A package or module of that name that comes first ends the command with one line that names it; a folder of data
    does not hide ours.
    """
    other = tmp_path / name
    if kind == "file":
        other = tmp_path / f"{name}.py"
        other.touch()
    else:
        other.mkdir()
    if kind == "package":
        (other / "__init__.py").touch()
    done = run(tmp_path, "--version", folder=tmp_path)
    if kind == "folder":
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("opportune ")
        return
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert f"`{name}`" in done.stderr and f"got {other}:" in done.stderr
    told = json.loads(run(tmp_path, "doctor", "--json", folder=tmp_path).stdout)
    assert (told["exit_status"], told["detail"]) == (1, done.stderr.removeprefix("opportune: ").strip())


def test_where_one_works_does_not_matter(tmp_path: Path) -> None:
    """In a folder with packages of these names the installed command works: it does not look there."""
    for name in opportune.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('not ours')")
    command = Path(sys.executable).with_name("opportune")
    done = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("opportune "), done.stderr
