"""Figures that several checks of `opportune doctor` share, gathered once by `gather.Facts`.

Nothing here names a customer but one whose share of the events is absurd.
"""

from __future__ import annotations

from msgspec import Struct

from pipelines.importing.table_fit import Early, Shared


class Traffic(Struct, frozen=True):
    """What was decided and heard lately, as the lake has it. Moments are microseconds since 1970."""

    hours: int
    decisions: int
    """Those that showed something."""
    shown: int
    impressions: int
    outcomes: int
    outcomes_tied: int
    """Outcomes that name a decision."""
    outcomes_unknown: int
    """Outcomes whose decision nobody recorded."""
    outcomes_early: int
    """Outcomes that happened before their decision, by more than a clock explains."""
    impressions_tied: int
    impressions_early: int
    clamped: int
    """Impressions and outcomes that say so of themselves, and whose clock explains it: they count as at the decision's
    moment.
    """
    events: int
    late: int
    """Events that were received more than a day after they happened."""
    future: int
    """Events that happened, as they say, more than a minute after they were received."""
    decided_first: int | None
    days_missing: tuple[str, ...]
    """Whole days without a recorded decision between two that have some, of the last 30."""


class LogFacts(Struct, frozen=True):
    """The counters of the event log, since it began, and why its dead letters are dead."""

    accepted: int
    stored: int
    duplicates: int
    dead: int
    reasons: dict[str, int]


class LoopFacts(Struct, frozen=True):
    """How the shipper does."""

    ran_at: int | None
    """Microseconds since 1970; None before its first run."""
    waiting: int
    """Decisions and events that wait to be shipped, in rows or, of journals, in bytes."""
    oldest: int | None
    """When the oldest of what waits was written."""
    lag_seconds: float
    lost_bytes: int
    left_out: dict[str, int]


class ViewFacts(Struct, frozen=True):
    """One view over a sample of customers of the online store."""

    name: str
    present: int
    stale: int
    """Rows of which a value that the model uses is older than its limit."""
    newest: float
    """Event time, seconds since 1970; NaN where no customer has a row."""


class ColumnFacts(Struct, frozen=True):
    """One column over a sample of known rows."""

    name: str
    rows: int
    missing: int
    distinct: int


class StoreFacts(Struct, frozen=True):
    """The online store, by a sample of customers that should be in it."""

    sampled: int
    known: int
    views: tuple[ViewFacts, ...]
    columns: tuple[ColumnFacts, ...]
    materialized: bool
    """Whether the record of steps says that it was filled."""
    computed_at: int
    consents: dict[str, tuple[int, int]]
    """By purpose: known rows, and those that do not allow it."""
    damage: str = ""


class SkewFacts(Struct, frozen=True):
    """Online rows against windows that were computed from the lake again, at the moment of the row."""

    customers: int
    different: tuple[str, ...]
    """Columns that differ for somebody."""


class DriftFacts(Struct, frozen=True):
    """What models saw lately, column by column."""

    decisions: int
    columns: tuple[ColumnFacts, ...]
    moved: dict[str, float]
    """Population stability index of numbers against the rows that training saw."""
    compared: int
    """Columns that were compared with training."""
    customers: int = 0
    """Of whom one decision each was compared."""


class LimitFacts(Struct, frozen=True):
    """How often each limit of the policies keeps something away from the customers of the last decisions."""

    customers: int
    exhausted: dict[str, int]
    """By the limit's name, customers for whom it is exhausted in some place."""
    ledger_bytes: int
    ledger_bytes_max: int


class BudgetFacts(Struct, frozen=True):
    """One offer's shows, as the lake counts impressions, against its budget; None is without bound."""

    offer: str
    lifetime: int
    lifetime_max: int | None
    today: int
    daily_max: int | None


class ModelFacts(Struct, frozen=True):
    """What serves, and how old it is."""

    serving: str | None
    refused: str
    """Why the bundle that was published last cannot serve; empty where it can."""
    trained_at: int | None
    decisions: int
    decisions_after: int
    """Recorded and imported decisions; those of them that came after the model was trained."""
    metrics: dict[str, float] = {}
    """Of the test slice, as training measured them."""
    trees: int = 0


class RegistryFacts(Struct, frozen=True):
    """What the registry says."""

    fault: str
    """Why it cannot be asked; empty where it can."""
    aliases: dict[str, str | None] = {}
    """The version of `champion`, and of each model that arms of running experiments name; None where there is none."""
    registered: dict[str, int] = {}
    """By version, when it was trained, microseconds since 1970; those that serve or are champion, and that the registry
    has.
    """


class BrokenFiles(Struct, frozen=True):
    """Files of the lake."""

    files: int
    broken: dict[str, str]
    """By path within the data folder, why it cannot be read."""


class DataFacts(Struct, frozen=True):
    """How the tables of the lake fit together."""

    shared: tuple[Shared, ...]
    early: dict[str, Early]
    """Of imported events, by table."""
    zones: dict[str, dict[str, dict[str, int]]]
    """Time zones that quiet hours look at and that are none, by table and column, with their customers."""


class MachineFacts(Struct, frozen=True):
    """The disk, and the keys."""

    free_bytes: int
    total_bytes: int
    lake_bytes: int
    lake_bytes_a_day: float
    """How the lake grows, by the files of the last week."""
    kept_days: float | None
    """The longest retention of what grows; None: for good."""
    keys: int
    keys_without_expiry: int
    keys_expired: int
    keys_fault: str = ""
    free_files: int = 0
    total_files: int = 0
    """Names that the file system can take; 0 where it does not say."""
    clock_moved: str = ""
    """How OPPORTUNE_CLOCK moves the clock where the doctor runs; empty where it does not."""


class ServerFacts(Struct, frozen=True):
    """What a running server answers."""

    address: str
    loopback: bool
    ready: int
    """Status of /readyz; 0: no answer."""
    said: str
    open: bool
    """Whether it answers whoever has no key."""
    clock_seconds: float | None
    """How far its clock is ahead of ours."""
    metrics: int = 0
    """Status of /metrics."""
    bundles: tuple[str, ...] = ()
    """Those that its workers serve."""
    arms: dict[str, tuple[float, float]] = {}
    """By experiment, decisions for units that have an arm, and the exposures among them."""
