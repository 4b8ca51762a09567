"""One decision without a server: the same function, the same store, printed for a person."""

from __future__ import annotations

from typing import Any

import msgspec
import typer

from features.moments import now
from features.vocabulary import Decision, DecisionRequest
from features.workspace import Workspace
from pipelines import show
from serving.asked import BadContext, BadRequest, UnknownPlacement
from serving.decide import decide as decide_one
from serving.desk import Desk
from training.bundle import BadBundle

NOT_SHOWN_ROWS = 12
CONTRIBUTIONS_SHOWN = 3


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
        row, contacts = await desk.known(request.customer_id, desk.loaded)
        try:
            return decide_one(request, desk.loaded, row, now(), contacts=contacts)  # nothing is taken: nobody is shown anything
        except UnknownPlacement as error:
            raise typer.BadParameter(
                f"expected one of {', '.join(workspace.offers.placements)}, got {error}", param_hint="--placement"
            ) from error
        except BadContext as error:
            raise typer.BadParameter(str(error), param_hint="--context") from error
        except BadRequest as error:
            raise typer.BadParameter(str(error)) from error
    finally:
        desk.close()


def print_decision(decision: Decision) -> None:
    """The answer as a table; with an explanation, why these and why not others, in one screen."""
    explained: dict[str, Any] = {} if isinstance(decision.explanation, msgspec.UnsetType) else decision.explanation
    headlines = {offer.offer_id: str(offer.treatment.get("headline", ""))[:48] for offer in decision.offers}
    for name in decision.placement.split(","):
        shown = [offer for offer in decision.offers if offer.placement in (msgspec.UNSET, name)]
        title = f"{name} for customer {decision.customer_id}: {len(shown)} of {decision.considered} offers considered"
        if explained:
            _print_placement(title, explained["placements"][name], headlines, explained["offers"])
        else:
            rows = [[o.rank, o.offer_id, headlines[o.offer_id], o.score, o.propensity, ", ".join(o.reasons) or "·"] for o in shown]
            show.table(title, ["rank", "offer", "headline", "priority", "propensity", "reasons"], rows, numbers=9)
        if not shown:
            show.out.print("Nothing may be shown: --explain says why.", highlight=False)
    if decision.degraded:
        show.out.print(f"[yellow]Degraded:[/yellow] {', '.join(decision.degraded)}", highlight=False)
    if decision.notes:
        show.out.print(f"Notes, safe for the customer: {', '.join(decision.notes)}", highlight=False)
    if decision.withheld:
        show.out.print(f"Withheld, since not allowed: {', '.join(decision.withheld)}", highlight=False)
    stamp = decision.model
    show.out.print(
        f"Model {stamp.name} version {stamp.version}, bundle {stamp.bundle[7:23]}; policies {decision.config}; good until {decision.expires_at}",
        highlight=False,
    )


def _print_placement(title: str, told: dict[str, Any], headlines: dict[str, str], offers: int) -> None:
    terms = ("propensity", "context_weight", "value", "lever", "priority")
    rows = [
        [rank + 1, offer["offer_id"], headlines.get(offer["offer_id"], ""), *(offer[term] for term in terms), _because(offer)]
        for rank, offer in enumerate(told["shown"])
    ]
    show.table(
        title, ["rank", "offer", "headline", "propensity", "x weight", "x value", "x lever", "= priority", "score comes from"], rows, 3
    )
    funnel = {"catalogue": offers} | told["funnel"]
    show.table("Offers left after each step", ["step", "offers"], [[step, left] for step, left in funnel.items()])
    missed = [[offer["offer_id"], offer["stopped_by"], _change(offer)] for offer in told["not_shown"][:NOT_SHOWN_ROWS]]
    if missed:
        rest = len(told["not_shown"]) - len(missed)
        more = f", the {len(missed)} that came furthest of {len(missed) + rest} listed (--json has all)" if rest else ""
        show.table(f"Not shown{more}", ["offer", "stopped by", "what would have let it come first, or pass"], missed, numbers=9)


def _because(offer: dict[str, Any]) -> str:
    """The columns that contribute most to a score, in log odds."""
    parts = [one for one in offer["contributions"] if one["column"] != "all others"][:CONTRIBUTIONS_SHOWN]
    return ", ".join(f"{one['column']} {one['contribution']:+.2f}" for one in parts) or "·"


def _change(offer: dict[str, Any]) -> str:
    change = offer.get("would_be_first")
    if change:
        return f"rank {offer['rank']}: a lever of {change['lever']:.2f}, or a value of {change['or_value']:.2f}"
    if "because" in offer:
        return f"{offer['stage']}: {'; '.join(offer['because'])}"
    return f"rank {offer['rank']}" if "rank" in offer else ""
