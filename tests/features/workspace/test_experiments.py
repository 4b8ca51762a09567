"""How experiments.yaml is read: moments, conditions, arms, control groups, and what an empty file means."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.common.timestamps import parse_moment
from features.config.documents import Document
from features.config.experiments import CONTROL_GROUPS, ControlGroups, ExperimentsFile
from features.workspace.experiments import control_groups_of, overlapping, read_experiments
from features.workspace.rulebook import read_rules
from features.workspace.workspace import Workspace
from tests.features.experiment_cases import EXPERIMENTS, document, workspace

__all__ = ["workspace"]


def test_what_is_read(workspace: Workspace) -> None:
    """Moments are numbers, conditions are parsed, the control is the arm that says so or the first, shares are
    exact.
    """
    book = read_rules(workspace.policies, workspace.features, "EUR")
    louder, second = read_experiments(document(EXPERIMENTS).convert(ExperimentsFile), book).experiments
    assert (louder.start, louder.end) == (parse_moment("2026-11-01"), parse_moment("2026-11-30T23:00:00Z"))
    assert louder.targeting is not None and louder.targeting.names == ("context.channel", "customer.tenure_days")
    assert list(louder.formulas) == ["treatment"]
    assert (louder.control, second.control, second.arms) == ("control", "b", ("a", "b", "c"))
    assert louder.split.shares == pytest.approx((0.4, 0.6)) and louder.split.covered == pytest.approx(0.5)
    assert second.split.shares == pytest.approx((1 / 3,) * 3, abs=1e-4) and sum(second.split.shares) == pytest.approx(1)
    assert louder.namespace_share == second.namespace_share == 0.5
    assert (second.start, second.end, second.targeting) == (None, None, None)


def test_control_groups_are_those_of_the_file() -> None:
    """Each field of the control groups is one of them, in the order in which shares are cut."""
    assert [name for name in ControlGroups.__struct_fields__ if name != "salt"] == list(CONTROL_GROUPS)
    split = control_groups_of(ControlGroups(no_levers=0.1, random_propensity=0.3))
    assert split.covered == pytest.approx(0.4) and split.shares == pytest.approx((0, 0, 0.25, 0, 0.75))


def test_overlaps() -> None:
    """Ranges that only touch are apart; one within another is not, wherever it stands."""
    assert overlapping([((0, 0.5), "a"), ((0.5, 1), "b"), ((0.5, 0.5), "c")]) == []
    assert overlapping([((0.2, 0.3), "b"), ((0, 1), "a"), ((0.9, 1), "c")]) == [("b", "a"), ("c", "a")]


def test_an_empty_file_has_no_experiments(workspace: Workspace) -> None:
    """An absent file is an empty one: nothing is assigned, nobody is held out."""
    file = Document(Path("experiments.yaml"), "experiments.yaml", "").convert(ExperimentsFile)
    assert file == ExperimentsFile()
    read = read_experiments(file, read_rules(workspace.policies, workspace.features, "EUR"))
    assert read.experiments == () and file.holdout is None and file.control_groups is None
