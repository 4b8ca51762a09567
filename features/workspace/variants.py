"""A workspace as an arm has it: with the changes that arms of `experiments.yaml` make to policies and offers.

Also which arms one request can have at the same time, since serving makes each such combination ready beforehand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from math import prod

from msgspec.structs import asdict
from msgspec.structs import replace as changed

from features.config.experiments import Changes, Experiment, ExperimentsFile
from features.config.policies import Arbitration, Exploration, PoliciesFile
from features.workspace.workspace import Workspace

VARIANTS_MAX = 64
"""Bound on the combinations of arms that one request can have, arms that change nothing counted as one."""

Arms = tuple[tuple[str, str], ...]
"""Experiments and their arms, in the order of the file; only arms that change something."""

UNCHANGED = Changes()


def with_changes(workspace: Workspace, changes: Iterable[Changes]) -> Workspace:
    """Return a workspace with what arms change, one after the other: of two that change the same the later one
    holds.
    """
    policies, placements = workspace.policies, dict(workspace.offers.placements)
    for change in changes:
        policies = _policies(policies, change)
        for name, given in change.placements.items():
            placements[name] = changed(
                placements[name], **{key: value for key, value in asdict(given).items() if value is not None}
            )
    return replace(workspace, policies=policies, offers=changed(workspace.offers, placements=placements))


def _policies(policies: PoliciesFile, change: Changes) -> PoliciesFile:
    if change.rules is not None:
        policies = changed(
            policies, rules={name: rule for name, rule in policies.rules.items() if name not in change.rules.off}
        )
    if change.arbitration is not None:
        policies = changed(policies, arbitration=_arbitration(policies.arbitration, change))
    if change.exploration is not None:
        given = {key: value for key, value in asdict(change.exploration).items() if value is not None}
        policies = changed(policies, exploration=changed(policies.exploration or Exploration(), **given))
    return policies


def _arbitration(arbitration: Arbitration, change: Changes) -> Arbitration:
    given = change.arbitration
    assert given is not None
    weights = {name: changed(arbitration.weights[name], weight=weight) for name, weight in given.weights.items()}
    return changed(
        arbitration,
        formula=arbitration.formula if given.formula is None else given.formula,
        worth=arbitration.worth | given.worth,
        weights=arbitration.weights | weights,
        offers=arbitration.offers | given.offers,
        groups=arbitration.groups | given.groups,
    )


def without_levers(workspace: Workspace) -> Workspace:
    """Return the same with all levers of offers and groups at 1."""
    arbitration = changed(workspace.policies.arbitration, offers={}, groups={})
    return replace(workspace, policies=changed(workspace.policies, arbitration=arbitration))


def by_propensity(workspace: Workspace) -> Workspace:
    """Return the same with the propensity alone as priority."""
    arbitration = changed(workspace.policies.arbitration, formula="propensity")
    return replace(workspace, policies=changed(workspace.policies, arbitration=arbitration))


def changing(file: ExperimentsFile) -> dict[str, dict[str, Changes]]:
    """By running experiment its arms that change something, with what they change."""
    return {
        key: {name: arm.changes for name, arm in entry.arms.items() if arm.changes != UNCHANGED}
        for key, entry in file.experiments.items()
        if entry.status == "running"
    }


def aliases(file: ExperimentsFile) -> tuple[str, ...]:
    """Return the models, by alias or version, that arms of running experiments name; sorted."""
    return tuple(
        sorted(
            {change.model for arms in changing(file).values() for change in arms.values() if change.model is not None}
        )
    )


def count(file: ExperimentsFile) -> int:
    """Return how many combinations of arms there are."""
    return prod(len(choice) for choice in _choices(file))


def combinations(file: ExperimentsFile) -> Iterator[Arms]:
    """Return every combination of changing arms that one request can have, the empty one first."""
    order = {key: at for at, key in enumerate(file.experiments)}
    for chosen in product(*_choices(file)):
        yield tuple(sorted((one for one in chosen if one is not None), key=lambda one: order[one[0]]))


def _choices(file: ExperimentsFile) -> list[list[tuple[str, str] | None]]:
    """Return what can be chosen independently. Experiments of one namespace exclude each other, but for units that a
    sticky one has kept.
    """
    together: dict[str, list[tuple[str, str] | None]] = {}
    for key, arms in changing(file).items():
        if arms:
            together.setdefault(_exclusive(key, file.experiments), [None]).extend((key, arm) for arm in arms)
    return list(together.values())


def _exclusive(key: str, experiments: Mapping[str, Experiment]) -> str:
    entry = experiments[key]
    return f"experiment {key}" if entry.namespace is None or entry.sticky else f"namespace {entry.namespace.name}"
