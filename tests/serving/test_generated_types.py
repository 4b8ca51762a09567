"""Types that stock generators make of /openapi.json compile under strict settings, and fit what the running server
answers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.npm import installed
from tests.serving.live import ROOT, Live
from tests.serving.trial_server import EXPERIMENTS, RUNNING, trial_workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLIENTS = ROOT / "tests" / "clients"
CUSTOMER = "436600000"
GENERATE = [sys.executable, "-m", "datamodel_code_generator", "--input", "openapi.json", "--input-file-type", "openapi"]
GENERATE += ["--output", "models.py", "--output-model-type", "pydantic_v2.BaseModel", "--target-python-version", "3.11"]
GENERATE += ["--use-annotated", "--collapse-root-models", "--formatters", "builtin"]


@pytest.fixture(scope="module")
def live(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with experiments."""
    server = Live(trial_workspace(trained_workspace, tmp_path_factory.mktemp("typed") / "shop")).start()
    yield server
    server.stop()


def run(folder: Path, *command: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check(told: dict[str, Any], live: Live) -> None:
    """Fail unless a client got what the server answers to anyone."""
    said = live.decide(CUSTOMER)
    assert len(told["offers"]) == len(said["offers"]) == 3
    assert told["score"] > 0 and told["notes"] == said["notes"]
    assert (told["stored"], told["refused"]) == (1, 0)
    declared = list(EXPERIMENTS["experiments"])  # type: ignore[call-overload]
    assert told["experiments"] == told["assigned"] == declared and set(RUNNING) < set(declared)
    assert told["flags"] == [f"experiment.{key}" for key in declared] + ["offers.home", "offers.bill"]
    assert told["failed"] == []


def test_python(live: Live, tmp_path: Path) -> None:
    """pydantic models of datamodel-code-generator: mypy finds no fault in a client, and it reads every answer."""
    (tmp_path / "openapi.json").write_bytes(live.ask("GET", "/openapi.json").body)
    run(tmp_path, *GENERATE)
    shutil.copy(CLIENTS / "python" / "ask.py", tmp_path)
    run(tmp_path, sys.executable, "-m", "mypy", "--strict", "--config-file=", "ask.py", "models.py")
    told = json.loads(run(tmp_path, sys.executable, "ask.py", f"http://127.0.0.1:{live.port}", CUSTOMER))
    check(told, live)
    assert told["placement"] == ["home", "home"]
    assert told["problem"] == [422, "/limit"]


def test_typescript(live: Live, tmp_path: Path) -> None:
    """Types of openapi-typescript: tsc finds no fault in a client of openapi-fetch, and it reads every answer."""
    folder = installed(tmp_path, (CLIENTS / "typescript").iterdir(), "TypeScript's types")
    (folder / "openapi.json").write_bytes(live.ask("GET", "/openapi.json").body)
    run(folder, "npx", "openapi-typescript", "openapi.json", "--output", "types.ts")
    run(folder, "npx", "tsc")
    told = json.loads(run(folder, "node", "ask.js", f"http://127.0.0.1:{live.port}", CUSTOMER))
    check(told, live)
    assert (told["unit"], told["problem"]) == ("a@b", [422, "/placement"])
