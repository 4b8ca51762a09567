"""Names among `parameters` of `model.yaml`: LightGBM passes over one that it does not know, and would undo what another key says."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import NamedTuple

from lightgbm.basic import _ConfigAliases

from features.faults import BadWorkspace
from features.formats import ModelFile
from features.workspace import Workspace

OURS = {
    "rounds_max": (
        "num_iterations",
        "num_iteration",
        "n_iter",
        "num_tree",
        "num_trees",
        "num_round",
        "num_rounds",
        "nrounds",
        "num_boost_round",
        "n_estimators",
        "max_iter",
    ),
    "patience_rounds": ("early_stopping_round", "early_stopping_rounds", "early_stopping", "n_iter_no_change"),
    "seed": ("seed", "random_seed", "random_state"),
    "monotone": ("monotone_constraints", "mc", "monotone_constraint", "monotonic_cst"),
}
"""Keys of `model.yaml` -> LightGBM's names for them, which would undo them without a word."""


class WrongName(NamedTuple):
    """A name that cannot be among the parameters."""

    name: str
    expected: str
    remedy: str


def wrong_names(model: ModelFile) -> Iterator[WrongName]:
    """Those that another key of `model.yaml` says, and those that LightGBM does not know."""
    ours = {name: key for key, names in OURS.items() for name in names}
    known = _ConfigAliases._get_all_param_aliases()  # no public list of them
    names = {alias for aliases in known.values() for alias in aliases}
    for name in sorted(model.parameters):
        if name in ours:
            yield WrongName(name, f"`{ours[name]}`", f"Say `{ours[name]}` instead.")
        elif name not in names:
            near = difflib.get_close_matches(name, known, 1)
            yield WrongName(name, "a parameter of LightGBM", f"Did you mean `{near[0]}`?" if near else "Take it out.")


def require_names(workspace: Workspace) -> None:
    """Refuse at once what the fit would refuse after imports and windows.

    Raises:
        BadWorkspace: with every wrong name, and where it stands.
    """
    document = workspace.documents["model.yaml"]
    faults = [document.fault(("parameters", one.name), one.expected, f"`{one.name}`", one.remedy) for one in wrong_names(workspace.model)]
    if faults:
        raise BadWorkspace(faults)
