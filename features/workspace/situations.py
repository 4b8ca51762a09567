"""Situation first: a pack of rules that any workspace can take in. A customer who needs help is not sold to.

    policies.yaml
      situation_first: {service: [service]}      # the groups of offers that help

A workspace says in which situations a customer is by what it declares: a segment of policies.yaml, a boolean context
column, or a boolean customer column with one of the names of `SITUATIONS`. Each that is found becomes a rule, which
keeps all other offers away while the situation lasts, and a context weight for what helps. Unknown is not a situation:
nobody is kept from offers for a fact that is missing.
"""

from __future__ import annotations

from features.config.policies import PoliciesFile, Rule, Weight
from features.expressions.scope import Scope

SITUATIONS = {
    "open_case": "A complaint or a service case of the customer is open.",
    "bad_experience": "Something went wrong for the customer lately: a failed delivery, an outage, a long wait.",
    "vulnerable": "The customer is in a vulnerable position: in arrears, ill, in need of care.",
    "bereaved": "Someone close to the customer has died.",
    "problem_now": "The customer is in the middle of solving a problem: on the phone, in a chat, on a help page.",
}
"""Names of segments or boolean columns that the pack looks for."""
REASON = "help_first"
PREFIX = "situation_"


def with_situations(policies: PoliciesFile, scope: Scope) -> tuple[dict[str, Rule], dict[str, Weight]]:
    """Rules and weights of a workspace, those of the pack first where it is taken in.

    Args:
        scope: what the workspace declares, segments included.
    """
    pack = policies.situation_first
    if pack is None:
        return policies.rules, policies.arbitration.weights
    rules: dict[str, Rule] = {}
    weights: dict[str, Weight] = {}
    for name, description in SITUATIONS.items():
        found = source(name, scope)
        if found is not None:
            rules[PREFIX + name] = Rule(
                unless=found, except_groups=pack.service, stage="suitability", reason=REASON, description=description
            )
            weights[PREFIX + name] = Weight(when=found, weight=pack.weight, groups=pack.service)
    return rules | policies.rules, weights | policies.arbitration.weights


def source(name: str, scope: Scope) -> str | None:
    """Return where a workspace says whether a customer is in a situation; None where it does not."""
    places = (f"{kind}.{name}" for kind in ("segment", "context", "customer"))
    return next((place for place in places if place in scope and scope[place].dtype == "boolean"), None)
