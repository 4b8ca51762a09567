"""One decision without a server: the same function, the same store, printed for a person."""

from __future__ import annotations

from typing import Any

import msgspec
import typer

from features.moments import now
from features.vocabulary import Decision, DecisionRequest
from features.workspace import Workspace
from pipelines import show
from serving.decide import BadContext, UnknownPlacement
from serving.decide import decide as decide_one
from serving.desk import Desk
from training.bundle import BadBundle


async def decide_once(workspace: Workspace, request: DecisionRequest) -> Decision:
    """Load what serves, read the customer, decide.

    Raises:
        BadBundle: nothing was published, or it cannot serve.
    """
    desk = Desk(workspace)
    try:
        desk.load()
        if desk.loaded is None:
            raise BadBundle(f"expected a published model, got none: {desk.refusal}")
        row = await desk.row(request.customer_id)
        try:
            return decide_one(request, desk.loaded, row, now())
        except UnknownPlacement as error:
            raise typer.BadParameter(
                f"expected one of {', '.join(workspace.offers.placements)}, got {error}", param_hint="--placement"
            ) from error
        except BadContext as error:
            raise typer.BadParameter(str(error), param_hint="--context") from error
    finally:
        desk.close()


def print_decision(workspace: Workspace, decision: Decision) -> None:
    """The answer as a table; with an explanation, the funnel and what the model saw."""
    names = {}
    explained: dict[str, Any] = {} if isinstance(decision.explanation, msgspec.UnsetType) else decision.explanation
    if explained:
        names = {offer["offer_id"]: offer for offer in explained["considered"]}
    rows = [
        [offer.rank, offer.offer_id, str(offer.treatment.get("headline", ""))[:60], offer.propensity, ", ".join(offer.reasons) or "·"]
        for offer in decision.offers
    ]
    title = f"{decision.placement} for customer {decision.customer_id}: {len(rows)} of {decision.considered} offers considered"
    show.table(title, ["rank", "offer", "headline", "propensity", "reasons"], rows, numbers=9)
    if not rows:
        show.out.print("Nothing is eligible: see the funnel with --explain.", highlight=False)
    if decision.degraded:
        show.out.print(f"[yellow]Degraded:[/yellow] {', '.join(decision.degraded)}", highlight=False)
    if explained:
        _print_explanation(explained, [names[offer.offer_id] for offer in decision.offers if offer.offer_id in names])
    stamp = decision.model
    show.out.print(
        f"Model {stamp.name} version {stamp.version}, bundle {stamp.bundle[7:23]}; good until {decision.expires_at}", highlight=False
    )


def _print_explanation(explained: dict[str, Any], shown: list[dict[str, Any]]) -> None:
    show.table(
        "Offers left after each step",
        ["step", "offers"],
        [["catalogue", explained["offers"]], *([s, n] for s, n in explained["funnel"].items())],
    )
    facts = explained["customer"]
    show.table("The customer and the moment, as the model saw them", ["column", "value"], [[name, value] for name, value in facts.items()])
    if shown:
        columns = shown[0]["columns"]
        rows = [[name, *(offer["columns"][name] for offer in shown)] for name in columns]
        show.table(
            "The offers, as the model saw them",
            ["column", *(offer["offer_id"] for offer in shown)],
            [["raw score", *(o["raw"] for o in shown)], *rows],
        )
