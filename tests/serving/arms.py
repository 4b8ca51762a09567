"""States that decide under experiments, and what they answer."""

from __future__ import annotations

from typing import Any

from features.common.types import Decision
from features.events.journal import Line
from features.ledger.recent import KeptArm
from serving.assignment.assignment import Units
from serving.decision.effects import Effect, EffectResult, Settle, grant
from serving.state.snapshot import Snapshot
from tests.serving.decisions import decide
from tests.serving.hubs import NOON, Hubs, asked, offer

NOW = int(NOON * 1_000_000)
OFFERS = [offer(number, value=1.0 + number % 3, group="even" if number % 2 == 0 else "odd") for number in range(12)]
POLICIES: dict[str, Any] = {
    "rules": {
        "grown": {"when": "customer.lines >= 1", "offers": ["o1"]},
        "fitting": {"unless": "customer.lines >= 2", "offers": ["o2"], "stage": "suitability"},
    },
    "arbitration": {
        "groups": {"even": 50.0},
        "weights": {"many": {"when": "customer.lines >= 3", "weight": 500.0, "offers": ["o5"]}},
    },
}


def one_arm(changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Everybody is in the arm that changes something."""
    return {
        "experiments": {
            "e": {"status": "running", "arms": {"as_it_is": {"weight": 0}, "other": {"weight": 1, "changes": changes}}}
            | more
        }
    }


def answer(
    loaded: Snapshot, customer: str = "c1", row: Any = None, lines: list[Line] | None = None, **fields: Any
) -> Decision:
    record = None if lines is None else lines.append
    return decide(asked(customer_id=customer, **fields), loaded, row, NOW, decision_id="d", record=record)


def told(decision: Decision) -> list[tuple[str, float]]:
    return [(one.offer_id, one.score) for one in decision.offers]


def made(hubs: Hubs, experiments: Any = None, policies: Any = None, **more: Any) -> Snapshot:
    return hubs.make(POLICIES if policies is None else policies, OFFERS, experiments=experiments, **more)


def group_of(name: str, loaded: Snapshot) -> str:
    """Somebody of a group."""
    found = (f"c{number}" for number in range(20_000))
    return next(customer for customer in found if loaded.experiment_states.assigner.group(Units(customer)).name == name)


def kept_by(store: dict[str, dict[str, KeptArm]], away: bool = False) -> Any:
    """A ledger of sticky assignments alone."""

    def take(asked: Effect) -> EffectResult:
        if not isinstance(asked, Settle):
            return grant(asked)
        if away:
            return None
        for unit, arms, _ in asked.wanted:
            for key, arm in arms.items():
                store.setdefault(unit, {}).setdefault(key, arm)
        return {key: store[unit][key] for unit, arms, _ in asked.wanted for key in arms}

    return take


def sticky(first: float, **more: Any) -> dict[str, Any]:
    arms = {"a": {"weight": first}, "b": {"weight": 1 - first, "changes": {"placements": {"home": {"limit": 1}}}}}
    return {"experiments": {"e": {"status": "running", "sticky": True, "arms": arms} | more}}
