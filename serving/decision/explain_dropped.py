"""What stopped an offer that is not shown, in words: the step that it fell at, because of what, and what would let it
pass.

The steps are those of a place's trail, told apart by their names. For people who may see a customer's data.
"""

from __future__ import annotations

from typing import Any

from features.common.moments import Micros
from features.common.timestamps import rfc3339
from features.common.types import Offer
from features.config.policies import Limit, Pause
from serving.conditions.reasons import explain, needed
from serving.decision.case import Case, PlacementCase

RULE, LIMIT, PAUSE, QUIET, BUDGET = "rule ", "limit ", "pause ", "quiet_hours ", "budget "
CONTACTS = {"impressions": "impression", "decisions": "decision"}
PER = {"offer": "of the same offer", "group": "of offers of its group", "any": "of any offers"}


def stopped(case: Case, place: PlacementCase, offer: int, step: str) -> dict[str, Any]:
    """Return one offer and the first step that left it out: `because` says why, `to_pass` with what, or when, it
    would pass.
    """
    entry = case.deciding.catalogue.offers[offer]
    told: dict[str, Any] = {"offer_id": entry.offer_id, "name": entry.name, "stopped_by": step}
    if step.startswith(RULE) and case.truths is not None:
        return told | _by_rule(case, offer, step.removeprefix(RULE))
    because, to_pass = _by_step(case, place, entry, step)
    return told | {"because": because} | ({"to_pass": to_pass} if to_pass else {})


def _by_rule(case: Case, offer: int, name: str) -> dict[str, Any]:
    assert case.truths is not None
    rules = case.deciding.hub.rules
    rule = rules.rule(name)
    lookup = rules.lookup(offer, case.truths, case.seconds)
    findings = needed(rule.read.condition, lookup) if rule.keeps else explain(rule.read.condition, lookup)
    told: dict[str, Any] = {
        "stage": rule.stage,
        "condition": ("when " if rule.keeps else "unless ") + rule.read.condition.text,
    }
    if rule.read.rule.description:
        told["description"] = rule.read.rule.description
    return told | {"because": [str(finding) for finding in findings]}


def _by_step(case: Case, place: PlacementCase, offer: Offer, step: str) -> tuple[list[str], str]:
    """Return why a step left the offer out, and what would let it pass."""
    policies, kind = case.deciding.workspace.policies, step.partition(" ")[0] + " "
    name = step.removeprefix(kind)
    if step == "valid":
        return [_validity(offer, case.now)], "with another validity"
    if step == "placement":
        return [_elsewhere(offer, place)], ""
    if step == "not_excluded":
        return ["the request does not want it"], ""
    if kind == LIMIT and name in policies.limits:
        limit = policies.limits[name]
        return [_limit(limit)], f"with a max above {limit.max}, or when earlier contacts are older than {limit.window}"
    if kind == PAUSE and name in policies.pauses:
        pause = policies.pauses[name]
        return [_pause(pause)], f"when {pause.pause} are over"
    if kind == QUIET and name in policies.quiet_hours:
        quiet = policies.quiet_hours[name]
        return [f"quiet hours from {quiet.begin} to {quiet.end}"], f"after {quiet.end}"
    if step == "requires":
        return [f"needs {' or '.join(offer.requires)} to be accepted before"], ""
    if step == "excludes":
        return [f"one of {', '.join(offer.excludes)} was accepted"], ""
    if kind == BUDGET:
        return [f"its {name} budget is used up"], "with a larger one"
    if step == "contact history":
        return ["the contact history cannot be read, and what is limited is not shown without it"], ""
    return [], ""


def _validity(offer: Offer, now: Micros) -> str:
    if offer.valid_from is not None and offer.valid_from > now:
        return f"begins on {rfc3339(offer.valid_from)[:10]}"
    return "ended" if offer.valid_until is None else f"ended on {rfc3339(offer.valid_until)[:10]}"


def _elsewhere(offer: Offer, place: PlacementCase) -> str:
    if offer.placements and place.name not in offer.placements:
        return f"only for {', '.join(offer.placements)}"
    return f"{place.name} takes no offers of {offer.group or 'no group'}"


def _limit(limit: Limit) -> str:
    channel = {"any": "", "each": " in each channel"}.get(limit.channel, f" in the channel {limit.channel}")
    return (
        f"at most {limit.max} {CONTACTS[limit.count]}{'s' if limit.max > 1 else ''} {PER[limit.per]} in"
        f" {limit.window}{channel}"
    )


def _pause(pause: Pause) -> str:
    return (
        f"{pause.outcome} {pause.times} times within {pause.within}" if pause.times > 1 else f"{pause.outcome} lately"
    )
