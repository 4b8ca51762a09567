"""The doctor on what is installed: it tells an environment that is not the lock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from features.common.timestamps import now as clock
from pipelines.doctor.facts.gather import Facts
from pipelines.doctor.service import programs

ROOT = Path(__file__).parents[4]


def _installed(folder: Path, name: str, version: str, *needs: str) -> None:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir()
    text = "".join(f"Requires-Dist: {need}\n" for need in needs)
    (place / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: >=3.11,<3.12\n{text}\n"
    )


def test_an_environment_that_is_not_the_lock(tmp_path: Path) -> None:
    """In an environment with a package too old, one missing and one beside the lock, all three are named (I1, I2)."""
    _installed(
        tmp_path,
        "opportune",
        "0.1.0",
        "msgspec>=999",
        "nowhere-to-be-found>=1",
        "far>=1; extra == 'test'",
        "typer>=0.1",
    )
    _installed(tmp_path, "anyio", "0.0.1")
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from pipelines.doctor.service import programs as c; from"
        " pipelines.doctor.facts.gather import Facts; import msgspec; f = Facts(None, 0);"
        " print(msgspec.json.encode([c.packages(f).findings, c.packages_locked(f).findings,"
        " c.python_version(f).findings]).decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    wrong, locked, python = json.loads(done.stdout.splitlines()[-1])
    assert (
        "nowhere-to-be-found is missing (opportune)" in wrong[0]["what"] and "opportune wants >=999" in wrong[0]["what"]
    )
    assert "far" not in wrong[0]["what"] and wrong[0]["severity"] == "error"
    assert "anyio 0.0.1 (locked" in locked[0]["what"] and locked[0]["severity"] == "warning"
    assert bool(python) == (sys.version_info[:2] != (3, 11))


def test_this_environment_is_the_lock() -> None:
    """Where these tests run, nothing is missing, nothing is other than the lock, and LightGBM loads."""
    facts: Any = Facts(None, clock())  # type: ignore[arg-type]
    for check in programs.CHECKS[:4]:
        seen = check(facts)
        assert seen.what and not seen.findings, seen
