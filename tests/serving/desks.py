"""Requests to the trained workspace, and its states with other offers."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec

from features.common.timestamps import MICROSECONDS, now, rfc3339
from features.common.types import Decision, DecisionRequest, Offer
from features.config.policies import PoliciesFile
from serving.reload.reloader import Reloader
from serving.state.snapshot import Snapshot


def second(moment: int) -> str:
    """The whole second that a moment lies in, as an answer says it."""
    return rfc3339(moment // MICROSECONDS * MICROSECONDS)


def request(customer: str = "436600000", **fields: Any) -> DecisionRequest:
    given: dict[str, Any] = {"customer_id": customer, "placement": "home", "context": {"channel": "app", "hour": 18}}
    return msgspec.convert(given | fields, DecisionRequest)


def again(
    desk: Reloader, *, offers: list[Offer] | None = None, policies: PoliciesFile | None = None, **settings: Any
) -> Snapshot:
    """The same bundle on other offers, other rules or other settings."""
    assert desk.loaded is not None
    before, workspace = desk.loaded, desk.workspace
    if policies is not None:
        workspace = dataclasses.replace(workspace, policies=policies)
    if settings:
        serving = msgspec.structs.replace(workspace.settings.serving, **settings)
        workspace = dataclasses.replace(
            workspace, settings=msgspec.structs.replace(workspace.settings, serving=serving)
        )
    given = before.catalogue.offers if offers is None else offers
    return Snapshot(workspace, before.bundle, given, before.everyone, desk.stores.engine.words, now() / MICROSECONDS)


def changed(loaded: Snapshot, **fields: Any) -> list[Offer]:
    """The catalogue's offers, all of them with these fields."""
    return [msgspec.structs.replace(offer, **fields) for offer in loaded.catalogue.offers]


def ids(decision: Decision) -> list[str]:
    return [offer.offer_id for offer in decision.offers]
