"""The verb and the worker take the steps of a ramp."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from features.validation.load import load
from features.workspace.experiments import ReadExperiment
from features.workspace.ramps import read_record
from features.workspace.workspace import Workspace
from pipelines import worker
from pipelines.experiments.analysis import experiments_in, find, listed
from pipelines.main import app
from pipelines.ramps import plots, ramp
from pipelines.ramps.steps import Step
from tests.pipelines.experiment_lakes import ARMS, DAY, KEY, NOW, START, made
from tests.pipelines.ramp_lakes import fill
from tests.workspaces import make_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """With an experiment that is ramped, and a lake."""
    folder = make_workspace(tmp_path / "shop", customers=4, decisions=1)
    plan = {"arm": "louder", "hold": "2d", "window": "2d", "units": 300}
    entry = {"status": "running", "arms": {arm: {} for arm in ARMS}, "ramp": plan}
    file = {"experiments": {KEY: entry, "plain": {"status": "running", "arms": {"a": {}, "b": {}}}}}
    (folder / "experiments.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
    found = load(folder, sources=False)
    found.data.mkdir(exist_ok=True)
    return found


def experiment(workspace: Workspace) -> ReadExperiment:
    """As the files and the record have it now."""
    return find(experiments_in(workspace), KEY)


def put(workspace: Workspace, share: float, moment: int) -> None:
    """Begin the ramp, or move it."""
    now = experiment(workspace)
    move = ramp.by_hand(now, share, "moved", moment) if now.standing is not None and now.standing.share else None
    ramp.write(workspace, now, move or Step("start", share, "started", "begun"), moment, "command")


def test_the_worker_takes_the_steps(workspace: Workspace) -> None:
    """The worker's task leaves alone what was not started, raises what does no harm, writes each reason once, and its
    steps are drawn.
    """
    fill(workspace, made(1, units=4_000))
    ramp.tend(workspace, NOW)
    assert read_record(workspace.data) == []
    put(workspace, 0.01, START)
    ramp.tend(workspace, START + DAY)
    for day in (10, 10.5, 11, 20):
        ramp.tend(workspace, int(START + day * DAY))
    lines = [line for line in read_record(workspace.data) if line is not None]
    assert [(line.verdict, line.code, line.share, line.who) for line in lines] == [
        ("start", "started", 0.01, "command"),
        ("hold", "hold_time", 0.01, "worker"),
        ("proceed", "next_step", 0.05, "worker"),
        ("hold", "hold_time", 0.05, "worker"),
        ("proceed", "next_step", 0.1, "worker"),
    ]
    assert lines[2].evidence is not None and lines[2].evidence.guardrails
    assert [one.ramp for one in listed(workspace, experiments_in(workspace).experiments, NOW)][1] is None
    one, two = (plots.write_plot(KEY, lines, NOW, workspace.data / name) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("broken", ["", "experiments.yaml", "policies.yaml"])
def test_the_worker_rolls_back(workspace: Workspace, broken: str) -> None:
    """Harm rolls back at the next look, with reason and figures in the record, and for good, also while somebody edits
    a file.
    """
    fill(workspace, made(2, units=3_000, rates=(0.2, 0.1)))
    put(workspace, 0.25, START)
    if broken:
        (workspace.folder / broken).write_text("experiments: [")
    for _ in range(2):
        worker.ramp(workspace)
    (last,) = [line for line in read_record(workspace.data) if line is not None][1:]
    assert (last.verdict, last.code, last.before, last.share, last.who) == (
        "roll_back",
        "guardrail",
        0.25,
        0.0,
        "worker",
    )
    assert last.evidence is not None and last.evidence.guardrails[0].verdict == "harm" and "conversion" in last.reason
    assert listed(workspace, experiments_in(workspace).experiments, NOW)[0].ramp == "rolled back"


def told(workspace: Workspace, *words: str) -> tuple[int, str]:
    """What the verb says."""
    done = CliRunner().invoke(app, ["experiment", "ramp", "-w", str(workspace.folder), *words])
    return done.exit_code, (
        " ".join(done.output.split()) if done.exception is None or done.exit_code == 2 else str(done.exception)
    )


def test_the_verb_moves_a_ramp(workspace: Workspace, tmp_path: Path) -> None:
    """A person begins, looks, moves, rolls back and begins again; a dry run writes nothing; the history tells all of
    it.
    """
    assert "--start begins" in told(workspace, KEY)[1] and read_record(workspace.data) == []
    assert "started by hand" in told(workspace, KEY, "--start", "--dry-run")[1] and read_record(workspace.data) == []
    assert "0 % -> 1 %: start" in told(workspace, KEY, "--start")[1]
    code, said = told(workspace, KEY, "--json")
    document = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert code == 0 and (document["verdict"], document["code"], document["written"]) == ("hold", "hold_time", True)
    assert "1 % -> 25 %: by hand: asked for" in told(workspace, KEY, "--to", "0.25", "--reason", "asked for")[1]
    assert listed(workspace, experiments_in(workspace).experiments, NOW)[0].ramp == "25% rising"
    assert "roll back: complaints" in told(workspace, KEY, "--roll-back", "--reason", "complaints")[1]
    assert "it was rolled back" in told(workspace, KEY)[1]
    assert told(workspace, KEY, "--start")[0] == 0
    said = told(workspace, KEY, "--history", "--plots", str(tmp_path / "plots"))[1]
    assert [word for word in ("start", "hold", "by hand", "roll back") if word in said] == [
        "start",
        "hold",
        "by hand",
        "roll back",
    ]
    assert (tmp_path / "plots" / f"ramp_{KEY}.png").stat().st_size > 5_000
    assert (
        len(
            json.loads(
                CliRunner()
                .invoke(app, ["experiment", "ramp", "-w", str(workspace.folder), KEY, "--history", "--json"])
                .stdout
            )
        )
        == 5
    )


def test_rolling_back_by_hand_waits_for_no_file(workspace: Workspace) -> None:
    """While somebody edits files, which have faults, an arm can be taken from customers, once, and nothing else can be
    done.
    """
    assert told(workspace, KEY, "--start")[0] == 0
    file = workspace.folder / "policies.yaml"
    before = file.read_text() if file.exists() else ""
    file.write_text("rules: [broken")
    assert told(workspace, KEY, "--to", "0.25", "--reason", "x")[0] != 0
    code, said = told(workspace, KEY, "--roll-back", "--reason", "complaints")
    assert code == 0 and "by the record alone" in said and "complaints" in said
    assert "was rolled back" in told(workspace, KEY, "--roll-back", "--reason", "again")[1]
    assert "is not in" in told(workspace, "other", "--roll-back", "--reason", "x")[1]
    file.write_text(before)
    assert "it was rolled back: --start begins" in told(workspace, KEY)[1]
    assert [line and (line.verdict, line.share) for line in read_record(workspace.data)] == [
        ("start", 0.01),
        ("roll_back", 0.0),
    ]


def test_the_verb_refuses_with_the_way_out(workspace: Workspace) -> None:
    """What cannot be done is said in one line with what to do instead, and nothing is written."""
    for words, expected in (
        ((KEY, "--to", "0.5", "--reason", "x"), "--start begins it"),
        ((KEY, "--roll-back", "--reason", "x"), "--start begins it"),
        ((KEY, "--to", "0.5"), "expected why"),
        ((KEY, "--to", "1.5", "--reason", "x"), "expected a share of 0.001 to 1"),
        ((KEY, "--start", "--history"), "expected one of"),
        ((KEY, "--start", "--reason", "x" * 501), "expected at most 500"),
        (("plain",), "add `ramp: {arm: …}`"),
        (("nothing",), "expected the key of an experiment"),
    ):
        code, said = told(workspace, *words)
        assert code != 0 and expected in said.replace("│ ", "").replace(" │", ""), (words, said)
    assert told(workspace, KEY, "--start")[0] == 0 and "--to moves it" in told(workspace, KEY, "--start")[1]
    file = workspace.folder / "experiments.yaml"
    file.write_text(file.read_text().replace("running", "stopped"))
    for words in ((KEY,), (KEY, "--to", "0.5", "--reason", "x")):
        assert "set `status: running`" in told(workspace, *words)[1]
    ramp.tend(workspace, NOW)
    assert len(read_record(workspace.data)) == 1
    assert told(workspace, KEY, "--roll-back", "--reason", "over")[0] == 0


@given(seconds=st.floats(0, 100), share=st.floats(0.01, 1), took=st.floats(0, 1_000))
def test_a_long_look_makes_the_next_one_later(seconds: float, share: float, took: float) -> None:
    """A task of the worker has its turn at its time, and never takes more than its share of the time."""
    due = worker.BackgroundTask(worker.ramp, seconds, share).due(0.0, took)
    assert due >= seconds and took <= due * share * (1 + 1e-9)
    assert took > seconds * share or due == seconds
