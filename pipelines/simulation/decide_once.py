"""One decision without a server: the same function, the same store, printed for a person."""

from __future__ import annotations

from typing import Any

import msgspec
import typer

from features.common.timestamps import now
from features.common.types import Decision, DecisionRequest
from features.workspace.workspace import Workspace
from pipelines.output import console
from serving.decision.case import DecisionInputs
from serving.decision.decide import decide
from serving.hub.request_check import BadContext, BadRequest, UnknownPlacement
from serving.reload.reloader import Reloader
from training.bundle.bundle import BadBundle

NEXT_ROWS = 4
"""Offers that came next in rank, and are listed."""
STEP_ROWS = 10
"""Steps that are listed with an example: the last ones, where offers came furthest."""
CONTRIBUTIONS_SHOWN = 2
EXAMPLE_CHARACTERS, WHY_CHARACTERS = 38, 140


async def decide_once(workspace: Workspace, request: DecisionRequest) -> Decision:
    """Load what serves, read the customer, decide.

    Raises:
        BadBundle: nothing was published, or it cannot serve.
    """
    reloader = Reloader(workspace)
    try:
        reloader.load()
        if reloader.loaded is None:
            raise BadBundle(f"expected a published model, got none: {reloader.refusal}")
        moment = now()
        customer = await reloader.stores.customers.known(request.unit, reloader.loaded, moment, request)
        try:
            # Nothing is taken: nobody is shown anything.
            return decide(DecisionInputs(request, reloader.loaded, customer, moment))
        except UnknownPlacement as error:
            raise typer.BadParameter(
                f"expected one of {', '.join(workspace.offers.placements)}, got {error}", param_hint="--placement"
            ) from error
        except BadContext as error:
            raise typer.BadParameter(str(error), param_hint="--context") from error
        except BadRequest as error:
            raise typer.BadParameter(str(error)) from error
    finally:
        reloader.close()


def print_decision(decision: Decision) -> None:
    """Print the answer as a table; with an explanation, why these and why not others, in one screen."""
    explained: dict[str, Any] = {} if isinstance(decision.explanation, msgspec.UnsetType) else decision.explanation
    headlines = {offer.offer_id: str(offer.treatment.get("headline", "")) for offer in decision.offers}
    for name in decision.placement.split(","):
        shown = [offer for offer in decision.offers if offer.placement in (msgspec.UNSET, name)]
        title = f"{name} for customer {decision.customer_id}: {len(shown)} of {decision.considered} offers considered"
        if explained:
            _print_placement(title, explained["placements"][name], headlines, explained["offers"])
        else:
            rows = [
                [
                    o.rank,
                    o.offer_id,
                    _cut(headlines[o.offer_id], 48),
                    o.score,
                    o.propensity,
                    ", ".join(o.reasons) or "·",
                ]
                for o in shown
            ]
            console.table(title, ["rank", "offer", "headline", "priority", "propensity", "reasons"], rows, numbers=9)
        if not shown:
            console.out.print("Nothing may be shown" + ("." if explained else ": --explain says why."), highlight=False)
    if decision.degraded:
        console.out.print(f"[yellow]Degraded:[/yellow] {', '.join(decision.degraded)}", highlight=False)
    if decision.notes:
        console.out.print(f"Notes, safe for the customer: {', '.join(decision.notes)}", highlight=False)
    if decision.withheld:
        console.out.print(f"Withheld, since not allowed: {', '.join(decision.withheld)}", highlight=False)
    stamp = decision.model
    console.out.print(
        f"Model {stamp.name} version {stamp.version}, bundle {stamp.bundle[7:23]}; policies {decision.config}; good"
        f" until {decision.expires_at}",
        highlight=False,
    )


def _print_placement(title: str, told: dict[str, Any], headlines: dict[str, str], offers: int) -> None:
    rows = []
    for rank, offer in enumerate(told["shown"]):
        terms = [_number(offer[term]) for term in ("propensity", "context_weight", "value", "lever", "priority")]
        headline = _cut(headlines.get(offer["offer_id"]) or offer["name"], EXAMPLE_CHARACTERS)
        rows.append(
            [str(rank + 1), offer["offer_id"], headline, *terms, "fallback" if offer["fallback"] else _because(offer)]
        )
    columns = [
        "rank",
        "offer",
        "headline",
        "propensity",
        "x weight",
        "x value",
        "x lever",
        "= priority",
        "score comes from (log odds)",
    ]
    console.table(title, columns, rows, numbers=9)
    _print_steps(told, offers)
    following = [offer for offer in told["not_shown"] if "rank" in offer]
    if following:
        rows = [
            [
                str(offer["rank"]),
                offer["offer_id"],
                _cut(offer["name"], EXAMPLE_CHARACTERS),
                _number(offer["priority"]),
                _change(offer),
            ]
            for offer in following[:NEXT_ROWS]
        ]
        title = f"Next in rank, {len(rows)} of {len(following)}" + (
            " (--json has all)" if len(rows) < len(following) else ""
        )
        console.table(
            title, ["rank", "offer", "name", "priority", "what would have let it come first"], rows, numbers=9
        )


def _print_steps(told: dict[str, Any], offers: int) -> None:
    """Print the funnel, with an example of what each step stopped, and why."""
    stopped: dict[str, list[dict[str, Any]]] = {}
    for offer in told["not_shown"]:
        stopped.setdefault(offer["stopped_by"], []).append(offer)
    rows, left = [], offers
    for step, after in told["funnel"].items():
        if step != "shown" and after < left:
            rows.append([step, left - after, after, *_example(stopped.get(step, []))])
            left = after
    for step in ("slate", "rank"):
        if step in stopped:
            left -= len(stopped[step])
            rows.append([step, len(stopped[step]), left, *_example(stopped[step])])
    left_out = sum(int(row[1]) for row in rows[:-STEP_ROWS])
    title = f"Why not the other offers, by what stopped them first, of {offers:,} in the catalogue"
    title += f" ({left_out:,} fell at earlier steps: --json has all)" if left_out else ""
    if rows:
        console.table(
            title,
            ["stopped by", "offers", "left", "for example", "", "why, and what would let it pass"],
            rows[-STEP_ROWS:],
            numbers=9,
        )


def _example(offers: list[dict[str, Any]]) -> list[str]:
    """Return the offer that came furthest of those that a step stopped, its name, and why."""
    if not offers:
        return ["", "", ""]
    offer = offers[0]
    parts = [offer[part] for part in ("description", "to_pass") if part in offer]
    because = "; ".join(offer.get("because", []))
    if offer["stopped_by"] == "rank":
        because = "others have more priority: see below"
    elif "stage" in offer:
        because = f"{offer['stage']}: {because}"
    text = f"{because}. {' '.join(parts)}" if "description" in offer else "; passes ".join([because, *parts])
    return [offer["offer_id"], _cut(offer["name"], EXAMPLE_CHARACTERS), _cut(text, WHY_CHARACTERS)]


def _because(offer: dict[str, Any]) -> str:
    """Return the columns that contribute most to a score, in log odds."""
    parts = [one for one in offer["contributions"] if one["column"] != "all others"][:CONTRIBUTIONS_SHOWN]
    return ", ".join(f"{one['column']} {one['contribution']:+.2f}" for one in parts) or "·"


def _change(offer: dict[str, Any]) -> str:
    """Return what would have let an offer come first, beside what it is now."""
    change, because = offer.get("would_be_first"), "; ".join(offer.get("because", []))
    if not change:
        return because or "·"
    factor = change["or_propensity_times"]
    now = (
        f"a lever of {change['lever']:.3g} (is {change['lever'] / factor:.3g}), or a value of {change['or_value']:.3g}"
        f" (is {change['or_value'] / factor:.3g})"
    )
    return f"{now}; {because}" if because else now


def _number(value: float) -> str:
    """Three digits that count, without powers of ten."""
    return (
        f"{value:.3g}"
        if value == 0 or 0.001 <= abs(value) < 1_000
        else f"{value:,.6f}"
        if abs(value) < 0.001
        else f"{value:,.0f}"
    )


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1].rstrip() + "…"
