"""Checks of model.yaml: every column exists, every parameter of LightGBM has its effect or is refused, moments are
moments.
"""

from __future__ import annotations

from collections.abc import Iterable

from features.columns.contract import contract_of
from features.common.timestamps import parse_moment
from features.config.documents import Document
from features.config.faults import Fault
from features.config.model_parameters import wrong_parameters
from features.workspace.workspace import Workspace


def faults_of_model(workspace: Workspace) -> Iterable[Fault]:
    """Yield all faults of a well-formed model.yaml, beside the columns that features.yaml declares."""
    document, model = workspace.documents["model.yaml"], workspace.model
    everything = contract_of(workspace.features)
    for position, name in enumerate(model.leave_out):
        if name not in everything.names:
            yield document.unknown(("leave_out", position), "a column", name, everything.names)
    used = {column.name: column for column in workspace.contract.columns}
    for name in model.monotone:
        if name not in used:
            yield document.unknown(("monotone", name), "a column that the model uses", name, used)
        elif used[name].dtype == "category":
            yield document.fault(("monotone", name), "a numeric column", f"`{name}`, a category", "Remove it.")
    if not used:
        yield document.fault(
            (), "at least one column for the model to use", "none", "Declare columns in features.yaml."
        )
    if model.popularity is not None and model.popularity not in used:
        yield document.unknown(("popularity",), "a column that the model uses", model.popularity, used)
    if model.split.cut is not None:
        try:
            parse_moment(model.split.cut)
        except (ValueError, OverflowError):
            remedy = "For example 2026-11-22 or 2026-11-22T09:30:00Z."
            yield document.fault(("split", "cut"), "a moment that the calendar has", f"`{model.split.cut}`", remedy)
    yield from _parameters(document, workspace)


def _parameters(document: Document, workspace: Workspace) -> Iterable[Fault]:
    has_categories = any(column.dtype == "category" for column in workspace.contract.columns)
    for wrong in wrong_parameters(
        workspace.model.parameters, is_monotone=bool(workspace.model.monotone), has_categories=has_categories
    ):
        other = f" in line {document.line(('parameters', wrong.other))}" if wrong.other else ""
        yield document.fault(("parameters", wrong.name), wrong.expected, wrong.got + other, wrong.remedy)
