"""`policies.yaml` as structs: who may be offered what, how often, and what it is worth. Unknown keys are refused.

Conditions are expressions (`docs/expressions.md`); `features/validation/policies.py` checks them against the declared
columns.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from features.common.timestamps import DURATION_PATTERN
from features.common.types import Name, OfferId

Duration = Annotated[str, Meta(pattern=DURATION_PATTERN)]
Stage = Literal["eligibility", "applicability", "suitability"]
"""May we (law, contract); does it make sense now; is it good for this customer. In this order."""
STAGES: tuple[Stage, ...] = ("eligibility", "applicability", "suitability")
Per = Literal["offer", "group", "any"]
Group = Annotated[str, Meta(min_length=1, max_length=256)]
"""A text of the attribute that groups offers, as its table has it: blanks and all."""
Clock = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$(?!\n)")]
Lever = Annotated[float, Meta(ge=0, le=1_000)]

RULES_MAX = 1_000
LIMITS_MAX = 64
CONTACTS_MAX = 100
"""The largest number that a limit may allow: a customer's history holds a bounded number of contacts."""
FORMULA_DEFAULT = "propensity * context_weight * value * lever"


class Whom(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which offers something concerns: those that each of the lists given allows; without any, all."""

    offers: tuple[OfferId, ...] = ()
    groups: tuple[Group, ...] = ()
    except_groups: tuple[Group, ...] = ()
    """Not the offers of these groups."""
    placements: tuple[Name, ...] = ()
    """Only in decisions for these placements."""


class Rule(Whom, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Offers pass where `when` is true, or where `unless` is not true; unknown is not true."""

    when: str | None = None
    unless: str | None = None
    stage: Stage = "eligibility"
    reason: Name | None = None
    """A code, safe for customers, that an answer gives when the rule kept offers away."""
    description: str = ""


class Limit(Whom, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """At most `max` contacts in a window: of each offer, of each group, or of any offer."""

    max: Annotated[int, Meta(ge=1, le=CONTACTS_MAX)]
    window: Duration
    per: Per = "offer"
    count: Literal["impressions", "decisions"] = "impressions"
    """What was seen (and what was answered but may still be seen), or all that was answered."""
    channel: Name = "any"
    """`any`: all channels together; `each`: every channel by itself; or the only channel that it concerns."""


class Pause(Whom, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """After so many outcomes of a type within a time, what they were about is not offered for `pause`."""

    outcome: Annotated[str, Meta(min_length=1, max_length=64)]
    times: Annotated[int, Meta(ge=1, le=CONTACTS_MAX)] = 1
    within: Duration = "30d"
    pause: Duration
    per: Per = "offer"


class QuietHours(Whom, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Times of the day in which nothing is offered in some channels."""

    channels: tuple[Name, ...] = ()
    """Empty: in all."""
    begin: Clock
    end: Clock
    """Exclusive; before `begin`, it is on the next day."""
    time_zone: str | None = None
    """A zone (`Europe/Berlin`), or the column that holds it (`customer.time_zone`); the workspace's own when absent, or
    unknown.
    """


class Weight(Whom, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A context weight: offers weigh so much more, or less, where the condition is true. Several multiply."""

    when: str
    weight: Lever


class SituationFirst(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a customer needs help, sales give way to service."""

    service: Annotated[tuple[Group, ...], Meta(min_length=1)]
    """The groups of offers that help; all others are sales."""
    weight: Lever = 3.0
    """Context weight of what helps, while a situation lasts."""


class Arbitration(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How offers that may be shown are ordered: by priority, largest first."""

    formula: str = FORMULA_DEFAULT
    """Of `propensity`, `context_weight`, `value`, `lever` and columns."""
    worth: dict[Name, Annotated[float, Meta(ge=0)]] = {}
    """What a unit of each kind of value that is not money is worth, in the workspace's currency."""
    weights: dict[Name, Weight] = {}
    offers: dict[OfferId, Lever] = {}
    """Levers of offers: 1.55 is a lever of 55 %. They multiply with those of their groups."""
    groups: dict[Group, Lever] = {}


class Exploration(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often something else than the best offer is shown, so that it is learnt what that would bring: inverse-gap
    weighting.

    Of K offers that may stand in a place, with priorities scaled to the best one's, another than the best is shown
    there with the probability max(floor / K, 1 / (K + gamma * gap)); the best has the rest. SquareCB: Foster and
    Rakhlin 2020; FALCON: Simchi-Levi and Xu 2020.
    """

    gamma: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    """The larger, the more the best offer is shown; without it the floor alone holds."""
    floor: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """The part of all shows that is spread evenly over the offers that may be shown."""
    period: Duration = "1d"
    """How long a unit is shown the same draw."""
    salt: Annotated[str, Meta(min_length=1, max_length=200)] = "exploration"
    """Another one draws anew."""


class PoliciesFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`policies.yaml`: rules, limits, arbitration."""

    situation_first: SituationFirst | None = None
    """A pack of rules that the program brings: see `features/workspace/situations.py`."""
    segments: dict[Name, str] = {}
    """Named conditions, used as `segment.<name>`."""
    rules: Annotated[dict[Name, Rule], Meta(max_length=RULES_MAX)] = {}
    limits: Annotated[dict[Name, Limit], Meta(max_length=LIMITS_MAX)] = {}
    pauses: Annotated[dict[Name, Pause], Meta(max_length=LIMITS_MAX)] = {}
    quiet_hours: Annotated[dict[Name, QuietHours], Meta(max_length=LIMITS_MAX)] = {}
    hold: Duration = "30m"
    """How long a contact that was answered counts as an impression when none is reported."""
    arbitration: Arbitration = Arbitration()
    exploration: Exploration | UnsetType = UNSET
    """Nothing is drawn where it is absent."""
