"""Cross-checks of experiments.yaml: each fault has its message and its way out."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from features.config.documents import BadWorkspace
from features.config.experiments import ExperimentsFile
from features.validation.experiments import EXPERIMENT_CHECKS, faults_of_experiments
from features.workspace.workspace import Workspace
from tests.features.experiment_cases import EXPERIMENTS, document, workspace
from tests.features.validation.experiment_faults import FAULTS

__all__ = ["workspace"]


def faults_in(workspace: Workspace, content: Any) -> list[str]:
    """What is wrong with a file, form first."""
    given = document(content)
    try:
        file = given.convert(ExperimentsFile)
    except BadWorkspace as bad:
        return list(map(str, bad.faults))
    return list(map(str, faults_of_experiments(workspace, given, file)))


def test_a_file_without_faults(workspace: Workspace) -> None:
    """The file that the faults below are changes of has none, and so has an empty one."""
    assert faults_in(workspace, EXPERIMENTS) == []
    assert faults_in(workspace, {}) == []


@pytest.mark.parametrize(
    ("path", "value", "message"), FAULTS, ids=[f"{path}-{at}" for at, (path, _, _) in enumerate(FAULTS)]
)
def test_a_fault_has_its_message(workspace: Workspace, path: str, value: Any, message: str) -> None:
    """One change makes one fault, told with file, line, path, what was expected, what came, and what to do."""
    content: Any = copy.deepcopy(EXPERIMENTS)
    *steps, last = path.split(".")
    node = content
    for step in steps:
        node = node[step]
    node[last] = value
    faults = faults_in(workspace, content)
    assert len(faults) == bool(message), faults
    if message:
        assert message in faults[0]
        assert faults[0].startswith("experiments.yaml:")


def test_an_account_needs_its_column(workspace: Workspace) -> None:
    """Experiments on accounts say where the account stands."""
    content = copy.deepcopy(EXPERIMENTS)
    del content["account"]
    assert [fault.partition("expected ")[2] for fault in faults_in(workspace, content)] == [
        (
            "a unit that the file knows, got `account`, without its column. For example"
            " `account: customer.household` at the top of the file."
        )
    ] * 2


def test_every_check_can_fail(workspace: Workspace) -> None:
    """No check stays silent over all the faults above."""
    failed = set()
    for path, value, _ in FAULTS:
        content: Any = copy.deepcopy(EXPERIMENTS)
        node = content
        *steps, last = path.split(".")
        for step in steps:
            node = node[step]
        node[last] = value
        given = document(content)
        try:
            file = given.convert(ExperimentsFile)
        except BadWorkspace:
            continue
        failed |= {check.__name__ for check in EXPERIMENT_CHECKS if any(check(workspace, given, file))}
    assert failed == {check.__name__ for check in EXPERIMENT_CHECKS}
