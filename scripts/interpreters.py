"""Find the Python to make the environment of: the one that was asked for, or the newest supported one of the search
path.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
PROBE_SECONDS_MAX = 60
PROBE = """
import json, sys, sysconfig
lacks = []
for name in ("venv", "ensurepip"):
    try:
        __import__(name)
    except ImportError:
        lacks.append(name)
print(json.dumps({
    "minor": list(sys.version_info[:2]),
    "version": sys.version.split()[0],
    "path": getattr(sys, "_base_executable", None) or sys.executable,
    "kind": "" if sys.version_info < (3, 3) else sys.implementation.name,
    "threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    "lacks": lacks,
}))
"""


class Refused(Exception):
    """The environment cannot be made; the text is one line that says why, and the way out."""


class Python(NamedTuple):
    """An interpreter that runs: what it was called, and what it says of itself."""

    command: str
    path: str
    minor: tuple[int, int]
    version: str
    kind: str
    threaded: bool
    lacks: list[str]


def supported() -> list[tuple[int, int]]:
    """Return the supported versions of Python, newest first, as `requires-python` of pyproject.toml says them."""
    found = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', PROJECT.read_text(encoding="utf-8"), re.M)
    if not found:
        raise Refused(f'{PROJECT.name}: expected a line `requires-python = ">=3.x,<3.y"`, found none')
    return [(3, minor) for minor in range(int(found[2]) - 1, int(found[1]) - 1, -1)]


def probe(command: str) -> Python | None:
    """Ask an interpreter what it is; None where it is absent or does not run (as a pyenv shim of a version that is not
    in use).
    """
    try:
        told = subprocess.run(
            [command, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS_MAX,
            check=False,
        )
        said = json.loads(told.stdout) if told.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return said and Python(
        command, said["path"], tuple(said["minor"]), said["version"], said["kind"], said["threaded"], said["lacks"]
    )


def unfit(python: Python) -> str:
    """Return why the environment cannot be made of this Python; empty where it can."""
    if python.minor not in supported():
        return f"got {python.version}"
    if python.kind != "cpython" or python.threaded:
        return (
            f"got {python.version} of {python.kind}{', free-threaded' if python.threaded else ''}, which packages have"
            " no wheels for"
        )
    if python.lacks:
        return f"got one without {' and '.join(python.lacks)} (on Debian and Ubuntu: apt-get install python3-venv)"
    return ""


def newest(seen: list[Python]) -> Python | None:
    """Return the newest fit Python of the search path; what was looked at is added to `seen`."""
    plain = probe("python3")
    for minor in supported():
        names = ["python3"] if plain and plain.minor == minor else []
        for name in [*names, "python{}.{}".format(*minor)]:
            python = plain if name == "python3" else probe(name)
            if python:
                seen.append(python)
                if not unfit(python):
                    return python
    if plain and plain not in seen:
        seen.append(plain)
    return None


def choose(asked: str) -> Python:
    """Return the Python that was asked for, or the newest supported one where none was.

    Raises:
        Refused: it does not run, or it is not a supported one.
    """
    wanted = f"CPython 3.{supported()[-1][1]} to 3.{supported()[0][1]}"
    python = probe(asked) if asked else newest([])
    if python and not unfit(python):
        return python
    if asked:
        other = newest([])
        out = (
            f"use another, for example `make PYTHON={other.command} env`"
            if other
            else "install one of these, then `make PYTHON=… env`"
        )
        raise Refused(f"expected {wanted} as `{asked}`, {unfit(python) if python else 'which does not run'}: {out}")
    seen: list[Python] = []
    newest(seen)
    found = "; ".join(f"`{python.command}`: {unfit(python)}" for python in seen) or "none that runs"
    raise Refused(
        f"expected {wanted} on the search path, found {found}. Install one, or name it: make PYTHON=/path/to/python env"
    )
