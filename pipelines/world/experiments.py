"""The experiments of a simulated world: equal arms, an arm whose effect is known, and one whose exposures a customer's
app loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from features.common.files import write_whole
from features.common.timestamps import from_microseconds
from features.common.types import EXPOSURE, Decision, DecisionRequest, Event
from features.config.documents import BadWorkspace, Fault
from pipelines.world.port import DeciderRefused, Port, Told
from pipelines.world.settings import PLACEMENT, SLATE_OFFERS, WorldSettings

FILE = "experiments.yaml"
EQUAL, EFFECT, BROKEN = KEYS = ("aa", "ab", "broken")
LOST_ARM, LOST_CHANNEL = "after", "app"
"""Where exposures of `broken` are lost: as when an app ends before it sends what it waits with, in one arm."""
TOLD_TOGETHER = 200
"""Exposures that are told in one call."""


def experiments_of(settings: WorldSettings) -> dict[str, Any]:
    """Return the content of the file. Another world draws other splits."""
    as_it_is = {"placements": {PLACEMENT: {"limit": SLATE_OFFERS}}}
    return {
        "experiments": {
            EQUAL: {
                "description": "Two arms that do the same: what a report makes of chance alone.",
                "status": "running",
                "seed": f"{settings.seed}-{EQUAL}",
                "arms": {"one": {"changes": as_it_is}, "other": {"changes": as_it_is}},
            },
            EFFECT: {
                "description": (
                    "Offers by propensity alone, instead of propensity x value: accepted more often, and worth less."
                ),
                "status": "running",
                "seed": f"{settings.seed}-{EFFECT}",
                "arms": {"by_worth": {}, "by_propensity": {"changes": {"arbitration": {"formula": "propensity"}}}},
            },
            BROKEN: {
                "description": (
                    f"Shown by clients, which tell of it once a customer; those of the arm {LOST_ARM} in the channel"
                    f" {LOST_CHANNEL} are lost."
                ),
                "status": "running",
                "seed": f"{settings.seed}-{BROKEN}",
                "arms": {"before": {}, LOST_ARM: {}},
            },
        }
    }


def write_experiments(settings: WorldSettings, folder: Path) -> None:
    """Write the file where there is none.

    Raises:
        BadWorkspace: there is another.
    """
    file = folder / FILE
    head = f"# Written by `opportune simulate-world --experiments`, seed {settings.seed}.\n"
    content = head + yaml.safe_dump(experiments_of(settings), sort_keys=False)
    if not file.exists():
        write_whole(file, content.encode())
    elif file.read_text() != content:
        remedy = "Remove it, or name another folder."
        raise BadWorkspace(
            [Fault(str(file), "$", "the experiments that simulate-world writes", "others", remedy=remedy)]
        )


class Clients:
    """A port, and customers' apps and browsers behind it: what they show by themselves they tell, once a customer, and
    some of it is lost.

    Args:
        run: what the ids of events begin with.

    Attributes:
        lost: exposures that happened, and that nobody was told of.
    """

    def __init__(self, inner: Port, run: str) -> None:
        self.told: Told | None = inner.told
        self.name, self.lost = inner.name, 0
        self._inner, self._run, self._now = inner, run, 0
        self._shown: set[str] = set()
        self._waiting: list[Event] = []

    def turn(self, moment: int) -> int:
        self._now = self._inner.turn(moment)
        return self._now

    def decide(self, request: DecisionRequest) -> Decision:
        decision = self._inner.decide(request)
        if decision.experiments is msgspec.UNSET:
            raise DeciderRefused(
                f"expected decisions under the experiments of {FILE}, got one without: a service takes the file a few"
                " seconds after it was written, if it serves the folder of this world; try again"
            )
        for given in decision.experiments:
            if given.key == BROKEN:
                self._show(request, decision, given.arm)
        return decision

    def _show(self, request: DecisionRequest, decision: Decision, arm: str) -> None:
        if request.customer_id in self._shown:
            return
        self._shown.add(request.customer_id)
        channel = str(request.context["channel"])
        if arm == LOST_ARM and channel == LOST_CHANNEL:
            self.lost += 1
            return
        self._waiting.append(
            Event(
                f"{self._run}-x{len(self._shown):x}",
                EXPOSURE,
                from_microseconds(self._now),
                customer_id=request.customer_id,
                decision_id=decision.decision_id,
                placement=PLACEMENT,
                channel=channel,
                experiment=BROKEN,
                arm=arm,
            )
        )

    def tell(self, events: Sequence[Event]) -> None:
        if len(self._waiting) >= TOLD_TOGETHER:
            self.flush()
        self._inner.tell(events)

    def flush(self) -> None:
        """Tell what waits."""
        while self._waiting:
            self._inner.tell(self._waiting[:TOLD_TOGETHER])
            del self._waiting[:TOLD_TOGETHER]

    def close(self) -> None:
        self._inner.close()
