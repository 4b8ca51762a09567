"""The file formats of a workspace, as structs: what each YAML file may say. Unknown keys are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from features.aggregate_kinds.kinds import DECLARED, PAIRED
from features.common.timestamps import DURATION_OR_END_PATTERN, DURATION_PATTERN, MOMENT_PATTERN, WINDOW_PATTERN
from features.common.types import LIMIT_OFFERS_MAX, Budget, DataType, Name, OfferId, Purpose, Treatment

Duration = Annotated[str, Meta(pattern=DURATION_PATTERN)]
Window = Annotated[str, Meta(pattern=WINDOW_PATTERN)]
Moment = Annotated[str, Meta(pattern=MOMENT_PATTERN)]
"""A date (its first moment in UTC) or an RFC 3339 time with its offset."""

Missing = Literal["unknown", "zero"]
if TYPE_CHECKING:
    Aggregate = str
    PairAggregate = str
else:  # whatever the kinds are: a file that names another is refused with all of them
    Aggregate, PairAggregate = Literal[DECLARED], Literal[PAIRED]
Relative = Literal["share", "rank", "ratio"]
Scope = Literal["customer", "everyone"]

WORKSPACE_NAME_PATTERN = r"^[a-z][a-z0-9-]{0,40}$(?!\n)"
CURRENCY_PATTERN = r"^[A-Z]{3}$(?!\n)"
MODEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,80}$(?!\n)"

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


# workspace.yaml
# ---------------------------------------------------------------------------------------------------------


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a table comes from: a Parquet or CSV file, a folder, or a glob, relative to the workspace."""

    path: str
    columns: dict[str, str] = {}
    """Canonical name -> name in the file, where they differ."""
    missing: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=20)], ...], Meta(max_length=50)] | None = None
    """Words that mean that a value is missing, in any case, in place of the usual ones (`nan`, `None`, `NULL` …); `[]`:
    none does.
    """


class Sources(Struct, frozen=True, forbid_unknown_fields=True):
    """The canonical tables: see `docs/bring-your-own-data.md`."""

    customers: Source | str | None = None
    offers: Source | str | None = None
    decisions: Source | str | None = None
    outcomes: Source | str | None = None
    impressions: Source | str | None = None
    streams: dict[Name, Source | str] = {}


class OnlineStore(Struct, frozen=True, forbid_unknown_fields=True):
    """`embedded` (LMDB, in process) or a Redis address: `redis://host:port/db`, `rediss://…`,
    `redis+cluster://h1:p1,h2:p2`.
    """

    url: str = "embedded"
    feast: dict[str, Any] | None = None
    """Instead of `url`: Feast's own `online_store` section, for any other store that it knows; texts may hold
    `${VARIABLE}`.
    """
    timeout_ms: Annotated[int, Meta(ge=1, le=10_000)] = 25
    near_cache_rows: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Rows of a Redis store that each worker keeps, told by the server of changes; 0 keeps none. A row takes some
    kilobytes.
    """


class Stores(Struct, frozen=True, forbid_unknown_fields=True):
    """Where what is made of the data is kept for others to read."""

    online: OnlineStore = OnlineStore()
    registry: str | None = None
    """MLflow tracking address; a SQLite file in the data folder when absent."""


class Demo(Struct, frozen=True, forbid_unknown_fields=True):
    """Demo data is moved forward by whole weeks at the first import, so that `now` of the source is now of the
    clock.
    """

    now: Moment


class Serving(Struct, frozen=True, forbid_unknown_fields=True):
    """How answers are given."""

    deadline_ms: Annotated[int, Meta(ge=5, le=5_000)] = 50
    """Time for one decision; what is not read by then is left out and the answer is marked degraded."""
    answer_valid: Duration = "5m"
    """How long a frontend may keep an answer (`expires_at`)."""


class EventSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How events that are posted to the service are taken in."""

    late: Duration = "30d"
    """An event that happened longer ago is dead-lettered."""
    recognised: Duration = "14d"
    """How long an event stays in the event log after it was received, and so how long its id is recognised."""
    refresh: Duration = "1m"
    """How often changed customers' windows are computed again and pushed into the online store; decisions know of
    events at once either way.
    """


class Retention(Struct, frozen=True, forbid_unknown_fields=True):
    """How long each table of the lake is kept, by day; what is absent is kept for good."""

    decisions: Duration | None = None
    impressions: Duration | None = None
    outcomes: Duration | None = None
    recorded: Duration | None = "400d"
    """What models saw of recorded decisions."""
    dead_letters: Duration = "30d"
    journal: Duration = "7d"
    """Journal files that were shipped."""
    streams: dict[Name, Duration] = {}


class WorkspaceFile(Struct, frozen=True, forbid_unknown_fields=True):
    """`workspace.yaml`: name, time zone, where data comes from and goes to."""

    name: Annotated[str, Meta(pattern=WORKSPACE_NAME_PATTERN)]
    time_zone: str = "UTC"
    currency: Annotated[str, Meta(pattern=CURRENCY_PATTERN)] = "USD"
    data: str = ".opportune"
    sources: Sources = Sources()
    stores: Stores = Stores()
    serving: Serving = Serving()
    events: EventSettings = EventSettings()
    retention: Retention = Retention()
    demo: Demo | None = None
    buckets: Annotated[int, Meta(ge=1, le=4_096)] = 1
    """Customer buckets that features are computed in, one at a time: more buckets need less memory."""


# features.yaml
# ----------------------------------------------------------------------------------------------------------


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


# offers.yaml
# ------------------------------------------------------------------------------------------------------------


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


# model.yaml
# -------------------------------------------------------------------------------------------------------------


class Label(Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as success: an outcome of this type for the offer, within the attribution window after the
    decision.
    """

    outcome: str
    within: Annotated[str, Meta(pattern=DURATION_OR_END_PATTERN)] = "30d"
    """A duration, or until the offer is no longer valid."""


class TrainingSplit(Struct, frozen=True, forbid_unknown_fields=True):
    """Where time is cut. Training decisions have their attribution window closed before the cut; test decisions come
    after.
    """

    cut: Moment | None = None
    """In the source's own time; when absent, the moment that leaves `test_share` of the decisions behind it."""
    test_share: Annotated[float, Meta(gt=0, lt=0.9)] = 0.2
    open_windows: bool = False
    """Whether test decisions count whose attribution window is still open: their failures may yet turn into successes.
    """
    stopping_share: Annotated[float, Meta(gt=0, lt=0.9)] = 0.25
    """Latest part of the training decisions, on which early stopping and calibration are done."""


class Gates(Struct, frozen=True, forbid_unknown_fields=True):
    """What a model must reach before it may serve."""

    better_than_popularity: bool = True
    """Its MRR on the test slice is at least that of the popularity baseline."""


class ModelFile(Struct, frozen=True, forbid_unknown_fields=True):
    """`model.yaml`: the label, the split, and LightGBM's parameters."""

    name: Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)]
    label: Label
    split: TrainingSplit = TrainingSplit()
    parameters: dict[str, Any] = {}
    """LightGBM's, by any of its names; see `features/config/model_parameters.py`."""
    rounds_max: Annotated[int, Meta(ge=1, le=10_000)] = 500
    patience_rounds: Annotated[int, Meta(ge=1)] = 50
    weight_without_success: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Weight of the decisions that had no success; below 1 the model learns more from choices than from silence."""
    cold_start_share: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    """Part of the training decisions whose customer is made unknown, so that the model can rank for strangers."""
    monotone: dict[str, Literal["increasing", "decreasing"]] = {}
    additive: bool = False
    """No tree mixes columns of customer and context with columns of offer and pair: those move the level, these the
    order.
    """
    leave_out: tuple[str, ...] = ()
    """Columns that the model does not use."""
    learn_from: Literal["auto", "recorded", "imported", "both"] = "auto"
    """`recorded`: what this service decided, with the columns as the model saw them; `imported`: the business's own
    history; `both`. `auto` takes recorded decisions once there are enough of them, and before that what was imported.
    """
    recorded_decisions_min: Annotated[int, Meta(ge=1)] = 20_000
    """So many recorded decisions with a closed attribution window are enough for `auto`,"""
    recorded_successes_min: Annotated[int, Meta(ge=1)] = 200
    """if so many of them had a success: the last fifth of time, on which models are compared, then has about forty."""
    recorded_weight: Annotated[float, Meta(gt=0, le=1_000)] = 1.0
    """With `both`: what a recorded decision weighs against an imported one."""
    popularity: str | None = None
    """The column that the popularity baseline ranks by; each offer's success rate in the training rows when absent."""
    seed: int = 1
    gates: Gates = Gates()
