"""Load a workspace: read its files and check each against the others. A loaded one can be trusted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from features.config.documents import Document
from features.config.experiments import ExperimentsFile
from features.config.faults import BadWorkspace, Fault
from features.config.features_file import FeaturesFile
from features.config.model_file import ModelFile
from features.config.offers_file import OffersFile
from features.config.policies import PoliciesFile
from features.config.workspace_file import WorkspaceFile
from features.validation.workspace import faults_of
from features.workspace.workspace import Workspace

FILES: dict[str, Any] = {
    "workspace.yaml": WorkspaceFile,
    "features.yaml": FeaturesFile,
    "offers.yaml": OffersFile,
    "policies.yaml": PoliciesFile,
    "experiments.yaml": ExperimentsFile,
    "model.yaml": ModelFile,
}
OPTIONAL_FILES = ("policies.yaml", "experiments.yaml")
"""Files that may be absent, which is the same as empty."""


def load(folder: Path, *, sources: bool = True) -> Workspace:
    """Read and cross-check a workspace.

    Args:
        sources: whether the files that it imports must be there; a server needs only what was made of them.

    Raises:
        BadWorkspace: with every fault that was found: file, line, path, expected, got, and the way out.
    """
    if not os.path.lexists(folder / "workspace.yaml"):
        remedy = "Name a folder with -w DIR, or make one with `opportune init DIR`."
        raise BadWorkspace(
            [Fault(str(folder / "workspace.yaml"), "$", "a workspace folder", "no such file", remedy=remedy)]
        )
    folder = folder.resolve()  # other processes, Feast's among them, read our files from other places
    documents: dict[str, Document] = {}
    parsed: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, kind in FILES.items():
        file = folder / name
        try:
            # A link that leads nowhere is not absent: what somebody wrote there would be without effect.
            absent = name in OPTIONAL_FILES and not os.path.lexists(file)
            documents[name] = Document(file, name, "" if absent else None)
            parsed[name] = documents[name].convert(kind)
        except BadWorkspace as bad:
            faults += bad.faults
    if faults:
        raise BadWorkspace(faults)
    settings, features, offers, policies, experiments, model = (parsed[name] for name in FILES)
    workspace = Workspace(folder, settings, features, offers, policies, experiments, model, documents)
    faults = faults_of(workspace, sources=sources)
    if faults:
        raise BadWorkspace(faults)
    return workspace


def data_of(folder: Path) -> Path:
    """Return the data folder of a workspace whatever faults its files have; the usual one where `workspace.yaml` itself
    cannot be read.
    """
    name = "workspace.yaml"
    try:
        settings = Document(folder / name, name).convert(WorkspaceFile)
    except BadWorkspace:
        settings = WorkspaceFile("unreadable")
    return folder / settings.data
