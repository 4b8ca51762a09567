"""`workspace.yaml` as structs: name, time zone, where data comes from and goes to. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from features.common.timestamps import Duration, Moment
from features.common.types import Name

WORKSPACE_NAME_PATTERN = r"^[a-z][a-z0-9-]{0,40}$(?!\n)"
CURRENCY_PATTERN = r"^[A-Z]{3}$(?!\n)"


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
