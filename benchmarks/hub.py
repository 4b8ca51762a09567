"""What the decision hub costs: the same catalogue with 60 rules and 10 contact limits, beside none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import yaml

from benchmarks import places, synthetic
from features.common.files import write_whole
from features.lake.offers import catalogue_file
from features.validation.load import load
from features.workspace.workspace import Workspace

GROUPS = 8
RULES, LIMITS = 60, 10
OFFERS = (50, 200, 1_000, 10_000)


def policies() -> dict[str, Any]:
    """Rules of all kinds, most of which let most offers pass, and limits that every decision must take and none
    exhausts.
    """
    third = RULES // 3
    rules: dict[str, Any] = {
        f"customer_{n}": {"when": f"default(customer.fact_{n:02d}, 0) > {-3 - n / 10}"} for n in range(third)
    }
    for n in range(third):
        condition = f"offer.fact_{n % synthetic.OFFER_COLUMNS} > {1.5 + n / 20} and customer.fact_{n % 10:02d} > 0.5"
        rules[f"offer_{n}"] = {"unless": condition, "stage": "applicability"}
    columns = ("topic_visits_30d", "topic_visits_all", "topic_measure_all")
    for n in range(third):
        condition = f"pair.{columns[n % 3]} > {3 + n}" + (' and context.channel == "web"' if n % 2 else "")
        rules[f"pair_{n}"] = {
            "unless": condition,
            "stage": "suitability",
            "groups": [f"g{n % GROUPS}", f"g{(n + 3) % GROUPS}"],
        }
    windows = ("10m", "1h", "6h", "1d", "7d")
    limits = {
        f"limit_{n}": {"max": 100, "window": windows[n % 5], "per": ("offer", "group", "any")[n % 3]}
        for n in range(LIMITS)
    }
    return {"rules": rules, "limits": limits}


def place(base: Workspace, offers: int, *, ruled: bool, pause: bool = False) -> Workspace:
    """A servable copy of the workspace with pair columns, with or without policies.

    Args:
        base: the prepared workspace `pairs`.
        pause: whether an offer that was dismissed is no longer shown.
    """
    made = places.copy(base, offers, label=("ruled" if ruled else "free") + ("-paused" if pause else ""))
    # Neither is a column of the model: the bundle stays what it is.
    _change(made, "features.yaml", lambda file: file["offer"].update(kind={"dtype": "category", "model": False}))
    _change(made, "features.yaml", lambda file: file.update(context={"channel": {"dtype": "category", "model": False}}))
    _change(made, "offers.yaml", lambda file: file.update(group="kind"))
    if ruled:
        _change(made, "policies.yaml", lambda file: file.update(policies()))
    if pause:
        _change(
            made,
            "policies.yaml",
            lambda file: file.update(pauses={"unwanted": {"outcome": "dismissal", "pause": "30d"}}),
        )
    kinds = [
        msgspec.structs.replace(offer, attributes=offer.attributes | {"kind": f"g{at % GROUPS}"})
        for at, offer in enumerate(synthetic.offers_of("pairs", offers))
    ]
    write_whole(catalogue_file(made), msgspec.json.encode(kinds))
    return load(made.folder, sources=False)


def _change(workspace: Workspace, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    file = workspace.folder / name
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content, sort_keys=False))
