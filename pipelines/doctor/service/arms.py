"""Checks of what arms of running experiments need to be served: the models that they name, and the offers and
groups.
"""

from __future__ import annotations

from features.lake.offers import catalogue_file, read_catalogue
from features.workspace.variants import aliases, changing
from pipelines.doctor.facts.check import CannotSay, Finding, Seen, listed
from pipelines.doctor.facts.gather import Facts
from training.bundle import bundle


def arms_without_model(facts: Facts) -> Seen:
    """Arms name a model that was not published, or whose bundle cannot serve."""
    workspace = facts.workspace
    names = aliases(workspace.experiments)
    if not names:
        raise CannotSay("no arm of a running experiment names a model")
    found = []
    for name in names:
        why = _why_not(facts, name)
        if why:
            arms = [
                f"{key}/{arm}"
                for key, some in changing(workspace.experiments).items()
                for arm, c in some.items()
                if c.model == name
            ]
            evidence: dict[str, float | str] = {"model": name, "arms": listed(arms), "why": why}
            what = (
                f"arms name the model {name}, which cannot serve: no server takes these files, and one that starts is"
                " not ready"
            )
            todo = (
                f"Run `opportune publish --alias {name}` (with `--version` where the alias is not set yet), or stop the"
                " experiment."
            )
            found.append(Finding("arms_without_model", "error", what, evidence, todo))
    return Seen(f"{len(names)} models that arms name", found)


def _why_not(facts: Facts, name: str) -> str:
    workspace = facts.workspace
    place = bundle.aliased(workspace.bundles, name)
    if place is None:
        return "no bundle was published for it"
    try:
        found = bundle.read(place)
    except bundle.BadBundle as bad:
        return str(bad)
    return "" if found.contract.fingerprint == workspace.contract.fingerprint else "it was trained for other columns"


def arms_follow_registry(facts: Facts) -> Seen:
    """The registry gives a model that arms name another version than the one that serves them."""
    names = aliases(facts.workspace.experiments)
    if not names:
        raise CannotSay("no arm of a running experiment names a model")
    if facts.registry.fault:
        raise CannotSay("the registry cannot be asked: see registry_answers")
    found = []
    for name in names:
        registered, place = facts.registry.aliases.get(name), bundle.aliased(facts.workspace.bundles, name)
        try:
            serves = None if place is None else bundle.read(place).manifest.version
        except bundle.BadBundle:
            continue  # `arms_without_model` tells
        if serves is None or registered == serves:
            continue
        evidence: dict[str, float | str] = {
            "model": name,
            "serves": serves,
            "registry": registered or "no such version",
        }
        todo = f"Run `opportune publish --alias {name}`; the background worker does so by itself where it runs."
        what = f"arms that name {name} are served another version than the registry says"
        found.append(Finding("arms_follow_registry", "warning", what, evidence, todo))
    return Seen(f"{len(names)} models that arms name", found)


def arms_of_unknown_offers(facts: Facts) -> Seen:
    """Arms name offers or groups that the catalogue has not."""
    workspace = facts.workspace
    if not catalogue_file(workspace).exists():
        raise CannotSay("nothing was imported yet")
    offers = read_catalogue(workspace)
    known, groups = {offer.offer_id for offer in offers}, {offer.group for offer in offers if offer.group}
    named, found = 0, []
    for key, arms in changing(workspace.experiments).items():
        for arm, change in arms.items():
            of_offers = {offer for place in change.placements.values() for offer in place.fallback or ()}
            of_groups = {group for place in change.placements.values() for group in place.groups or ()}
            if change.arbitration is not None:
                of_offers |= change.arbitration.offers.keys()
                of_groups |= change.arbitration.groups.keys()
            named += len(of_offers) + len(of_groups)
            lacks = sorted(of_offers - known) + sorted(of_groups - groups)
            if lacks:
                evidence: dict[str, float | str] = {"experiment": key, "arm": arm, "unknown": listed(lacks)}
                what = (
                    f"the arm {arm} of {key} names offers or groups that no offer of the catalogue is: {listed(lacks)}"
                )
                todo = (
                    "Import the offers again, or mend the names: what is named so has no effect, and the arms are"
                    " alike."
                )
                found.append(Finding("arms_of_unknown_offers", "warning", what, evidence, todo))
    if not named:
        raise CannotSay("no arm of a running experiment names an offer or a group")
    return Seen(f"{named} offers and groups that arms name", found)


CHECKS = (arms_without_model, arms_follow_registry, arms_of_unknown_offers)
