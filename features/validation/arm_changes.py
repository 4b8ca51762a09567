"""Checks of what the arms of experiments.yaml change: it must be there to be changed."""

from __future__ import annotations

from collections.abc import Iterable

from features.config.documents import Document
from features.config.experiments import Changes, ExperimentsFile, PlacementChange
from features.config.faults import Fault, Path
from features.workspace.workspace import Workspace


def changes(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Yield a fault for each thing that an arm changes and that is not there."""
    for key, entry in file.experiments.items():
        for name, arm in entry.arms.items():
            yield from _changes(workspace, document, ("experiments", key, "arms", name, "changes"), arm.changes)


def _changes(workspace: Workspace, document: Document, path: Path, change: Changes) -> Iterable[Fault]:
    policies = workspace.policies
    if change.rules is not None:
        for at, rule in enumerate(change.rules.off):
            place = (*path, "rules", "off", at)
            if rule not in policies.rules:
                yield document.unknown(place, "a rule of policies.yaml", rule, policies.rules)
            elif policies.rules[rule].stage == "eligibility":
                remedy = (
                    "What law and contract ask for is no matter of an experiment; give the rule another stage if it is"
                    " none of that."
                )
                yield document.fault(place, "a rule of another stage than eligibility", f"`{rule}`", remedy)
    if change.arbitration is not None:
        place, ours = (*path, "arbitration"), change.arbitration
        for weight in ours.weights:
            if weight not in policies.arbitration.weights:
                yield document.unknown(
                    (*place, "weights", weight), "a weight of policies.yaml", weight, policies.arbitration.weights
                )
        kinds = policies.arbitration.worth
        for kind in ours.worth:
            if kind not in kinds:
                yield document.unknown((*place, "worth", kind), "a kind of value of policies.yaml", kind, kinds)
        yield from _known(
            document,
            {(*place, "groups", group): group for group in ours.groups},
            "a group that some offer has",
            _groups(workspace),
        )
        yield from _known(
            document, {(*place, "offers", offer): offer for offer in ours.offers}, "an offer", _offers(workspace)
        )
    for name, placement in change.placements.items():
        if name in workspace.offers.placements:
            yield from _placement(workspace, document, (*path, "placements", name), placement)
        else:
            yield document.unknown(
                (*path, "placements", name), "a declared placement", name, workspace.offers.placements
            )


def _placement(workspace: Workspace, document: Document, path: Path, change: PlacementChange) -> Iterable[Fault]:
    groups = {(*path, "groups", at): group for at, group in enumerate(change.groups or ())}
    fallback = {(*path, "fallback", at): offer for at, offer in enumerate(change.fallback or ())}
    yield from _known(document, groups, "a group that some offer has", _groups(workspace))
    yield from _known(document, fallback, "an offer", _offers(workspace))


def _known(document: Document, places: dict[Path, str], expected: str, known: set[str] | None) -> Iterable[Fault]:
    for path, name in places.items():
        if known is not None and name not in known:
            yield document.unknown(path, expected, name, known)


def _groups(workspace: Workspace) -> set[str] | None:
    """Return the groups of offers; None where a table may bring others."""
    return {offer.group for offer in workspace.offers.offers if offer.group} if workspace.offers.group is None else None


def _offers(workspace: Workspace) -> set[str] | None:
    """Return offers by id; None where a table may bring others."""
    return {offer.offer_id for offer in workspace.offers.offers} if workspace.settings.sources.offers is None else None
