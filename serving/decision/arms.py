"""The step that assigns: the arms of experiments and the group of a unit, and so the state that decides."""

from __future__ import annotations

from collections.abc import Mapping

from serving.assignment.assignment import NOBODY, StickyArm
from serving.decision.case import Case
from serving.decision.effects import Effects, Settle


def assign(case: Case, sticky: Mapping[str, StickyArm] | None) -> Effects:
    """Find the arms of the unit, write new sticky ones down, and let the state of these arms decide.

    Args:
        sticky: sticky assignments, by experiment; None when they could not be read. Then nothing is written.
    """
    states = case.serving.experiment_states
    units = states.units(case.request, case.unit, case.row, case.context, case.seconds)
    assigned = states.assigned(units, case.row, case.context, sticky or NOBODY, case.now)
    if states.sticky:
        case.sticky_unknown = sticky is None
        wanted = [] if sticky is None else states.wanted(units, assigned, sticky)
        if wanted:
            stored = yield Settle(wanted)
            if isinstance(stored, Mapping):
                assigned = states.settled(assigned, stored)
            else:
                case.sticky_unknown = True
    case.units, case.assigned = units, assigned
    snapshot = states.state(assigned)
    if snapshot is not case.serving:
        case.decide_by(snapshot)
