"""Where time is cut: no decision is on two sides, and a side without examples is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.config.model_file import TrainingSplit
from features.validation.load import load
from features.workspace.workspace import Workspace
from tests.examples import made
from tests.workspaces import make_workspace
from training.dataset.examples import Examples, NoExamples
from training.dataset.split import split_of


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace of which nothing is imported: examples are made by hand."""
    return load(make_workspace(tmp_path_factory.mktemp("split") / "w", customers=2, decisions=1))


def with_split(workspace: Workspace, **split: Any) -> Workspace:
    return replace(workspace, model=msgspec.structs.replace(workspace.model, split=TrainingSplit(**split)))


def timed(times: list[int], windows: list[int], labels: list[float], strangers: list[bool]) -> Examples:
    """One decision of two offers for each moment."""
    order = np.argsort(times, kind="stable")
    moments = np.array(times, np.int64)[order]
    examples = made([2] * len(times), np.repeat(np.array(labels)[order], 2))
    changed = {
        "times": moments,
        "closes": moments + np.array(windows)[order],
        "strangers": np.array(strangers, bool)[order],
    }
    return Examples(**{**vars(examples), **changed})


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data(), st.booleans(), st.booleans())
def test_no_decision_is_on_two_sides(empty: Workspace, data: st.DataObject, fixed: bool, open_windows: bool) -> None:
    """Training windows are closed at the cut, test decisions are not before it, slices do not meet, strangers only
    teach.
    """
    size = data.draw(st.integers(4, 40))
    several = st.lists(st.integers(0, 60), min_size=size, max_size=size)
    times, windows = (
        data.draw(several),
        data.draw(st.one_of(several, st.just([0] * size), several.map(lambda w: [v - 30 for v in w]))),
    )
    examples = timed(times, windows, [1.0] * size, data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    now = 80
    split = {"open_windows": open_windows} | ({"cut": "1970-01-01T00:00:00.000030Z"} if fixed else {})
    try:
        found = split_of(with_split(empty, **split), examples, now)
    except NoExamples:
        return
    assert not (found.fit & found.stopping).any() and not ((found.fit | found.stopping) & found.test).any()
    training = found.fit | found.stopping
    assert (examples.closes[training] <= found.cut).all() and (examples.times[training] < found.cut).all()
    assert (examples.times[found.test] >= found.cut).all()
    assert examples.times[found.fit].max() < found.stopping_cut <= examples.times[found.stopping].min()
    assert not examples.strangers[found.test | found.stopping].any()
    assert open_windows or (examples.closes[found.test] <= now).all()
    if fixed:
        assert found.cut == 30


def test_the_cut_leaves_the_wanted_part_behind_it(empty: Workspace) -> None:
    """A fifth of the decisions with closed windows is for the test, a quarter of the training decisions for
    stopping.
    """
    examples = timed(list(range(1000)), [0] * 1000, [1.0] * 1000, [False] * 1000)
    found = split_of(with_split(empty), examples, 10_000)
    assert (found.fit.sum(), found.stopping.sum(), found.test.sum()) == (600, 200, 200)
    found = split_of(with_split(empty, test_share=0.5, stopping_share=0.1), examples, 10_000)
    assert (found.fit.sum(), found.stopping.sum(), found.test.sum()) == (450, 50, 500)


@pytest.mark.parametrize(
    ("times", "windows", "labels", "split", "message"),
    [
        (
            range(100),
            [500] * 100,
            [1.0] * 100,
            {},
            "whose attribution window is closed, got none. Shorten `label.within` or wait",
        ),
        (
            range(100),
            [90] * 100,
            [1.0] * 100,
            {"cut": "1970-01-01"},
            r"on both sides of the cut 1970-01-01T00:00:00Z, got 0 before and 11 after",
        ),
        (
            range(100),
            [0] * 100,
            [0.0] * 50 + [1.0] * 50,
            {},
            "a success among the 60 decisions for training, got none. Move `split.cut`",
        ),
        (
            range(100),
            [0] * 100,
            [1.0] * 60 + [0.0] * 20 + [1.0] * 20,
            {},
            "among the 20 decisions for early stopping, got none",
        ),
        (range(100), [0] * 100, [1.0] * 80 + [0.0] * 20, {}, "among the 20 decisions for test, got none"),
    ],
)
def test_a_side_without_examples_is_said(
    empty: Workspace, times: Any, windows: Any, labels: Any, split: Any, message: str
) -> None:
    """No closed window, an empty side, a slice without a success: each message says which, how many, and the way
    out.
    """
    if "training" in message:
        labels = [0.0] * 60 + [1.0] * 40
    with pytest.raises(NoExamples, match=message):
        split_of(with_split(empty, **split), timed(list(times), list(windows), labels, [False] * 100), 100)
