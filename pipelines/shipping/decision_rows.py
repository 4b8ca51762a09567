"""A line of the journal as rows of the lake: what was shown, what the model saw of it, and to which arms that exposed
the unit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from features.columns.catalogue import category_text
from features.common.types import OFFERS_CONSIDERED, ContextValue
from features.events.journal import Line, Settled
from features.lake.loop_tables import EXPOSURES, GROUP, GROUPS, KEPT, RECORDED, USUAL
from features.lake.tables import FIXED
from features.workspace.workspace import Workspace
from pipelines.shipping.parts import LakeParts
from serving.hub.request_check import ANY, channel_of

_FLOAT = np.dtype("<f8")


class DecisionRows:
    """Turns lines into rows of `decisions` (of units that have a name) and `recorded`, one an offer shown, and of
    `exposures`.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        declared = {name: column for name, column in workspace.features.context.items() if name != OFFERS_CONSIDERED}
        self._context: list[tuple[str, Callable[[ContextValue], Any]]] = [
            (name, {"category": _text, "boolean": _truth, "integer": _integer}.get(column.dtype, _number))
            for name, column in declared.items()
        ]
        assert [field.name for field in FIXED["decisions"]] == [
            "decision_id",
            "customer_id",
            "time",
            "placement",
            "offer_id",
            "action_probability",
        ]

    def add(self, line: Line, parts: LakeParts) -> bool:
        """Add the rows of one line; False for one whose arrays do not fit each other."""
        try:
            columns = line.columns()
            probabilities, propensities = (
                np.frombuffer(part, _FLOAT).tolist() for part in (line.probabilities, line.propensities)
            )
            scores = np.frombuffer(line.scores, _FLOAT).tolist() if line.scores else propensities
            considered = len(line.positions())
        except ValueError:
            return False
        offers = line.offer_ids
        if not len(columns) == len(offers) == len(probabilities) == len(propensities) == len(scores):
            return False
        placements = line.placements or (line.placement,) * len(offers)
        context = [read(line.context.get(name)) for name, read in self._context]
        stamp = (line.decision_id, line.at)
        made = partial(parts.add, at=line.at)
        for position, (offer, placement) in enumerate(zip(offers, placements, strict=True)):
            if line.customer_id:
                shown = (line.decision_id, line.customer_id, line.at, placement, offer, probabilities[position])
                made("decisions", (*shown, *context, *stamp))
            seen = (placement, offer, line.versions.bundle, line.versions.contract, line.config, position, considered)
            numbers = (
                probabilities[position],
                propensities[position],
                scores[position],
                list(line.degraded),
                columns[position],
            )
            made(RECORDED.name, (line.decision_id, line.customer_id or None, line.at, *seen, *numbers, *stamp))
        self._expose(line, parts)
        return True

    def _expose(self, line: Line, parts: LakeParts) -> None:
        units = line.units or (line.customer_id,) * len(line.experiments)
        channel = channel_of(self._workspace, line.context)
        how = (
            None if channel == ANY else channel,
            line.placement,
            list(line.degraded),
            line.took_us,
            line.decision_id,
            line.at,
        )
        if line.customer_id and (line.group or line.group_probability < 1):
            drawn = (
                line.customer_id,
                GROUPS,
                line.group or USUAL,
                line.at,
                line.group_probability,
                1.0,
                GROUP,
                line.decision_id,
                None,
            )
            parts.add(EXPOSURES.name, (*drawn, *how), line.at)
        for unit, (experiment, arm, probability, covered, reason, exposed) in zip(
            units, line.experiments, strict=False
        ):
            if exposed and unit:
                who = (
                    line.customer_id or unit,
                    experiment,
                    arm,
                    line.at,
                    probability,
                    covered,
                    reason,
                    line.decision_id,
                )
                parts.add(EXPOSURES.name, (*who, unit if unit != who[0] else None, *how), line.at)


def add_kept(settled: Settled, parts: LakeParts) -> None:
    """Add the rows of sticky assignments, one an experiment."""
    for experiment, (arm, version, probability) in settled.arms.items():
        over_arm, over_version, _ = settled.over.get(experiment, (None, None, None))
        stamp = (f"{settled.at:x}-kept", settled.at)
        parts.add(
            KEPT.name,
            (settled.unit, experiment, arm, settled.at, version, probability, over_arm, over_version, *stamp),
            settled.at,
        )


def _text(value: ContextValue) -> str | None:
    return category_text(value) or None


def _truth(value: ContextValue) -> bool | None:
    return bool(value) if isinstance(value, (bool, int, float)) else None


def _number(value: ContextValue) -> float | None:
    return float(value) if isinstance(value, (bool, int, float)) else None


def _integer(value: ContextValue) -> int | None:
    return (
        int(value) if isinstance(value, (bool, int, float)) and value == value and abs(value) != float("inf") else None
    )
