"""Figures by arm and group, for the metrics: decisions, exposures and flags, never whom they were for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from features.common.types import Decision
from features.config.experiments import CONTROL_GROUPS
from serving.assignment.assignment import HOLDOUT
from serving.assignment.experiments import ExperimentStates
from serving.runtime.metrics import Metrics
from serving.state.snapshot import Snapshot

ARM_ROWS_MAX = 1_000
"""Arms that have figures of their own, of all experiments that ever ran while the numbers live; the others share a row.
"""

_DECISIONS, _EXPOSURES, _DEGRADED, _FLAGS = range(4)
_COLUMNS = {
    "decisions_total": "Decisions for units that have the arm.",
    "exposures_total": "Decisions that an arm of the experiment changed, or could have, for units that have the arm.",
    "degraded_total": "Decisions for units that have the arm that were less than they could be.",
    "flags_total": "Single evaluations of the experiment's flag that gave the arm.",
}


class ArmCounts:
    """Counts for one worker. What runs is told by `prepare`, before it decides."""

    def __init__(self, metrics: Metrics) -> None:
        self._table = metrics.table("opportune_arm", ("experiment", "arm"), _COLUMNS, ARM_ROWS_MAX)
        groups = (HOLDOUT, *CONTROL_GROUPS)
        self._groups = metrics.counter(
            "opportune_group_decisions_total", "Decisions for the holdout and the control groups.", group=groups
        )
        self._slots: dict[tuple[str, str], int] = {}
        """Of all arms that this process ever ran; a decision may still be under one that was just taken away."""

    def prepare(self, loaded: Snapshot) -> None:
        """Give every arm that runs its row."""
        for read in loaded.experiment_states.experiments.experiments:
            if read.entry.status == "running":
                self._slots |= {(read.key, arm): self._table.row(read.key, arm) for arm in read.arms}

    def decided(self, decision: Decision, states: ExperimentStates[Any], asked: Sequence[str]) -> None:
        """Count a decision.

        Args:
            states: under which it was made.
            asked: the placements.
        """
        if decision.group:
            self._groups.add(decision.group)
        slots, degraded = self._table.slots, bool(decision.degraded)
        for one in decision.experiments or ():
            slot = self._slots.get((one.key, one.arm), self._table.first)
            slots[slot] += 1
            if states.exposed(one.key, asked):
                slots[slot + _EXPOSURES] += 1
            if degraded:
                slots[slot + _DEGRADED] += 1

    def flagged(self, experiment: str, arm: str) -> None:
        """Count a single evaluation of the flag of an experiment."""
        self._table.slots[self._slots.get((experiment, arm), self._table.first) + _FLAGS] += 1
