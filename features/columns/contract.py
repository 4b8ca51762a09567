"""The contract between training and serving: which columns the model sees, in which order, and what each of them means.

`contract_of` derives it from a workspace. Its fingerprint travels with every bundle; a bundle whose contract is not the
workspace's is refused. `layout.py` computes the values.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from msgspec import Struct

from features.aggregate_kinds.kinds import AGGREGATES
from features.columns.views import Family, Measure, View, views_of, window_name
from features.common.timestamps import window_seconds
from features.common.types import ColumnKind
from features.config.features_file import FeaturesFile, PairColumn

ColumnType = Literal["number", "category", "age"]
"""`age`: the stored value is a moment; the model sees days between it and the decision."""


class Column(Struct, frozen=True, omit_defaults=True):
    """One input of the model.

    `source` says where the value is from: `view.scalar` for customer columns, the context or attribute name, or
    `view.family.measure` for what is matched by key; `match` is then the offer attribute that holds the keys.
    """

    name: str
    kind: ColumnKind
    dtype: ColumnType
    source: str
    match: str = ""
    combine: Literal["", "sum", "min", "max"] = ""
    """How values of an offer's several keys become one."""
    empty: Literal["", "zero"] = ""
    """`zero`: no key found, or no value stated, is 0; otherwise missing."""
    relative: Literal["", "share", "rank", "ratio"] = ""
    relative_to: str = ""
    """Name of the column whose values, among the offers considered, the relative column compares."""
    unit: str | None = None
    purposes: tuple[str, ...] = ()
    freshness_seconds: int | None = None
    reason: str | None = None
    default: float | str | bool | None = None
    """What a context column is when the request does not say."""


class Contract(Struct, frozen=True):
    """Columns in model order: customer, context, offer, pair; and those only used by rules and reasons."""

    columns: tuple[Column, ...]
    auxiliary: tuple[Column, ...] = ()
    """Pair columns that rules and reasons need and the model does not see."""

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides what a value means."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def of_kind(self, kind: ColumnKind) -> list[Column]:
        return [column for column in self.columns if column.kind == kind]


KINDS: tuple[ColumnKind, ...] = ("customer", "context", "offer", "pair")


def contract_of(features: FeaturesFile, leave_out: tuple[str, ...] = ()) -> Contract:
    """Return all columns that a workspace declares, in a fixed order, and its auxiliary ones."""
    candidates: list[tuple[Column, bool]] = []
    candidates += _customer_columns(features)
    for name, context in features.context.items():
        dtype: ColumnType = "category" if context.dtype == "category" else "number"
        default = 0.0 if context.missing == "zero" else context.default
        column = Column(
            name, "context", dtype, name, unit=context.unit, purposes=context.purposes or (), default=default
        )
        candidates.append((column, context.model))
    for name, attribute in features.offer.items():
        if attribute.dtype == "texts":
            continue
        if attribute.dtype == "time":
            candidates.append((Column(f"offer_{name}", "pair", "age", f"offer.{name}", unit="days"), attribute.model))
        else:
            dtype = "category" if attribute.dtype == "category" else "number"
            empty: Literal["", "zero"] = "zero" if attribute.missing == "zero" else ""
            candidates.append(
                (Column(f"offer_{name}", "offer", dtype, name, empty=empty, unit=attribute.unit), attribute.model)
            )
    candidates += _matched_columns(features)
    used = [column for column, model in candidates if model and column.name not in leave_out]
    rest = [column for column, model in candidates if not (model and column.name not in leave_out)]
    ordered = [column for kind in KINDS for column in used if column.kind == kind]
    auxiliary = [column for column in rest if column.kind in ("pair", "offer") and not column.relative and column.match]
    return Contract(tuple(ordered), tuple(auxiliary))


def _customer_columns(features: FeaturesFile) -> list[tuple[Column, bool]]:
    used = {name: attribute.model for name, attribute in features.customer.attributes.items()}
    for name, window in features.columns.items():
        for text in window.windows:
            for value in window.group.values if window.group else (None,):
                used[window_name(name, text, value)] = window.model
    return [
        (
            Column(
                name=scalar.name,
                kind="customer",
                dtype="category" if scalar.dtype == "category" else "age" if scalar.dtype == "time" else "number",
                source=f"{view.name}.{scalar.name}",
                unit="days" if scalar.dtype == "time" else scalar.unit,
                purposes=scalar.purposes,
                freshness_seconds=scalar.freshness_seconds,
            ),
            used[scalar.name],
        )
        for view in views_of(features)
        if view.entity == "customer"
        for scalar in view.scalars
        if not scalar.beside
    ]


def _matched_columns(features: FeaturesFile) -> list[tuple[Column, bool]]:
    made: list[tuple[Column, bool]] = []
    stored: dict[tuple[str, str], tuple[View, Family, Measure]] = {
        (view.entity, measure.name): (view, family, measure)
        for view in views_of(features)
        for family in view.families
        for measure in family.measures
        if not family.beside
    }
    for name, pair in features.pairs.items():
        for text in pair.windows:
            column = _matched(window_name(name, text), pair, *stored[pair.scope, window_name(name, text)])
            made.append((column, pair.model))
            for relative in pair.relative:
                changes = {"name": f"{column.name}_{relative}", "relative": relative, "relative_to": column.name}
                derived = msgspec.structs.replace(column, kind="pair", unit=None, reason=None, **changes)
                made.append((derived, pair.model))
    return made


def _matched(name: str, pair: PairColumn, view: View, family: Family, measure: Measure) -> Column:
    kind = AGGREGATES[pair.aggregate]
    is_time = kind.dtype == "time"
    longest = max(pair.windows, key=lambda window: window_seconds(window) or float("inf"))
    return Column(
        name=name,
        kind="pair" if pair.scope == "customer" or is_time else "offer",
        dtype="age" if is_time else "number",
        source=f"{view.name}.{family.name}.{measure.name}",
        match=pair.match,
        combine=kind.combine,
        empty="zero" if kind.zero and pair.missing != "unknown" else "",
        unit="days" if is_time else pair.unit,
        purposes=measure.purposes,
        freshness_seconds=measure.freshness_seconds,
        reason=pair.reason if measure.window_seconds == window_seconds(longest) else None,
    )
