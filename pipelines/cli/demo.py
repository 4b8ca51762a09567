"""The verb `demo`: shoppers against the running service."""

from __future__ import annotations

from typing import Annotated

import typer

from features.common.types import Decision
from features.validation.load import load
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.output import console
from pipelines.simulation.demo import DemoFailed, Play, Scene, Service

URL = "http://127.0.0.1:3000"
TRIED_MAX = 100


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        epilog="Example: [bold]opportune demo -w examples/grocery --customers 3[/bold] (while `opportune up` serves)"
    )(demo)


def demo(
    workspace: Folder = HERE,
    url: Annotated[str, typer.Option(help="Where the service answers.")] = URL,
    key: Annotated[
        str | None, typer.Option(help="A key with the roles decide and events.", envvar="OPPORTUNE_KEY")
    ] = None,
    customers: Annotated[int, typer.Option(help="How many shoppers play.", min=1, max=50)] = 2,
    placement: Annotated[
        str | None, typer.Option(help="Where the offers are shown; one without a limit of channels by default.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Play shoppers against the running service: see how its answers follow what they do, and that no event is lost."""
    from pipelines.simulation.sampling import sampled

    found = load(workspace, sources=False)
    service, scenes = Service(url, key), []
    where = placement or next(iter(found.offers.placements))

    def tell(scene: Scene) -> None:
        scenes.append(scene)
        if not json:
            _print(scene)

    play, played = Play(found, service, where, tell), []
    for customer in sampled(found, TRIED_MAX):
        if play.customer(customer):
            played.append(customer)
        if len(played) == customers:
            break
    if not played:
        raise DemoFailed(
            f"expected customers with offers at {where}, got none among {TRIED_MAX}: name another --placement"
        )
    play.stranger(played[-1])
    play.objector(played[0])
    play.repetition()
    counts = service.counts
    if json:
        console.as_json(
            {
                "scenes": [{"title": s.title, "remark": s.remark} for s in scenes],
                "counts": counts,
                "conserved": counts.conserved,
            }
        )
        return
    console.out.print(
        "\n[bold]Conservation[/bold]: the last events were sent twice, and one that nobody can read", highlight=False
    )
    holds = "accepted = stored + duplicates + dead-lettered" if counts.conserved else "THE LAW DOES NOT HOLD"
    console.out.print(
        f"  sent {counts.sent} = accepted {counts.accepted} = {counts.stored} + {counts.duplicates} + {counts.dead}  "
        f" ({holds})",
        highlight=False,
    )
    console.out.print(
        f"\nForget one of them, with proof:\n  opportune forget -w {workspace} {played[0]}", highlight=False
    )


def _print(scene: Scene) -> None:
    rows = []
    for at in range(max(len(scene.before.offers), len(scene.after.offers))):
        rows.append([at + 1, *_offer(scene.before, at), "→", *_offer(scene.after, at)])
    console.table(f"\n{scene.title}", ["rank", "before", "priority", "", "after", "priority"], rows, numbers=9)
    console.out.print(f"  {scene.remark}", highlight=False)


def _offer(decision: Decision, at: int) -> tuple[str, object]:
    if at >= len(decision.offers):
        return "·", None
    offer = decision.offers[at]
    return f"{offer.offer_id} {str(offer.treatment.get('headline', ''))[:34]}", offer.score
