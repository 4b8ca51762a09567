"""The Pythons of this machine, and stand-ins that answer as another one would."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

SEARCHED = ("/usr/bin", "/usr/local/bin", "/opt/*/bin", "~/.pyenv/versions/*/bin")


@cache
def pythons() -> dict[str, str]:
    """Return the path of one Python for each minor version that runs here, supported or not."""
    found: dict[str, str] = {}
    for place in SEARCHED:
        root, _, pattern = str(Path(place).expanduser()).partition("*")
        folders = sorted(Path(root).glob("*" + pattern)) if pattern else [Path(root)]
        for file in (
            file for folder in folders for file in sorted(folder.glob("python3.[0-9]*")) if file.suffix[1:].isdigit()
        ):
            if file.name not in found and runs(file):
                found[file.name] = str(file)
    return found


def runs(file: Path) -> bool:
    """Whether this is a Python that can make environments."""
    told = subprocess.run([file, "-I", "-c", "import ensurepip, venv"], capture_output=True, check=False)
    return told.returncode == 0


def write_stand_in(folder: Path, name: str, version: str, **changes: object) -> None:
    """Write a program that says of itself what a Python of this version would say; without a version it does not
    run.
    """
    folder.mkdir(exist_ok=True)
    said = (
        {"minor": [int(part) for part in version.split(".")[:2]], "version": version, "path": str(folder / name)}
        if version
        else {}
    )
    said |= {"kind": "cpython", "threaded": False, "lacks": []} | changes
    file = folder / name
    file.write_text(f"#!/bin/sh\n{f'echo {json.dumps(json.dumps(said))}' if version else 'exit 127'}\n")
    os.chmod(file, 0o755)
