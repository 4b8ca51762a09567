"""The states that decide under arms and in groups: made from the one that serves, each combination of arms that one
request can have.

They share bundle, kernel, tables and layout with the serving one. An arm with another model brings another bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, Self, TypeVar

from features.columns.layout import Layout
from features.config.experiments import CONTROL_GROUPS, Changes, ExperimentsFile
from features.workspace import variants
from features.workspace.workspace import Workspace
from serving.assignment.assignment import HOLDOUT
from serving.hub.exploration import Explorer
from serving.hub.hub import USUAL, Logic
from training.bundle.bundle import BadBundle, Bundle

ELIGIBILITY: Logic = replace(USUAL, stages=("eligibility",))
LOGICS: dict[str, Logic] = {
    HOLDOUT: Logic(weighted=False, personal=False, explores=False),
    "random_eligible": Logic(explorer=Explorer("gap", floor=1.0, salt="random_eligible")),
    "propensity_only": USUAL,
    "no_levers": USUAL,
    "eligibility_only": ELIGIBILITY,
    "random_propensity": Logic(blind=True, explorer=Explorer("weight", salt="random_propensity")),
}
"""What the holdout and each control group do otherwise, beside what `workspace_of_group` changes."""
assert set(LOGICS) == {HOLDOUT, *CONTROL_GROUPS}


class DecidingState(Protocol):
    """What experiments need of a state that decides."""

    workspace: Workspace
    bundle: Bundle

    @property
    def layout(self) -> Layout:
        """Return where each column stands."""
        ...

    def changed(self, workspace: Workspace, logic: Logic = USUAL) -> Self:
        """Return the state of an arm or a control group."""
        ...

    def on(self, bundle: Bundle) -> Self:
        """Return the same files and offers on another model."""
        ...


S = TypeVar("S", bound=DecidingState)


def on_models(loaded: S, bundles: Mapping[str, Bundle]) -> dict[str, S]:
    """Return the state on the bundle of each model that arms name, by that name.

    Raises:
        BadBundle: such a model was not published, or cannot serve.
    """
    made: dict[str, S] = {}
    for name in variants.aliases(loaded.workspace.experiments):
        if name not in bundles:
            raise BadBundle(
                f"expected a published bundle of the model `{name}`, which an arm of experiments.yaml names, got none: "
                f"run `opportune publish --alias {name}`"
            )
        made[name] = loaded if bundles[name].id == loaded.bundle.id else loaded.on(bundles[name])
    return made


def state_of_arms(loaded: S, bases: Mapping[str, S], changes: list[Changes]) -> S | None:
    """Return the state of a combination of arms; None: the state that serves."""
    model = next((change.model for change in reversed(changes) if change.model is not None), None)
    base, workspace = loaded if model is None else bases[model], variants.with_changes(loaded.workspace, changes)
    made = base if workspace == loaded.workspace else base.changed(workspace)
    return None if made is loaded else made


def groups_in_use(file: ExperimentsFile) -> list[str]:
    """Return the holdout and the control groups that somebody may be in."""
    shares = {HOLDOUT: 0.0 if file.holdout is None else file.holdout.share}
    if file.control_groups is not None:
        shares |= dict(zip(CONTROL_GROUPS, file.control_groups.shares, strict=True))
    return [name for name, share in shares.items() if share > 0]


def workspace_of_group(group: str, workspace: Workspace) -> Workspace:
    """Return the workspace as the holdout or a control group sees it."""
    if group == "propensity_only":
        return variants.by_propensity(workspace)
    return variants.without_levers(workspace) if group == "no_levers" else workspace
