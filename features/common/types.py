"""The nouns that every room shares: offers, placements, requests, decisions.

Frozen structs, decoded once at the edge and trusted inside. The class that is decoded from HTTP is the class that is
written down and read by training. Imports nothing of ours.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

# Limits of one request; each is named with its unit last and quoted by the error that it causes.
ID_CHARACTERS_MAX = 64
LIMIT_OFFERS_MAX = 50
EXCLUDED_OFFERS_MAX = 200
PLACEMENTS_ASKED_MAX = 10
PURPOSES_MAX = 20
CONTEXT_KEYS_MAX = 50
CONTEXT_TEXT_CHARACTERS_MAX = 256
CONTEXT_INTEGER_MAX = 2**53  # what a float64 column holds exactly

# Ids are printable ASCII without blanks, quotes, or slashes: what is safe in a URL, a log line and a store key.
ID_TEXT = "[A-Za-z0-9][A-Za-z0-9._:@+=|~-]*"
END_OF_TEXT = r"(?!\n)"
"""What follows `$` in patterns, because Python's `$` also matches before a last newline."""
ID_PATTERN = rf"^{ID_TEXT}${END_OF_TEXT}"
NAME_PATTERN = rf"^[a-z][a-z0-9_]*${END_OF_TEXT}"

Id = Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX, pattern=ID_PATTERN)]
OfferId = Annotated[str, Meta(min_length=1, max_length=ID_CHARACTERS_MAX, pattern=ID_PATTERN)]
Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=NAME_PATTERN)]

ContextText = Annotated[str, Meta(max_length=CONTEXT_TEXT_CHARACTERS_MAX)]
ContextInteger = Annotated[int, Meta(ge=-CONTEXT_INTEGER_MAX, le=CONTEXT_INTEGER_MAX)]
ContextNumber = Annotated[float, Meta(ge=-CONTEXT_INTEGER_MAX, le=CONTEXT_INTEGER_MAX)]
"""Within the bounds of integers: JSON does not tell 1e18 from 1000000000000000000."""
ContextValue = bool | ContextInteger | float | ContextText | None
GivenValue = bool | ContextInteger | ContextNumber | ContextText | None
"""Of a request; what was recorded before numbers had bounds is read as `ContextValue`."""
# Names are held against the declared context columns, which match `Name`: a pattern here would cost 0.3 us a key.
ContextName = Annotated[str, Meta(min_length=1, max_length=64)]
Context = Annotated[dict[ContextName, GivenValue], Meta(max_length=CONTEXT_KEYS_MAX)]

OFFERS_CONSIDERED = "offers_considered"
"""A context column that a workspace may declare and the service fills in: how many offers compete in the decision."""

DataType = Literal["number", "integer", "category", "boolean", "time"]
"""What a value is, as features.yaml says it."""

ColumnKind = Literal["customer", "context", "offer", "pair"]
"""Whose fact a column is: of the customer, the moment, the offer, or of customer and offer together."""

ANONYMOUS = "~"
"""What the unit of an anonymous id begins with. No customer id can, so that the two never meet by chance."""
ACCOUNT = "@"
"""What the unit of an account begins with. No customer id can."""

UNIT_PATTERN = rf"^{ANONYMOUS}?{ID_TEXT[:-1]}{{0,{ID_CHARACTERS_MAX - 1}}}${END_OF_TEXT}"
"""Of a customer's id, or `~` and an anonymous id, with the length of ids."""


def unit_of(customer_id: str | None, anonymous_id: str | None) -> str:
    """Return whose history is meant: the customer's, or that of an anonymous id, or nobody's (empty)."""
    return customer_id or (ANONYMOUS + anonymous_id if anonymous_id else "")


Purpose = Annotated[str, Meta(min_length=1, max_length=40, pattern=NAME_PATTERN)]
ExperimentKey = Annotated[str, Meta(max_length=81, pattern=rf"^[A-Za-z0-9][A-Za-z0-9_.-]*${END_OF_TEXT}")]
"""Of an experiment or an arm, as the A/B tool spells it."""


class Treatment(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How an offer looks in one channel and locale; `payload` is handed to the frontend as it stands."""

    channel: str = "any"
    payload: dict[str, Any] = {}
    locale: str = "any"


class Budget(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """How often an offer may be shown to, or taken up by, all customers together. None is without bound."""

    daily: Annotated[int, Meta(ge=0)] | None = None
    """Shows in a day of the workspace's time zone."""
    lifetime: Annotated[int, Meta(ge=0)] | None = None
    """Shows in all."""
    stock: Annotated[int, Meta(ge=0)] | None = None
    """How often it can be taken up: a show holds one, until it was accepted or the hold is over."""


class Offer(Struct, frozen=True, omit_defaults=True):
    """Something a business can propose.

    `valid_from` and `valid_until` are microseconds since 1970 in UTC, the end exclusive; None is unbounded.
    `value` is what one acceptance is worth to the business, in the workspace's currency; `values` what it is worth
    otherwise, by kind (service, retention), in units whose worth `policies.yaml` gives.
    `attributes` holds numbers, texts and lists of texts by the names that `features.yaml` declares; a time is seconds
    since 1970.
    """

    offer_id: OfferId
    name: str = ""
    valid_from: int | None = None
    valid_until: int | None = None
    value: float = 1.0
    placements: tuple[str, ...] = ()
    """Where it may be shown; empty is everywhere."""
    treatments: tuple[Treatment, ...] = ()
    attributes: dict[str, bool | float | str | list[str] | None] = {}
    group: str = ""
    """What rules, limits and levers speak of; empty is none."""
    category: str = ""
    """What slates are kept diverse by; empty is none."""
    values: dict[str, float] = {}
    budget: Budget | None = None
    requires: tuple[str, ...] = ()
    """Offers of which the customer must have accepted one before."""
    excludes: tuple[str, ...] = ()
    """Offers that are not shown together with it, nor after one of them was accepted."""


class DecisionRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a frontend asks: which offers, in which order, for this customer, here and now."""

    customer_id: Id = ""
    """Absent where only an `anonymous_id` is known."""
    placement: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=LIMIT_OFFERS_MAX)] | None = None
    """At most this many offers; the placement's own number when absent."""
    context: Context = {}
    exclude: Annotated[list[OfferId], Meta(max_length=EXCLUDED_OFFERS_MAX)] = []
    explain: bool = False
    placements: Annotated[list[Name], Meta(min_length=1, max_length=PLACEMENTS_ASKED_MAX)] | None = None
    """Instead of `placement`: several at once, in the order in which they choose; no offer is shown twice."""
    purposes: Annotated[list[Purpose], Meta(max_length=PURPOSES_MAX)] | None = None
    """What data may be used for in this decision; everything that the customer allows when absent."""
    anonymous_id: Id | None = None
    """Who asks, before log-in; passed over where there is a `customer_id`."""

    @property
    def unit(self) -> str:
        """Whose history and columns are meant; empty where the request names nobody."""
        return unit_of(self.customer_id, self.anonymous_id)

    @property
    def asked(self) -> list[str]:
        """The placements asked for."""
        return self.placements or ([] if self.placement is None else [self.placement])


IMPRESSION = "impression"
OUTCOMES = ("click", "acceptance", "dismissal", "conversion")
"""Types of outcomes that every workspace has; the model's label and the policies' pauses may name more."""
IDENTIFY, CONSENT, EXPOSURE = "identify", "consent", "exposure"
EVENTS_MAX = 500
"""Events of one call."""
FIELDS_MAX = 200
"""Numbers and categories of one event."""

FieldText = Annotated[str, Meta(max_length=CONTEXT_TEXT_CHARACTERS_MAX)]


class Event(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What happened: an impression, an outcome, a row of a declared stream, who an anonymous id is, what a customer
    allows.
    """

    event_id: Id
    """The client's own; the same id with the same body is the same event."""
    type: Name
    """`impression`, a type of outcome, the name of a stream, `identify`, `consent` or `exposure`."""
    occurred_at: Annotated[datetime, Meta(tz=True)]
    """May be late, and out of order."""
    customer_id: Id = ""
    anonymous_id: Id | None = None
    decision_id: Id | None = None
    """The decision that it followed from."""
    offer_id: OfferId | None = None
    placement: Name | None = None
    channel: Name | None = None
    value: float | None = None
    """What an outcome was worth, in the workspace's currency."""
    fields: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=64)], float | FieldText | None], Meta(max_length=FIELDS_MAX)
    ] = {}
    """Numbers and categories of a stream, by the names that `features.yaml` declares."""
    purposes: Annotated[dict[Purpose, bool], Meta(max_length=PURPOSES_MAX)] = {}
    """What the customer allows, or no longer allows, from now on; of `consent`."""
    experiment: ExperimentKey | None = None
    """Of `exposure`: the experiment whose arm somebody saw."""
    arm: ExperimentKey | None = None
    """Of `exposure`."""

    @property
    def unit(self) -> str:
        """Whose event it is; empty where it names nobody."""
        return unit_of(self.customer_id, self.anonymous_id)


class RankedOffer(Struct, frozen=True):
    """One offer of an answer. `score`, the priority of arbitration, orders it; `propensity` is a calibrated
    probability, 0 to 1.
    """

    rank: int
    offer_id: str
    score: float
    propensity: float
    treatment: dict[str, Any]
    reasons: tuple[str, ...] = ()
    placement: str | msgspec.UnsetType = msgspec.UNSET
    """Where it is shown, in answers for several placements; ranks are those of the placement."""
    probability: float | msgspec.UnsetType = msgspec.UNSET
    """With which the policy shows this offer in its place, given those in the places before it: 1 where nothing is
    drawn. Absent where the workspace neither experiments nor explores.
    """


class GivenArm(Struct, frozen=True, gc=False):
    """The arm that an experiment gave the unit of a decision."""

    key: str
    """Of the experiment."""
    arm: str
    probability: float
    """P(arm | in the experiment)."""
    reason: str
    """`split`, or `sticky`."""


class ModelStamp(Struct, frozen=True):
    """Which model answered: registered name and version, and the digest of the bundle that served it."""

    name: str
    version: str
    bundle: str


class Decision(Struct, frozen=True, omit_defaults=False):
    """The answer to one request. `considered` counts the offers that were eligible and therefore scored."""

    decision_id: str
    customer_id: str
    placement: str
    offers: list[RankedOffer]
    model: ModelStamp
    degraded: tuple[str, ...]
    """Why the answer is less than it could be, from a closed set: see `docs/http-api.md`."""
    considered: int
    expires_at: str
    config: str
    """Digest of the policies and offers files that decided."""
    withheld: tuple[str, ...] = ()
    """Columns that the customer, or the request, did not allow to be used."""
    notes: tuple[str, ...] = ()
    """Reason codes, safe for customers, of rules that kept offers away."""
    explanation: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    experiments: tuple[GivenArm, ...] | msgspec.UnsetType = msgspec.UNSET
    """The experiments that the unit is in. Absent, as `group`, where the workspace has none that run, nor holdout, nor
    control groups.
    """
    group: str | msgspec.UnsetType | None = msgspec.UNSET
    """`holdout`, or the control group that decided."""
