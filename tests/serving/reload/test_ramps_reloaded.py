"""Ramps through a desk: a share that rises without a restart, what a killed or damaged writer leaves, and who is in the
arm meanwhile.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from features.common.timestamps import now
from features.validation.load import load
from features.workspace.experiments import ReadExperiment
from features.workspace.ramps import RECORD, read_record
from features.workspace.workspace import Workspace
from pipelines.experiments.analysis import experiments_in, find
from pipelines.ramps import ramp
from pipelines.ramps.steps import Step
from serving.api.experiments import ExperimentRoutes, ExperimentsAnswer
from serving.api.preview import Enquiry
from serving.decision.assignment import Assignment, Units
from serving.reload.config_files import read_again
from serving.reload.reloader import Reloader
from tests.serving.live import serving_copy

KEY = "short"
FILE = {
    "experiments": {
        KEY: {
            "status": "running",
            "arms": {"as_it_is": {}, "short": {"changes": {"placements": {"home": {"limit": 1}}}}},
            "ramp": {"arm": "short"},
        }
    }
}
UNITS = [f"unit-{number}" for number in range(1_500)]


@pytest.fixture(scope="module")
def workspace(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = serving_copy(trained_workspace, tmp_path_factory.mktemp("ramps") / "shop")
    (folder / "experiments.yaml").write_text(yaml.safe_dump(FILE, sort_keys=False))
    return load(folder, sources=False)


@pytest.fixture
def desk(workspace: Workspace) -> Iterator[Reloader]:
    """Of a ramp that was not started."""
    (workspace.data / RECORD).unlink(missing_ok=True)
    made = Reloader(load(workspace.folder, sources=False))
    made.load()
    assert made.loaded is not None, made.refusal
    yield made
    made.close()


def experiment(workspace: Workspace) -> ReadExperiment:
    return find(experiments_in(workspace), KEY)


def move(workspace: Workspace, share: float) -> None:
    """Write a step down, as the verb does."""
    read = experiment(workspace)
    assert read.standing is not None
    step = (
        ramp.by_hand(read, share, "a test", now()) if read.standing.share else Step("start", share, "started", "a test")
    )
    ramp.write(workspace, read, step, now(), "command")


def looks(desk: Reloader) -> str:
    """The digest of what serves after two looks: a file is read when it was left alone for one."""
    for _ in range(2):
        asyncio.run(desk.look())
    assert desk.loaded is not None
    return desk.loaded.hub.config


def said(desk: Reloader) -> dict[str, Assignment]:
    """What the experiment says to each unit."""
    assert desk.loaded is not None
    trials, moment = desk.loaded.trials, desk.clock()
    return {unit: trials.assigned(Units(unit), None, {}, {}, moment).assignments[0] for unit in UNITS}


def in_arm(desk: Reloader) -> set[str]:
    return {unit for unit, one in said(desk).items() if one.arm == "short"}


def test_a_share_rises_without_a_restart(desk: Reloader, workspace: Workspace) -> None:
    """Each step is taken by a desk that runs, as another digest; up to one half nobody changes arms; the arm decides
    for those in it.
    """
    digests, before = [looks(desk)], dict[str, str]()
    assert {one.reason for one in said(desk).values()} == {"not_started"}
    for share in (0.05, 0.25, 0.5, 1.0):
        move(workspace, share)
        digests.append(looks(desk))
        found = said(desk)
        arms = {unit: one.arm for unit, one in found.items() if one.arm is not None}
        assert all(arms[unit] == arm for unit, arm in before.items()) or share > 0.5
        assert {one.probability for one in found.values() if one.arm == "short"} == {0.5 if share <= 0.5 else 1.0}
        assert abs(len(in_arm(desk)) / len(UNITS) - share) < 0.06
        before = arms
    move(workspace, 0.0)
    digests.append(looks(desk))
    assert {(one.arm, one.reason) for one in said(desk).values()} == {(None, "rolled_back")}
    assert len(set(digests)) == 6


def test_the_state_of_the_arm_decides(desk: Reloader, workspace: Workspace) -> None:
    """Units in the arm are decided by what it changes, the others, covered or not, by what the workspace says."""
    move(workspace, 0.25)
    looks(desk)
    loaded = desk.loaded
    assert loaded is not None
    for unit in UNITS[:60]:
        assigned = loaded.trials.assigned(Units(unit), None, {}, {}, desk.clock())
        limit = loaded.trials.state(assigned).workspace.offers.placements["home"].limit
        assert (limit == 1) == (assigned.assignments[0].arm == "short")


def test_the_list_tells_the_ramp(desk: Reloader, workspace: Workspace) -> None:
    """`GET /v1/experiments` says share, state and steps."""
    move(workspace, 0.05)
    looks(desk)

    async def asked() -> bytes:
        _, _, body, _ = await ExperimentRoutes(Enquiry(desk)).listed(b"", None)  # type: ignore[arg-type]
        assert isinstance(body, bytes)
        return body

    (told,) = msgspec.json.decode(asyncio.run(asked()), type=ExperimentsAnswer).experiments
    assert told.ramp is not None and (told.ramp.arm, told.ramp.state, told.ramp.share) == ("short", "rising", 0.05)
    assert told.ramp.steps[0] == 0.01 and told.covered == 0.1


CHILD = """
import os, signal, sys
from pathlib import Path
from features.common.timestamps import now
from features.validation.load import load
from pipelines.ramps import ramp
from pipelines.experiments.analysis import experiments_in, find
workspace = load(Path(sys.argv[1]), sources=False)
read = find(experiments_in(workspace), sys.argv[2])
ramp.write(workspace, read, ramp.by_hand(read, 0.25, "before the end", now()), now(), "worker")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_that_is_killed_before_servers_take_its_step(desk: Reloader, workspace: Workspace) -> None:
    """A step that was written by a process that was killed right after it holds: the next look takes it."""
    move(workspace, 0.05)
    looks(desk)
    few = in_arm(desk)
    killed = subprocess.run(
        [sys.executable, "-c", CHILD, str(workspace.folder), KEY], cwd=Path(__file__).parents[3], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert in_arm(desk) == few
    looks(desk)
    assert few < in_arm(desk) and len(in_arm(desk)) > 3 * len(few)


def test_a_roll_back_holds_while_files_have_faults(desk: Reloader, workspace: Workspace) -> None:
    """Files that are refused keep no step from a desk: the arm is taken from everybody, under what the files said
    before.
    """
    move(workspace, 0.25)
    looks(desk)
    assert in_arm(desk)
    read, file, refused = experiment(workspace), workspace.folder / "model.yaml", list[str]()
    desk.on_refusal, content = refused.append, file.read_bytes()
    file.write_text("label: [")
    try:
        digest = looks(desk)
        assert refused == ["config"] and in_arm(desk)
        ramp.write(workspace, read, ramp.by_hand(read, 0.0, "a test", now()), now(), "command")
        assert looks(desk) != digest and {one.reason for one in said(desk).values()} == {"rolled_back"}
        assert refused == ["config"] * 2
    finally:
        file.write_bytes(content)


def test_a_torn_or_damaged_record_fails_safe(desk: Reloader, workspace: Workspace) -> None:
    """Half a line and a damaged one change nobody's arm, and what is refused is told; without a record nobody is in the
    arm.
    """
    move(workspace, 0.05)
    move(workspace, 0.25)
    looks(desk)
    units, file = in_arm(desk), workspace.data / RECORD
    lines = file.read_bytes().splitlines(keepends=True)
    for rest in (b'{"crc":12,"line":{"experi', b"damage\n", lines[1][:-20] + b"\n", b"\xff\x00\n"):
        file.write_bytes(b"".join(lines) + rest)
        looks(desk)
        assert in_arm(desk) == units
    assert read_record(workspace.data)[-1] is None
    file.write_bytes(lines[0] + lines[1].replace(b"0.25", b"0.95"))
    looks(desk)
    assert 0 < len(in_arm(desk)) < len(units), "a line that was changed is not believed: the one before holds"
    file.unlink()
    looks(desk)
    assert in_arm(desk) == set()
    file.mkdir()
    try:
        refused = read_again(workspace)
        assert isinstance(refused, str) and "IsADirectoryError" in refused
    finally:
        file.rmdir()
