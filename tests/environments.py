"""Empty Python environments, made by uv: what is tried in one has nothing but what it asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"
INSTALL_SECONDS_MAX = 600


def clean() -> dict[str, str]:
    """The environment without what would let a process see this checkout, or this environment."""
    hidden = ("PYTHON", "OPPORTUNE_", "VIRTUAL_ENV", "COVERAGE_", "COV_CORE")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | {
        "BENTOML_DO_NOT_TRACK": "True",
        "UV_PYTHON_DOWNLOADS": "never",
        "TZ": "UTC",
    }


@cache
def uv() -> str:
    """Where uv is; without it the test is skipped."""
    found = shutil.which("uv", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("uv is not installed: `make env` installs it with the other packages of the tests")
    return found


@cache
def interpreter(version: str) -> str:
    """The Python of a minor version on this machine; without one the test is skipped."""
    named = shutil.which(f"python{version}")
    kept = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    for candidate in ([sys.executable] if version == CURRENT else []) + [named or "", *map(str, kept)]:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        if (
            candidate
            and subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
            == version
        ):
            return candidate
    pytest.skip(f"this machine has no Python {version}")


def environment(folder: Path, *arguments: str, version: str = CURRENT) -> Path:
    """Make an environment in a folder, install what uv's arguments say, and return its Python; skip where no registry
    answers.
    """
    run([uv(), "venv", "--quiet", "--python", interpreter(version), str(folder)])
    python = folder / "bin" / "python"
    done = run([uv(), "pip", "install", "--quiet", "--system-certs", "--python", str(python), *arguments], check=False)
    if done.returncode and any(
        word in done.stderr for word in ("dns error", "Failed to fetch", "error sending request", "client error")
    ):
        pytest.skip(f"no package registry can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


def run(command: list[str], *, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command outside the checkout's environment, from a folder that has nothing of ours."""
    done = subprocess.run(
        command,
        cwd="/",
        env=clean() | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_SECONDS_MAX,
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def wheel(folder: Path) -> Path:
    """Build our wheel into a folder, and return it."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("opportune-*.whl")
    return made
