"""Broken workspaces, kept as fixtures: what `opportune check` says of each, word by word.

`tests/fixtures/broken/whole` is a workspace without faults. Every other folder there has the one file that is broken,
and what is said of it in `expected.txt`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.pipelines.verbs import opportune

ROOT = Path(__file__).parents[2]
BROKEN = ROOT / "tests" / "fixtures" / "broken"
NAMES = sorted(place.name for place in BROKEN.iterdir() if place.name != "whole")
FAULT = re.compile(r"(opportune: )?(features|offers|policies)\.yaml:\d+: at \$\.\S+: expected .+, got .+")


def check(folder: Path) -> CompletedProcess[str]:
    """`opportune check -w folder`, as a person calls it."""
    return opportune("check", "-w", folder)


def test_there_are_broken_workspaces() -> None:
    """All kinds of files are broken, each folder has one of them, and no two are told alike."""
    broken = {name: [file.name for file in (BROKEN / name).iterdir() if file.suffix == ".yaml"] for name in NAMES}
    assert len(NAMES) == 18
    assert all(len(files) == 1 for files in broken.values()), broken
    assert {files[0] for files in broken.values()} == {"features.yaml", "offers.yaml", "policies.yaml"}
    assert len({(BROKEN / name / "expected.txt").read_text() for name in NAMES}) == len(NAMES)


def test_the_whole_workspace_has_no_faults() -> None:
    """What the others break is in order: each fault is the broken file's alone."""
    done = check(BROKEN / "whole")
    assert (done.returncode, done.stderr) == (0, "")
    assert "kiosk: no faults" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_what_is_broken_is_told_with_its_place_and_remedy(name: str, tmp_path: Path) -> None:
    """File, line, place, what was expected, what came and the way out, as `expected.txt` has it; the rest of the
    workspace is as it should be.
    """
    folder = tmp_path / "kiosk"
    shutil.copytree(BROKEN / "whole", folder)
    file = next(file for file in (BROKEN / name).iterdir() if file.suffix == ".yaml")
    assert (folder / file.name).read_text() != file.read_text()
    shutil.copy(file, folder)
    done = check(folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (BROKEN / name / "expected.txt").read_text()
    lines = done.stderr.splitlines()
    assert lines and all(FAULT.fullmatch(line) for line in lines)
    assert any(line.endswith((".", "?")) for line in lines), "some way out is told"
