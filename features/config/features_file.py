"""`features.yaml` as structs: what is known, and how it is computed. Unknown keys are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from features.aggregate_kinds.kinds import DECLARED, PAIRED
from features.common.timestamps import Duration, Window
from features.common.types import DataType, Name, Purpose

Missing = Literal["unknown", "zero"]
if TYPE_CHECKING:
    Aggregate = str
    PairAggregate = str
else:  # whatever the kinds are: a file that names another is refused with all of them
    Aggregate, PairAggregate = Literal[DECLARED], Literal[PAIRED]
Relative = Literal["share", "rank", "ratio"]
Scope = Literal["customer", "everyone"]

STREAMS_MAX = 64
COLUMNS_MAX = 1_000
PURPOSES_DEFAULT: tuple[str, ...] = ("personalization",)


class Described(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every column says of itself, whatever it is computed from."""

    unit: str | None = None
    missing: Missing | None = None
    """`zero`: nothing seen is 0; `unknown`: the model sees a missing value. When absent, nothing counted, summed or
    told apart is 0, and anything else is unknown. A customer of whom nothing at all is known has missing values either
    way.
    """
    purposes: tuple[Purpose, ...] | None = None
    """What the column may be used for; the source's own when absent."""
    freshness: Duration | None = None
    """Older than this the value counts as missing; the source's own when absent."""


class Attribute(Described, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fact of a customer or an offer that a table states."""

    dtype: DataType
    model: bool = True
    """Whether the model may use it; rules and treatments always may."""


class Customer(Struct, frozen=True, forbid_unknown_fields=True):
    """The `customers` table."""

    attributes: dict[Name, Attribute] = {}
    purposes: tuple[Purpose, ...] = PURPOSES_DEFAULT
    freshness: Duration | None = None


class Stream(Struct, frozen=True, forbid_unknown_fields=True):
    """An event stream: one row an event, with the customer, the time, numbers and categories."""

    numbers: tuple[Name, ...] = ()
    categories: tuple[Name, ...] = ()
    purposes: tuple[Purpose, ...] = PURPOSES_DEFAULT
    freshness: Duration | None = None


class OfferAttribute(Attribute, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fact of an offer; `texts` is a list of texts, to be matched by pair columns."""

    dtype: Literal["number", "integer", "category", "boolean", "time", "texts"]  # type: ignore[assignment]


class ContextColumn(Described, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fact of the moment, which comes with the request."""

    dtype: Literal["number", "integer", "category", "boolean"]
    values: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    default: float | str | bool | None = None
    """What is assumed when the request does not say; missing when absent."""
    model: bool = True


class Range(Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers from `minimum` (inclusive) up to `below` (exclusive)."""

    minimum: float | None = None
    below: float | None = None


Where = dict[Name, Range | list[str] | str]
"""Which events count: a category equal to a text or one of several, or a number within a range. All must hold."""


class WindowColumn(Described, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A windowed aggregate over a customer's events; one column a window, named `<name>_<window>`.

    With `group`, there is a column for each listed value of a category: `<name>_<window>_<value>`. `share` is the part
    of the events (of their sum, with `of`) for which `where` holds; with `group`, the part of each value in the events
    for which `where` holds, so that the shares of all values add up to one.
    """

    stream: Name
    aggregate: Aggregate
    of: Name | None = None
    windows: Annotated[tuple[Window, ...], Meta(min_length=1, max_length=12)] = ("all",)
    where: Where = {}
    group: CategoryGroup | None = None
    model: bool = True


class CategoryGroup(Struct, frozen=True, forbid_unknown_fields=True):
    """One column for each of these values of a category."""

    by: Name
    values: Annotated[tuple[str, ...], Meta(min_length=1, max_length=64)]


class PairColumn(Described, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A column of customer and offer: events are aggregated by a key, and an offer takes those of its own keys.

    `key` is a category of the stream, `match` the offer attribute (a text or a list of texts) that holds the offer's
    keys. With `scope: everyone` the events of all customers count, which makes it popularity. `relative` adds, among
    the offers considered in one decision, the share of the total, the rank (1 is the largest, ties equal), the ratio to
    the largest.
    """

    stream: Name
    aggregate: PairAggregate
    of: Name | None = None
    windows: Annotated[tuple[Window, ...], Meta(min_length=1, max_length=12)] = ("all",)
    where: Where = {}
    key: Name
    match: Name
    scope: Scope = "customer"
    relative: tuple[Relative, ...] = ()
    reason: Name | None = None
    """Reason code, safe for customers, of offers whose value is above zero in the longest window."""
    model: bool = True


class ConsentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where it stands whether a customer allows a purpose."""

    column: Name
    """A boolean attribute of the customer."""
    unknown: Literal["allowed", "denied"] = "denied"
    """What holds for a customer whose answer is not known."""


class FeaturesFile(Struct, frozen=True, forbid_unknown_fields=True):
    """`features.yaml`: what is known, and how it is computed."""

    customer: Customer = Customer()
    consent: dict[Purpose, ConsentSettings] = {}
    """By purpose. A purpose without an entry is allowed to every request that does not name others."""
    streams: Annotated[dict[Name, Stream], Meta(max_length=STREAMS_MAX)] = {}
    offer: dict[Name, OfferAttribute] = {}
    context: dict[Name, ContextColumn] = {}
    columns: dict[Name, WindowColumn] = {}
    pairs: dict[Name, PairColumn] = {}
