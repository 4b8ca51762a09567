"""`offers.yaml` as structs: placements, treatments, and offers that are written by hand. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from features.common.timestamps import Moment
from features.common.types import LIMIT_OFFERS_MAX, Budget, Name, OfferId, Treatment


class Placement(Struct, frozen=True, forbid_unknown_fields=True):
    """A named place that wants offers."""

    limit: Annotated[int, Meta(ge=1, le=LIMIT_OFFERS_MAX)] = 3
    description: str = ""
    groups: tuple[str, ...] = ()
    """Groups of offers that it takes; empty is all."""
    channels: tuple[Name, ...] = ()
    """Channels in which it exists; a request from another is refused. Empty is all."""
    per_category: Annotated[int, Meta(ge=1)] | None = None
    """At most so many offers of a category in one answer."""
    per_group: Annotated[int, Meta(ge=1)] | None = None
    fallback: tuple[OfferId, ...] = ()
    """Offers that fill what is left, in this order, when fewer than `limit` can be shown; validity and rules hold for
    them too.
    """


class OffersFile(Struct, frozen=True, forbid_unknown_fields=True):
    """`offers.yaml`: placements, how offers look, what groups them, and the offers that do not come in a table."""

    placements: Annotated[dict[Name, Placement], Meta(min_length=1)]
    treatments: tuple[Treatment, ...] = ()
    """For offers without their own; texts may hold `{name}`, `{offer_id}`, `{valid_until}`, `{value}` and offer
    attributes.
    """
    offers: tuple[OfferEntry, ...] = ()
    group: Name | None = None
    """The attribute (a category) whose text is the group of an offer that states none itself."""
    category: Name | None = None
    """The same for categories."""
    bundles: dict[Name, Annotated[tuple[OfferId, ...], Meta(min_length=2, max_length=10)]] = {}
    """Offers that go together: shown side by side, or none of them."""


class OfferEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """An offer written by hand."""

    offer_id: OfferId
    name: str = ""
    valid_from: Moment | None = None
    valid_until: Moment | None = None
    value: float = 1.0
    placements: tuple[Name, ...] = ()
    treatments: tuple[Treatment, ...] = ()
    attributes: dict[Name, bool | float | str | list[str] | None] = {}
    """By the names of features.yaml; a time is a date or a time with its offset."""
    group: str = ""
    category: str = ""
    values: dict[Name, float] = {}
    """What it is worth beside money, by kind: `{service: 2}`."""
    budget: Budget | None = None
    requires: tuple[OfferId, ...] = ()
    excludes: tuple[OfferId, ...] = ()
