"""What is kept of a customer, as tables: each view is one Feast feature view, one part of a stored row, one SQL query.

A view holds scalars (a value a customer) and families (values by key: what was bought, by product group). A family is
stored as a list of keys and, beside it, a list of values for each measure; lists are sorted by key, so that sums over
them are the same wherever they are computed.

Some values cannot be added to as they stand: a mean needs its sum and its count. These companions, which the aggregate
names (`features/aggregate_kinds`), are hidden scalars and families: stored, computed, pushed and withheld as their
column is, but no columns themselves. `features/aggregates/incremental.py` adds newer events to them.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from features.aggregate_kinds.kinds import AGGREGATES, COUNT
from features.columns.streams import streams_of
from features.common.timestamps import DAY_SECONDS, duration_seconds, window_seconds
from features.common.types import DataType
from features.config.features_file import FeaturesFile, PairColumn, Stream, Where, WindowColumn

Entity = Literal["customer", "everyone"]

EVERYONE = "*"
"""Key of the one row of views whose entity is everyone."""

KEYS_MAX = 5_000
"""Keys that a family keeps for one customer; those with the latest events stay."""

TTL_DEFAULT_SECONDS = 400 * DAY_SECONDS


class Scalar(Struct, frozen=True):
    """One value a customer. `sql` fields say how a window computes it; they are empty for attributes."""

    name: str
    dtype: DataType
    aggregate: str = ""
    of: str | None = None
    window_seconds: int | None = None
    where: Where = {}
    purposes: tuple[str, ...] = ()
    freshness_seconds: int | None = None
    unit: str | None = None
    zero: bool = False
    """No events, or no value stated, is 0 rather than unknown."""
    whole: Where = {}
    """What a share is a part of: events for which this holds."""
    beside: str = ""
    """Hidden: the column that it is kept for, and may be used for what that may be used for; empty for a column."""


class Measure(Struct, frozen=True):
    """One value a key; null where the key has no event that counts."""

    name: str
    aggregate: str
    of: str | None
    window_seconds: int | None
    where: Where
    purposes: tuple[str, ...]
    freshness_seconds: int | None
    unit: str | None


class Family(Struct, frozen=True):
    """Measures by key. Feast fields: `<name>__keys` and `<name>__<measure>`."""

    name: str
    key: str
    measures: tuple[Measure, ...]
    beside: str = ""
    """As a scalar's: the texts that a `distinct` has told apart."""

    @property
    def keys_field(self) -> str:
        return f"{self.name}__keys"

    def field(self, measure: Measure) -> str:
        return f"{self.name}__{measure.name}"


class View(Struct, frozen=True):
    """A table of one entity, from one source. `stream` is None for the attributes of the customer."""

    name: str
    entity: Entity
    stream: str | None
    scalars: tuple[Scalar, ...]
    families: tuple[Family, ...]
    ttl_seconds: int

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Return names and types of all stored fields, in their fixed order: `number`, …, or `texts` and `numbers` for
        lists.
        """
        scalars = [(scalar.name, scalar.dtype) for scalar in self.scalars]
        lists = []
        for family in self.families:
            lists.append((family.keys_field, "texts"))
            lists.extend((family.field(measure), "numbers") for measure in family.measures)
        return [*scalars, *lists]

    @property
    def hidden(self) -> frozenset[str]:
        """Return the names of the fields that are stored for other columns."""
        families = [family for family in self.families if family.beside]
        lists = [name for family in families for name in (family.keys_field, *map(family.field, family.measures))]
        return frozenset([*lists, *(scalar.name for scalar in self.scalars if scalar.beside)])


def window_name(name: str, window: str, value: str | None = None) -> str:
    """Return `spend_90d`, or `spend_90d_grocery` for one value of a group."""
    suffix = "" if value is None else "_" + "".join(c if c.isalnum() else "_" for c in value.lower())
    return f"{name}_{window}{suffix}"


def views_of(features: FeaturesFile) -> tuple[View, ...]:
    """Return all views that a workspace declares, in a fixed order: the customer's attributes, then streams by name."""
    views = []
    customer = features.customer
    if customer.attributes:
        scalars = tuple(
            Scalar(
                name=name,
                dtype=attribute.dtype,
                purposes=attribute.purposes or customer.purposes,
                freshness_seconds=_seconds(attribute.freshness or customer.freshness),
                unit=attribute.unit,
                zero=attribute.missing == "zero",
            )
            for name, attribute in customer.attributes.items()
        )
        views.append(View("customer", "customer", None, scalars, (), _ttl(scalars, ())))
    streams = sorted(
        {column.stream for column in features.columns.values()} | {pair.stream for pair in features.pairs.values()}
    )
    for stream in streams:
        scalars = tuple(
            scalar
            for name, column in features.columns.items()
            if column.stream == stream
            for scalar in _scalars(features, name, column)
        )
        own, all_of_them = (_families(features, stream, scope) for scope in ("customer", "everyone"))
        own += tuple(_told_apart(scalar) for scalar in scalars if AGGREGATES[scalar.aggregate].tells_apart)
        scalars += tuple(companion for scalar in scalars for companion in _companions(scalar))
        if scalars or own:
            views.append(View(stream, "customer", stream, scalars, own, _ttl(scalars, own)))
        if all_of_them:
            views.append(View(f"everyone_{stream}", "everyone", stream, (), all_of_them, _ttl((), all_of_them)))
    return tuple(views)


def _seconds(text: str | None) -> int | None:
    return None if text is None else duration_seconds(text)


def _ttl(scalars: tuple[Scalar, ...], families: tuple[Family, ...]) -> int:
    """Feast needs a bound on how far a join looks back (without one its cost explodes): the longest freshness limit, or
    the default.
    """
    limits = [s.freshness_seconds for s in scalars] + [m.freshness_seconds for f in families for m in f.measures]
    return max((limit or TTL_DEFAULT_SECONDS for limit in limits), default=TTL_DEFAULT_SECONDS)


def _described(features: FeaturesFile, column: WindowColumn | PairColumn) -> tuple[tuple[str, ...], int | None]:
    stream = streams_of(features).get(column.stream, Stream())
    return column.purposes or stream.purposes, _seconds(column.freshness or stream.freshness)


def _scalars(features: FeaturesFile, name: str, column: WindowColumn) -> list[Scalar]:
    purposes, freshness = _described(features, column)
    categories = streams_of(features).get(column.stream, Stream()).categories
    kind = AGGREGATES[column.aggregate]
    dtype: DataType = kind.dtype or ("category" if column.of in categories else "number")
    zero = column.missing == "zero" or (column.missing is None and kind.zero)
    made = []
    for window in column.windows:
        for value in column.group.values if column.group else (None,):
            where = column.where if column.group is None or value is None else {**column.where, column.group.by: value}
            made.append(
                Scalar(
                    name=window_name(name, window, value),
                    dtype=dtype,
                    aggregate=column.aggregate,
                    of=column.of,
                    window_seconds=window_seconds(window),
                    where=where,
                    purposes=purposes,
                    freshness_seconds=freshness,
                    unit=column.unit,
                    zero=zero,
                    whole=column.where if kind.is_part and column.group is not None else {},
                )
            )
    return made


def companion(scalar: Scalar, what: str) -> str:
    """Return the name of a companion of a scalar; no column's begins with an underscore."""
    return f"_{what}_{scalar.name}"


def _companions(scalar: Scalar) -> list[Scalar]:
    """Return what is stored beside a value so that events can be added to it, exactly and in any order."""
    return [
        replace(
            scalar,
            name=companion(scalar, hidden.prefix),
            dtype=hidden.kind.dtype,
            aggregate=hidden.kind.name,
            where=scalar.whole if hidden.of_whole else scalar.where,
            unit=None,
            zero=hidden.zero,
            whole={},
            beside=scalar.name,
        )
        for hidden in AGGREGATES[scalar.aggregate].companions(scalar.of, scalar.zero)
    ]


def _told_apart(scalar: Scalar) -> Family:
    """Return the hidden family whose keys are the texts that a column tells apart."""
    measure = Measure(
        "times", COUNT.name, None, scalar.window_seconds, scalar.where, scalar.purposes, scalar.freshness_seconds, None
    )
    return Family(companion(scalar, "values"), str(scalar.of), (measure,), beside=scalar.name)


def _families(features: FeaturesFile, stream: str, scope: str) -> tuple[Family, ...]:
    keys = sorted({pair.key for pair in features.pairs.values() if pair.stream == stream and pair.scope == scope})
    families = []
    for key in keys:
        measures: list[Measure] = []
        for name, pair in features.pairs.items():
            if (pair.stream, pair.scope, pair.key) == (stream, scope, key):
                measures += [_measure(features, name, pair, window) for window in pair.windows]
        families.append(Family(f"by_{key}", key, tuple(measures)))
    return tuple(families)


def _measure(features: FeaturesFile, name: str, pair: PairColumn, window: str) -> Measure:
    purposes, freshness = _described(features, pair)
    seconds = window_seconds(window)
    return Measure(
        window_name(name, window), pair.aggregate, pair.of, seconds, pair.where, purposes, freshness, pair.unit
    )


def fingerprint(views: tuple[View, ...]) -> str:
    """Return a digest of what is stored and how it is computed; part of the bundle's contract."""
    return hashlib.sha256(msgspec.json.encode(views, order="sorted")).hexdigest()
