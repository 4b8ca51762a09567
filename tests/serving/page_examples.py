"""The examples of the page about experiments, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.serving.live import ROOT, Live
from tests.waiting import LIMIT_S

PAGE = (ROOT / "docs" / "experiments.md").read_text()
BLOCK = re.compile(r"^```(?P<kind>sh|python|js)(?P<hook> hook)?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def run(command: list[str], text: str, folder: Path, key: str) -> str:
    """What an example of the page prints."""
    environment = os.environ | {
        "KEY": key,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "clients" / "python"), *sys.path]),
    }
    done = subprocess.run(
        [*command, text], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def examples(live: Live, kind: str, *, hook: bool = False) -> list[str]:
    """The page's blocks of one language, asking this server."""
    found = [block["body"] for block in BLOCK.finditer(PAGE) if block["kind"] == kind and bool(block["hook"]) == hook]
    return [text.replace("http://127.0.0.1:3000", f"http://127.0.0.1:{live.port}") for text in found if "3000" in text]
