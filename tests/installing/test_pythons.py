"""The Python of an environment: which one is chosen, and that others are refused in one line."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import interpreters
import pytest

from tests.installing import index, pythons
from tests.installing.environment_cases import make, served, variables

__all__ = ["served"]


def test_unsupported_pythons_are_refused_in_one_line(served: tuple[Path, index.Index], tmp_path: Path) -> None:
    """3.10, 3.15, a free-threaded one, and what does not run are each refused in a line that names what to use."""
    checkout, _ = served
    folder = tmp_path / "bin"
    pythons.write_stand_in(folder, "python3.15", "3.15.0")
    pythons.write_stand_in(folder, "python3.10", "3.10.13")
    pythons.write_stand_in(folder, "python3.14t", "3.14.1", threaded=True)
    pythons.write_stand_in(folder, "python3.13", "3.13.2", lacks=["ensurepip"])
    pythons.write_stand_in(folder, "python3.12", "")
    real = [name for name in ("python3.10", "python3.15") if name in pythons.pythons()]
    asked = [str(folder / n) for n in ("python3.15", "python3.10", "python3.14t", "python3.13", "python3.12")]
    for python in [*asked, "nowhere", *(pythons.pythons()[name] for name in real)]:
        told = make(checkout, f"PYTHON={python}")
        assert told.returncode != 0
        lines = [line for line in told.stderr.splitlines() if not line.startswith("make: ***")]
        assert len(lines) == 1, told.stderr
        assert re.match(
            rf"environment: expected CPython 3\.11 to 3\.14 as `{re.escape(python)}`, .*: use another, for example"
            r" `make PYTHON=",
            lines[0],
        )
        assert not (checkout / ".venv").exists()


def test_the_newest_supported_python_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the Pythons on the search path the newest that is supported and runs is taken, whatever they are called."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(interpreters.Refused, match="found none that runs"):
        interpreters.choose("")
    pythons.write_stand_in(tmp_path, "python3", "3.10.1")
    with pytest.raises(interpreters.Refused, match=r"`python3`: got 3\.10\.1"):
        interpreters.choose("")
    for name, version, chosen in (
        ("python3.11", "3.11.4", "3.11.4"),
        ("python3.15", "3.15.0", "3.11.4"),
        ("python3.13", "", "3.11.4"),  # a shim of a version that is not in use
        ("python3.12", "3.12.9", "3.12.9"),
        ("python3", "3.14.0", "3.14.0"),  # called by no other name
        ("python3", "3.15.0", "3.12.9"),
    ):
        pythons.write_stand_in(tmp_path, name, version)
        assert interpreters.choose("").version == chosen, (name, version)


def test_supported_pythons_are_said_once_and_everywhere_the_same() -> None:
    """The classifiers, the documents and the names that make and CI look for agree with `requires-python`."""
    minors = [f"3.{minor}" for _, minor in interpreters.supported()]
    project = (index.ROOT / "pyproject.toml").read_text()
    assert set(re.findall(r"Python :: (3\.\d+)", project)) == set(minors)
    assert (
        re.findall(r"python(3\.\d+)", re.search(r"^ENVIRONMENT = .*", (index.ROOT / "Makefile").read_text(), re.M)[0])
        == minors
    )  # type: ignore[index]
    span = f"Python {minors[-1]} to {minors[0]}"
    for name in ("README.md", "CONTRIBUTING.md", "Makefile"):
        assert span in (index.ROOT / name).read_text(), f"{name}: expected the words `{span}`"


def test_the_script_starts_on_an_old_python(served: tuple[Path, index.Index]) -> None:
    """A Python of the system that is too old for the environment can still start the script, which then says so
    itself.
    """
    checkout, _ = served
    old = [name for name in ("python3.8", "python3.9", "python3.10") if name in pythons.pythons()]
    if not old:
        pytest.skip("no Python 3.8 to 3.10 on this machine")
    for name in old:
        command = [pythons.pythons()[name], "scripts/environment.py", "make", "--python", pythons.pythons()[name]]
        told = subprocess.run(
            command, cwd=checkout, env=variables(checkout), capture_output=True, text=True, check=False
        )
        assert told.returncode == 1
        assert told.stderr.count("\n") == 1, told.stderr
    assert shutil.which("make")
