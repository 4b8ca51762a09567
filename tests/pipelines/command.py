"""The command `opportune` in a process of its own, and how it refuses."""

from __future__ import annotations

import subprocess
import sys

from tests.environment import without_settings
from tests.serving.live import ROOT
from tests.waiting import LIMIT_S


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a script would call it."""
    clean = without_settings()
    command = [sys.executable, "-m", "pipelines.main", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False, timeout=LIMIT_S
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a refusal consists of."""
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("opportune: ")]
    assert len(lines) == 1 and done.stderr.splitlines()[-1] == lines[0], done.stderr
    return lines[0]
