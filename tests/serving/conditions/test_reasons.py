"""Reasons say what is, and what would be needed."""

from __future__ import annotations

from typing import Any

from serving.conditions.conditions import Conditions, scalar_values
from serving.conditions.reasons import explain, needed
from tests.serving.condition_reference import NOW, expression, laid, rows_of

RULES = {
    "tenure": "customer.n >= 90 and context.c in ['red', 'blue'] and not context.b",
    "either": "customer.n >= 90 or offer.n > 2 and pair.n == 0",
    "tags": "'red' not in offer.tags",
    "region": "offer.c == customer.c and known(pair.m)",
}
FACTS: dict[str, Any] = {"customer.n": 12.0, "context.c": "grün", "context.b": True, "customer.c": "red"}
OFFERS = [
    {"offer.n": 1.0, "offer.c": "red", "offer.tags": ["red"], "pair.n": 3.0, "pair.m": None},
    {"offer.n": 3.0, "offer.c": "blue", "offer.tags": [], "pair.n": 0.0, "pair.m": 1.0},
]


def test_reasons_say_what_is_and_what_would_be_needed() -> None:
    """For a rule that does not hold, the fewest leaves that would have to change are told, with their values."""
    compiled = Conditions({name: expression(text) for name, text in RULES.items()})
    bound = compiled.bind({name: laid(name, OFFERS) for name in compiled.offers}, 2)
    scalars, pairs = scalar_values(compiled.scalars, FACTS), rows_of(compiled.pairs, OFFERS)
    assert bound.evaluate(scalars, pairs, NOW) == (0b00, 0b10, 0b10, 0b00)
    told = {
        name: [str(reason) for reason in needed(rule, bound.lookup(0, scalars, pairs, NOW))]
        for name, rule in compiled.rules.items()
    }
    assert told == {
        "tenure": [
            "customer.n is 12 (needs >= 90)",
            'context.c is "grün" (needs in ["blue", "red"])',
            "context.b is True (needs False)",
        ],
        "either": ["customer.n is 12 (needs >= 90)"],
        "tags": ['offer.tags is ["red"] (needs without "red")'],
        "region": ["pair.m is unknown (needs known)"],
    }
    second = bound.lookup(1, scalars, pairs, NOW)
    assert [str(reason) for reason in needed(compiled.rules["region"], second)] == [
        'customer.c is "red" (needs == offer.c, which is "blue")'
    ]
    assert [(reason.condition, reason.holds) for reason in explain(compiled.rules["either"], second)] == [
        ("customer.n >= 90", False),
        ("offer.n > 2", True),
        ("pair.n == 0", True),
    ]
