"""Checks of limits and budgets: those that always bind, those that never do, what is used up."""

from __future__ import annotations

from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.gather import Facts

CUSTOMERS_MIN = 20
"""Fewer customers say nothing of a limit that always binds;"""
CUSTOMERS_MANY = 200
"""so many are needed to say of one that it never does."""
ALWAYS_SHARE = 0.95
FULL_SHARE = 0.90
NAMED_MAX = 10


def limits_always_bind(facts: Facts) -> Seen:
    """A limit keeps something away from nearly everybody who was decided for lately."""
    limits = facts.limits
    if limits.customers < CUSTOMERS_MIN:
        raise CannotSay(f"{limits.customers} customers with a recorded decision, expected at least {CUSTOMERS_MIN}")
    found = []
    for name, count in limits.exhausted.items():
        if count >= ALWAYS_SHARE * limits.customers:
            evidence: dict[str, float | str] = {
                "customers": limits.customers,
                "at_the_limit": count,
                "share": count / limits.customers,
            }
            todo = (
                "Raise the limit or shorten its window in policies.yaml, if that is not what it is for; `opportune"
                " simulate` shows what would change."
            )
            found.append(Finding("limits_always_bind", "warning", f"{name} binds for nearly everybody", evidence, todo))
    return Seen(f"{len(limits.exhausted)} limits for {limits.customers:,} customers", found)


def limits_never_bind(facts: Facts) -> Seen:
    """A limit has kept nothing away from anybody."""
    limits = facts.limits
    if limits.customers < CUSTOMERS_MANY:
        raise CannotSay(f"{limits.customers} customers with a recorded decision, expected at least {CUSTOMERS_MANY}")
    never = [name for name, count in limits.exhausted.items() if not count]
    if not never:
        return Seen(f"{len(limits.exhausted)} limits for {limits.customers:,} customers")
    todo = "Look whether the limit is meant to be so wide, and whether impressions and outcomes arrive that it counts."
    return Seen(
        f"{len(limits.exhausted)} limits for {limits.customers:,} customers",
        [
            Finding(
                "limits_never_bind",
                "warning",
                f"no customer is at {', '.join(never[:NAMED_MAX])}",
                {"customers": limits.customers},
                todo,
            )
        ],
    )


def ledger_full(facts: Facts) -> Seen:
    """The file of the contact ledger is close to the largest that it may be."""
    limits = facts.limits
    if not limits.ledger_bytes_max:
        raise CannotSay("the ledger is not embedded")
    if limits.ledger_bytes < FULL_SHARE * limits.ledger_bytes_max:
        return Seen("the file of the contact ledger")
    evidence: dict[str, float | str] = {"bytes": limits.ledger_bytes, "bytes_max": limits.ledger_bytes_max}
    todo = "Shorten the longest windows of limits and pauses, or keep the ledger in Redis (`stores.online.url`)."
    return Seen(
        "the file of the contact ledger",
        [
            Finding(
                "ledger_full",
                "error",
                "the contact ledger is nearly full: when it is, what has a limit is not shown",
                evidence,
                todo,
            )
        ],
    )


def budgets_used_up(facts: Facts) -> Seen:
    """Offers whose budget is used up are shown to nobody any more."""
    if not facts.budgets:
        raise CannotSay("no offer has a budget")
    found = []
    for which, pairs in (
        ("lifetime", [(one.offer, one.lifetime, one.lifetime_max) for one in facts.budgets]),
        ("daily", [(one.offer, one.today, one.daily_max) for one in facts.budgets]),
    ):
        used = [offer for offer, count, most in pairs if most is not None and count >= most]
        if used:
            evidence: dict[str, float | str] = {"offers": len(used), "with_a_budget": len(facts.budgets)}
            what = f"the {which} budget is used up of {', '.join(used[:NAMED_MAX])}"
            todo = "Raise the budget in offers.yaml, or take the offer out; a daily one is free again tomorrow."
            found.append(Finding("budgets_used_up", "warning", what, evidence, todo))
    return Seen(f"{len(facts.budgets)} offers with a budget", found)


CHECKS = (limits_always_bind, limits_never_bind, ledger_full, budgets_used_up)
