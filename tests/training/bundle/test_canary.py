"""The canary: a model that dies, hangs or answers otherwise than it did never comes to serve."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from features.validation.load import load
from training.bundle import bundle, canary
from training.bundle.canary import CanaryFailed


@pytest.fixture(scope="module")
def served(trained_workspace: Path) -> Path:
    place = bundle.current(load(trained_workspace).bundles)
    assert place is not None
    return place


def rehearsal(model: Path, golden: Path, **more: Any) -> str:
    with pytest.raises(CanaryFailed) as caught:
        canary.rehearse(model, golden, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def loose(served: Path) -> str:
    """The model's text without the lengths of its trees, so that LightGBM takes one that was changed."""
    return re.sub(r"tree_sizes=.*\n", "", (served / "model.txt").read_text())


def test_a_sound_model_answers_as_recorded(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary passes what was trained; paths may be relative."""
    canary.rehearse(served / "model.txt", served / "golden.json")
    monkeypatch.chdir(served)
    canary.rehearse(Path("model.txt"), Path("golden.json"))


def test_a_cut_model_kills_the_canary_and_not_us(served: Path, tmp_path: Path) -> None:
    """LightGBM dies of a truncated text; whatever it dies of, the publisher gets a reason."""
    text, model = (served / "model.txt").read_bytes(), tmp_path / "model.txt"
    for damaged in (
        b"",
        text[: len(text) // 3],
        text[: 2 * len(text) // 3],
        text.replace(b"num_leaves=", b"num_leaves=9999"),
    ):
        model.write_bytes(damaged)
        message = rehearsal(model, served / "golden.json")
        assert "expected the model to answer its golden requests, got" in message
        assert message.isprintable() and len(message) < 500


def test_another_score_is_caught(served: Path, tmp_path: Path) -> None:
    """One digit of one leaf: the model loads and answers, only otherwise, and that is seen at the first golden request
    it touches.
    """
    model = tmp_path / "model.txt"
    model.write_text(re.sub(r"leaf_value=\S+", "leaf_value=0.123", loose(served)))
    message = rehearsal(model, served / "golden.json")
    assert "exit status 3: golden request" in message and "expected [" in message


def test_a_model_that_hangs_is_stopped(served: Path, tmp_path: Path) -> None:
    """A tree whose root is its own child makes `predict` run for ever: it is ended, within the time that was given."""
    model = tmp_path / "model.txt"
    model.write_text(re.sub(r"left_child=\S+(.*)\nright_child=\S+", r"left_child=0\1\nright_child=0", loose(served)))
    said = rehearsal(model, served / "golden.json", seconds_max=4)
    assert "within 4 s of processor time, got no answer" in said and "OPPORTUNE_REHEARSAL_SECONDS" in said


def test_a_machine_that_is_too_busy_is_told_how_to_wait_longer(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time on the clock ends a rehearsal too; the message names the setting, whose value is checked."""
    said = rehearsal(served / "model.txt", served / "golden.json", clock_seconds_max=0.01)
    assert "within 0.01 s, got no answer" in said and "set OPPORTUNE_REHEARSAL_SECONDS (now 60) higher" in said
    monkeypatch.setenv("OPPORTUNE_REHEARSAL_SECONDS", "240")
    assert canary.seconds_of(os.environ) == 240
    monkeypatch.setenv("OPPORTUNE_REHEARSAL_SECONDS", "soon")
    expected = "OPPORTUNE_REHEARSAL_SECONDS: expected a number from 5 to 3600, got 'soon'"
    assert rehearsal(served / "model.txt", served / "golden.json") == expected


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "exit status 4: 0 golden requests"),
        (b"[{", "exit status 1"),
        (b'[{"shared":[1.0],"offers":[[1.0]],"pairs":[[1.0]],"raw":[0.5],"propensities":[0.5]}]', "exit status 1"),
    ],
)
def test_golden_requests_that_ask_nothing_or_nonsense_fail(
    served: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    """A check that runs nothing has failed, and so has one of another shape."""
    (tmp_path / "golden.json").write_bytes(content)
    assert reason in rehearsal(served / "model.txt", tmp_path / "golden.json")
