"""A workspace as an arm has it, and which arms one request can have at the same time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from features.config.experiments import Changes, ExperimentsFile
from features.config.faults import BadWorkspace
from features.config.policies import PoliciesFile
from features.validation.load import load
from features.workspace.variants import (
    VARIANTS_MAX,
    aliases,
    by_propensity,
    combinations,
    count,
    with_changes,
    without_levers,
)
from features.workspace.workspace import Workspace
from tests.workspaces import make_workspace

POLICIES: dict[str, Any] = {
    "rules": {
        "adults": {"when": "customer.lines > 0"},
        "not_now": {"when": "customer.lines > 1", "stage": "suitability"},
    },
    "arbitration": {
        "offers": {"o1": 2.0},
        "groups": {"g": 3.0},
        "weights": {"evening": {"when": "context.hour > 18", "weight": 2.0}},
        "worth": {"service": 1.0},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "w", customers=3, decisions=1, days=2)


@pytest.fixture
def workspace(folder: Path) -> Workspace:
    return replace(load(folder), policies=msgspec.convert(POLICIES, PoliciesFile))


def changes(**given: Any) -> Changes:
    return msgspec.convert(given, Changes)


def file_of(**experiments: Any) -> ExperimentsFile:
    return msgspec.convert({"experiments": experiments}, ExperimentsFile)


def arms(*names: str, status: str = "running", **more: Any) -> dict[str, Any]:
    """An experiment with a control arm and others that change something."""
    louder = {"changes": {"arbitration": {"offers": {"o1": 2.0}}}}
    return {"status": status, "arms": {"control": {}, **dict.fromkeys(names, louder)}, **more}


def test_each_kind_of_change_changes_that_alone(workspace: Workspace) -> None:
    """What a change names stands instead of what the files say, and the rest stays."""
    policies, offers = workspace.policies, workspace.offers
    made = with_changes(
        workspace, [changes(arbitration={"formula": "propensity", "offers": {"o2": 5.0}, "weights": {"evening": 7.0}})]
    )
    assert made.policies.arbitration.formula == "propensity" and made.policies.arbitration.offers == {
        "o1": 2.0,
        "o2": 5.0,
    }
    assert (
        made.policies.arbitration.weights["evening"].weight == 7
        and made.policies.arbitration.weights["evening"].when == "context.hour > 18"
    )
    assert (made.policies.rules, made.offers, made.policies.arbitration.worth) == (
        policies.rules,
        offers,
        {"service": 1.0},
    )
    assert set(with_changes(workspace, [changes(rules={"off": ["not_now"]})]).policies.rules) == {"adults"}
    placed = with_changes(workspace, [changes(placements={"home": {"limit": 1}})]).offers.placements
    assert (
        placed["home"] == msgspec.structs.replace(offers.placements["home"], limit=1)
        and placed["bill"] == offers.placements["bill"]
    )
    explored = with_changes(
        workspace, [changes(exploration={"gamma": 9}), changes(exploration={"floor": 0.5})]
    ).policies.exploration
    assert explored and (explored.gamma, explored.floor) == (9, 0.5)
    assert with_changes(workspace, [changes(), changes(model="challenger")]) == workspace


def test_of_two_changes_the_later_one_holds(workspace: Workspace) -> None:
    """Arms that change the same are applied in the order of the file."""
    both = [changes(placements={"home": {"limit": limit}}) for limit in (1, 2)]
    assert with_changes(workspace, both).offers.placements["home"].limit == 2


def test_control_groups_without_levers_and_by_propensity(workspace: Workspace) -> None:
    """Levers go and weights stay; by propensity, only the formula is another."""
    bare = without_levers(workspace).policies.arbitration
    assert (bare.offers, bare.groups, bare.weights) == ({}, {}, workspace.policies.arbitration.weights)
    assert by_propensity(workspace).policies.arbitration == msgspec.structs.replace(
        workspace.policies.arbitration, formula="propensity"
    )


def test_combinations_are_those_that_can_meet() -> None:
    """Experiments multiply, but for those of one namespace; who is kept in a sticky one may meet any other; drafts do
    not count.
    """
    spaced = [{"namespace": {"name": "n", "range": [at / 4, (at + 1) / 4]}} for at in range(3)]
    file = file_of(a=arms("x", "y", **spaced[0]), b=arms("x", **spaced[1]), c=arms("z"), d=arms("x", status="draft"))
    assert set(combinations(file)) == {
        (),
        *[((key, arm),) for key, arm in (("a", "x"), ("a", "y"), ("b", "x"), ("c", "z"))],
        *[((key, arm), ("c", "z")) for key, arm in (("a", "x"), ("a", "y"), ("b", "x"))],
    }
    assert next(combinations(file)) == () and count(file) == 8
    assert count(file_of(a=arms("x", "y", **spaced[0]), b=arms("x", sticky=True, **spaced[1]))) == 6
    assert count(file_of(a={"status": "running", "arms": {"one": {}, "other": {}}})) == 1


def test_models_of_running_arms() -> None:
    """The models that running arms name, each once."""
    named = {
        "arms": {
            "a": {"changes": {"model": "new"}},
            "b": {"changes": {"model": "12"}},
            "c": {"changes": {"model": "new"}},
        }
    }
    assert aliases(file_of(e={"status": "running", **named})) == ("12", "new")
    assert aliases(file_of(e={"status": "draft", **named})) == ()


def test_too_many_combinations_are_a_fault(folder: Path) -> None:
    """More than a server makes ready is refused with the way out, and a namespace is one."""
    louder = {"status": "running", "arms": {"control": {}, "loud": {"changes": {"placements": {"home": {"limit": 1}}}}}}
    experiments = {f"e{number}": dict(louder) for number in range(7)}
    (folder / "experiments.yaml").write_text(yaml.safe_dump({"experiments": experiments}))
    with pytest.raises(
        BadWorkspace, match=rf"at most {VARIANTS_MAX} combinations of arms that change something, got 128. Put"
    ):
        load(folder)
    for number, entry in enumerate(experiments.values()):
        entry["namespace"] = {"name": "n", "range": [number / 10, (number + 1) / 10]}
    (folder / "experiments.yaml").write_text(yaml.safe_dump({"experiments": experiments}))
    assert count(load(folder).experiments) == 8
