"""What to try next, once a service runs."""

from __future__ import annotations

import shlex
from pathlib import Path

from pipelines.deploy.supervisor import Running
from pipelines.output import console
from pipelines.simulation.sampling import sampled

TRIED_MAX = 100
"""Customers that are asked about, to find some to show."""


def greet(running: Running, shown: Path) -> None:
    """Print what to try next, with customers for whom there is something to see."""
    from serving.http.auth import Keys

    workspace, base, place = running.workspace, running.base, shlex.quote(str(shown))
    placement = next(iter(workspace.offers.placements))
    customers = _interesting(running, placement)
    key = " -H 'authorization: Bearer KEY'" if Keys.from_environment().configured else ""
    body = f'{{"customer_id":"{customers[0]}","placement":"{placement}","limit":3}}'
    where = f" (logs in {workspace.settings.data}/logs)" if running.output is None else ""
    lines = [
        f"[bold green]Serving[/bold green] {workspace.settings.name} on {base}{where}",
        "",
        "Ask for offers:",
        f"  curl -s {base}/v1/decisions{key} -H 'content-type: application/json' -d '{body}'",
        "See why:",
        f"  opportune decide -w {place} --customer {customers[0]} --placement {placement} --explain",
    ]
    if len(customers) > 1:
        lines += [
            "Another customer, other offers:",
            f"  opportune decide -w {place} --customer {customers[1]} --placement {placement}",
        ]
    lines += [
        "Look at the training run:",
        f'  mlflow ui --backend-store-uri "$(opportune registry -w {place})"',
        "",
        "Ctrl-C stops.",
    ]
    for line in lines:
        console.out.print(line.replace("[", "\\[") if line.startswith("  ") else line, highlight=False)


def _interesting(running: Running, placement: str) -> list[str]:
    """Return up to two customers whose answers are not empty and differ; the first ones where the server wants a key.

    Asked for as a flag client asks for all flags: nobody is exposed, nothing is recorded or taken.
    """
    import msgspec

    seen: dict[str, str] = {}
    found = sampled(running.workspace, TRIED_MAX)
    for customer in found:
        status, answer = running.ask("POST", "/ofrep/v1/evaluate/flags", {"context": {"targetingKey": customer}})
        if status != 200:
            return found[:2] or ["somebody"]
        flags = {flag["key"]: flag for flag in msgspec.json.decode(answer)["flags"]}
        offers = [offer["offer_id"] for offer in flags[f"offers.{placement}"].get("value", {}).get("offers", ())]
        if offers and str(offers) not in seen.values():
            seen[customer] = str(offers)
        if len(seen) == 2:
            break
    return list(seen) or ["somebody"]
