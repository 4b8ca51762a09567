"""Treatments: how each offer looks in a channel and a locale, with the facts of the offer filled in."""

from __future__ import annotations

import re
from typing import Any

from features.columns.catalogue import category_text
from features.common.timestamps import MICROSECONDS, rfc3339
from features.common.types import Offer
from features.workspace.workspace import Workspace
from serving.hub.request_check import ANY

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")

Treatments = dict[tuple[str, str], dict[str, Any]]
"""The payloads of one offer, by channel and locale."""


def treatment_for(treatments: Treatments, channel: str, locale: str) -> dict[str, Any]:
    """Return the nearest payload for a channel and a locale, the channel counting more; an empty one if there is
    none.
    """
    for wanted in ((channel, locale), (channel, ANY), (ANY, locale)):
        payload = treatments.get(wanted)
        if payload is not None:
            return payload
    return treatments.get((ANY, ANY), {})


def treatments_of(offer: Offer, workspace: Workspace) -> Treatments:
    """Return the payloads of an offer. What the offer does not say the workspace says."""
    facts = {
        name: _shown(offer.attributes.get(name), column.dtype) for name, column in workspace.features.offer.items()
    }
    facts |= {"offer_id": offer.offer_id, "name": offer.name, "value": _shown(offer.value, "number")}
    facts["valid_until"] = "" if offer.valid_until is None else rfc3339(offer.valid_until)
    own, general = (
        {(treatment.channel, treatment.locale): treatment.payload for treatment in given}
        for given in (offer.treatments, workspace.offers.treatments)
    )
    payloads = own if (ANY, ANY) in own else general | own
    return {where: _filled(payload, facts) for where, payload in payloads.items()}


def _shown(value: Any, dtype: str) -> str:
    """Return a fact as people read it: nothing for what is missing, 15 for 15.0, true for a boolean, a date and time
    for a moment.
    """
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(value)
    if dtype == "time" and isinstance(value, (int, float)):
        return rfc3339(round(value * MICROSECONDS))
    if dtype == "boolean":
        return category_text(bool(value))
    return f"{value:.12g}" if isinstance(value, float) and not value.is_integer() else category_text(value)


def _filled(part: Any, facts: dict[str, str]) -> Any:
    """Return a payload with its {placeholders} replaced in one pass: text that a fact brings in is not searched
    again.
    """
    if isinstance(part, str):
        return _PLACEHOLDER.sub(lambda found: facts.get(found[1], found[0]), part)
    if isinstance(part, dict):
        return {key: _filled(value, facts) for key, value in part.items()}
    return [_filled(value, facts) for value in part] if isinstance(part, list) else part
