"""Changes that make a fault in experiments.yaml, each with a part of its message; none where there is no fault."""

from __future__ import annotations

from typing import Any

from tests.features.validation.arm_faults import ARM_FAULTS, OTHER, other

LOUDER = "experiments.louder-levers"
CHANGES = f"{LOUDER}.arms.treatment.changes"

SHORT: dict[str, Any] = {
    "status": "running",
    "arms": {"plain": {}, "short": {"changes": {"placements": {"home": {"limit": 1}}}}},
}
MANY = {f"short-{number}": SHORT for number in range(7)}

FAULTS: list[tuple[str, Any, str]] = [
    ("goals", {"value": {"cap": 500}, "clicks": {"winsorize": 0.99}}, ""),
    (
        "goals",
        {"value": {}},
        "$.goals.value: expected `cap` or `winsorize`, got neither. For example {winsorize: 0.99}.",
    ),
    ("goals", {"value": {"cap": 0}}, "$.goals.value.cap: expected"),
    ("goals", {"clicks": {"winsorize": 1.0}}, "$.goals.clicks.winsorize: expected"),
    (
        "experiments.other.goals",
        {"value": {"cap": 5, "winsorize": 0.9}},
        "goals.value: expected `cap` or `winsorize`, got both.",
    ),
    # form
    ("experiment", {}, "$.experiment: expected a known key, got `experiment`. Did you mean `experiments`?"),
    (
        f"{OTHER}.coverge",
        1,
        "$.experiments.other.coverge: expected a known key, got `coverge`. Did you mean `coverage`?",
    ),
    (
        f"{OTHER}.arms.c.wieght",
        1,
        "$.experiments.other.arms.c.wieght: expected a known key, got `wieght`. Did you mean `weight`?",
    ),
    (f"{OTHER}.arms", {"a": {}}, "$.experiments.other.arms: expected two arms at least, got 1"),
    (f"{OTHER}.status", "runing", "expected one of draft, running, stopped, got 'runing'. Did you mean `running`?"),
    (f"{OTHER}.hash", "growthbook", "$.experiments.other.hash: expected one of"),
    (f"{OTHER}.coverage", 1.5, "$.experiments.other.coverage: expected a number <= 1"),
    ("experiments.a b", other(), "expected a name of letters, digits and . _ -, got `a b`"),
    (f"{CHANGES}.model", 12, f"$.{CHANGES}.model: expected a text or nothing, got 12. Put it in quotes."),
    (f"{CHANGES}.rules.on", ["cheap"], "expected a known key, got `on`"),
    *ARM_FAULTS,
    # moments, units, namespaces
    (
        f"{OTHER}.start",
        "2026-02-30",
        "$.experiments.other.start: expected a moment that the calendar has, got `2026-02-30`",
    ),
    (f"{LOUDER}.end", "2026-11-01", "$.experiments.louder-levers.end: expected a moment after start, got `2026-11-01`"),
    (
        "account",
        "customer.houshold",
        "$.account: expected a category of customer or context, got `customer.houshold`. Did you mean",
    ),
    (
        "account",
        "customer.tenure_days",
        "$.account: expected a category of customer or context, got `customer.tenure_days`",
    ),
    (
        "control_groups",
        {"no_levers": 0.1, "salt": "2026-h2"},
        "$.control_groups: expected another salt than that of `holdout`, got `2026-h2`.",
    ),
    (
        "control_groups",
        {"no_levers": 0.6, "random_eligible": 0.6},
        "$.control_groups: expected shares that add up to at most 1, got 1.2",
    ),
    (
        f"{OTHER}.namespace.range",
        [0.4, 1],
        "$.experiments.other.namespace.range: expected a range of `levers` apart from that of `louder-levers`",
    ),
    (
        f"{OTHER}.namespace.range",
        [1, 0.5],
        "$.experiments.other.namespace.range: expected a range that begins before it ends, got [1, 0.5]",
    ),
    (OTHER, other(unit="account", status="stopped", namespace={"name": "levers", "range": [0, 1]}), ""),
    (
        f"{OTHER}.unit",
        "customer",
        "$.experiments.other.unit: expected one unit in the namespace `levers`, got `customer` and `account`",
    ),
    # expressions
    (
        f"{OTHER}.targeting",
        "customer.tenure >= 5",
        "$.experiments.other.targeting: expected a name of customer, got `customer.tenure`",
    ),
    (
        f"{OTHER}.targeting",
        "offer.value > 5",
        "expected columns of customer and context, and segments of them, got `offer.value`. Who takes",
    ),
    (
        f"{OTHER}.targeting",
        "segment.dear",
        "expected columns of customer and context, and segments of them, got `offer.value`",
    ),
    (f"{OTHER}.targeting", "customer.tenure_days >=", "$.experiments.other.targeting: expected"),
    (f"{CHANGES}.arbitration.formula", "propensty * value", f"$.{CHANGES}.arbitration.formula: expected"),
    # changes
    (
        f"{CHANGES}.rules.off",
        ["cheep"],
        f"$.{CHANGES}.rules.off[0]: expected a rule of policies.yaml, got `cheep`. Did you mean `cheap`?",
    ),
    (
        f"{CHANGES}.rules.off",
        ["known"],
        f"$.{CHANGES}.rules.off[0]: expected a rule of another stage than eligibility, got `known`",
    ),
    (
        f"{CHANGES}.arbitration.weights.on_ap",
        2,
        "expected a weight of policies.yaml, got `on_ap`. Did you mean `on_app`?",
    ),
    (f"{CHANGES}.arbitration.worth.money", 2, "expected a kind of value of policies.yaml, got `money`"),
    (
        f"{CHANGES}.arbitration.groups.hlp",
        2,
        f"$.{CHANGES}.arbitration.groups.hlp: expected a group that some offer has, got `hlp`",
    ),
    (
        f"{CHANGES}.arbitration.offers.data-6",
        2,
        f"$.{CHANGES}.arbitration.offers.data-6: expected an offer, got `data-6`",
    ),
    (
        f"{CHANGES}.placements.hme",
        {"limit": 1},
        f"$.{CHANGES}.placements.hme: expected a declared placement, got `hme`",
    ),
    (
        f"{CHANGES}.placements.home.fallback",
        ["sorry"],
        f"$.{CHANGES}.placements.home.fallback[0]: expected an offer, got `sorry`",
    ),
    (
        f"{CHANGES}.placements.home.groups",
        ["sale"],
        f"$.{CHANGES}.placements.home.groups[0]: expected a group that some offer has",
    ),
    (
        "experiments",
        MANY,
        "$.experiments: expected at most 64 combinations of arms that change something, got 128. Put experiments",
    ),
]
