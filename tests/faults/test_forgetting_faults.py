"""Forgetting through crashes: killed at any step it is gone on with, and neither leaves anything of the customer nor
costs anybody else a row.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from features.events.log import event_folder
from features.validation.load import load
from pipelines.erasure.erase import forget, resume
from pipelines.erasure.journal import Journals
from pipelines.erasure.lake import BadParquet
from pipelines.erasure.scan import scan
from pipelines.erasure.stores import Contacts, EventLogPlace, OnlineRows
from pipelines.erasure.task import tasks_of
from pipelines.materialize import hold, steps
from tests.pipelines.erasure_cases import PLACES, UNITS, VICTIM, build, content
from tests.pipelines.loops import KillAt, Killed, copy_of

ROOT = Path(__file__).parents[2]
STEPS_MIN = 30


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the victim stands everywhere."""
    return build(tmp_path_factory.mktemp("forgetful") / "base").folder


@pytest.mark.slow
def test_killed_at_every_step(base: Path, tmp_path: Path) -> None:
    """SIGKILL at each step in turn; then it is gone on with, nothing is left of the customer, and all else is as it
    was.
    """
    command = [sys.executable, "-m", "tests.pipelines.forget_killed", str(base), str(tmp_path), "1"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    rounds = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(rounds) > STEPS_MIN
    assert [one["ended"] for one in rounds[:-1]] == [-9] * (len(rounds) - 1)
    before = content(load(base))
    for one in rounds:
        workspace = load(tmp_path / str(one["step"]))
        if one["step"] == 0:  # before its task was written down: it has not begun
            assert one["answer"] == []
            continue
        assert [answer["done"] for answer in one["answer"]] == [True] * bool(one["ended"]), one
        assert not tasks_of(workspace)
        assert scan(workspace.data, UNITS).plaintext_hits == 0, one
        assert content(workspace) == before, one
    print(f"  killed at {len(rounds) - 1} steps")


def test_what_cannot_be_done_now_is_done_later(base: Path, tmp_path: Path) -> None:
    """Ended at a step, the task stays, readable by its owner alone, with a name that does not tell whose; it goes when
    all is done.
    """
    workspace = copy_of(load(base), tmp_path / "copy")
    with pytest.raises(Killed):
        forget(workspace, VICTIM, step=KillAt(20))
    [task] = tasks_of(workspace)
    assert VICTIM.encode() in task.read_bytes()
    assert (task.stat().st_mode & 0o777, task.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert VICTIM not in task.name
    [done] = resume(workspace)
    assert done.done
    assert resume(workspace) == []
    found = {name: counted.found for name, counted in done.places.items()}
    assert set(found) == set(PLACES)
    assert min(found.values()) > 0, "the counts of the first try are lost"


def test_a_damaged_file_is_named(base: Path, tmp_path: Path) -> None:
    """A Parquet file that cannot be read stops the forgetting with its name; without it, it goes on."""
    workspace = copy_of(load(base), tmp_path / "copy")
    file = next(iter(sorted((workspace.lake / "decisions").glob("**/import-*.parquet"))))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadParquet, match=file.name):
        forget(workspace, VICTIM)
    assert tasks_of(workspace)
    file.unlink()
    assert [done.done for done in resume(workspace)] == [True]


def test_who_holds_the_workspace_is_waited_for(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process works on the workspace, what serves has forgotten already, and the rest waits for a bounded
    time.
    """
    workspace = copy_of(load(base), tmp_path / "copy")
    monkeypatch.setattr(hold, "ALONE_SECONDS_MAX", 0.2)
    with steps.alone(workspace), pytest.raises(steps.Busy):
        forget(workspace, VICTIM)
    at_once = [place.left(UNITS) for place in (EventLogPlace(workspace, 0), Contacts(workspace), OnlineRows(workspace))]
    assert at_once == [0, 0, 0]
    assert Journals(workspace).left(UNITS) > 0
    assert (event_folder(workspace.data) / "events.db").exists()
    assert [done.done for done in resume(workspace)] == [True]
