"""The canonical tables: what a business brings, column by column. `docs/bring-your-own-data.md` is the same for
people.
"""

from __future__ import annotations

from msgspec import Struct

from features.columns.streams import BUILT_IN_STREAMS
from features.common.types import OFFERS_CONSIDERED, DataType
from features.workspace.workspace import Workspace

SQL_TYPES: dict[str, str] = {
    "number": "DOUBLE",
    "integer": "BIGINT",
    "category": "VARCHAR",
    "boolean": "BOOLEAN",
    "time": "TIMESTAMPTZ",
    "texts": "VARCHAR[]",
    "numbers": "DOUBLE[]",
}


class Field(Struct, frozen=True):
    """One column of a canonical table. An id is a text of at most 64 safe characters; a required one may not be
    missing.
    """

    name: str
    dtype: DataType | str
    required: bool = False
    id: bool = False

    @property
    def sql_type(self) -> str:
        return SQL_TYPES[self.dtype]


class Table(Struct, frozen=True):
    """A canonical table of one workspace.

    `key` identifies a row: the same key and content again is a duplicate. A `versioned` table takes another content for
    a key as its new version; any other refuses it. Without a key, rows are compared whole, each as often as it occurs.
    """

    name: str
    time: str | None
    fields: tuple[Field, ...]
    key: tuple[str, ...] = ()
    versioned: bool = False

    @property
    def folder(self) -> str:
        return self.name.replace(".", "/")


CUSTOMER = Field("customer_id", "category", required=True, id=True)
OFFER = Field("offer_id", "category", required=True, id=True)
TIME = Field("time", "time", required=True)

FIXED: dict[str, tuple[Field, ...]] = {
    "customers": (CUSTOMER, Field("valid_from", "time", required=True)),
    "offers": (
        OFFER,
        Field("name", "category"),
        Field("valid_from", "time"),
        Field("valid_until", "time"),
        Field("value", "number"),
        Field("placements", "texts"),
    ),
    "decisions": (
        Field("decision_id", "category", required=True, id=True),
        CUSTOMER,
        TIME,
        Field("placement", "category"),
        OFFER,
        Field("action_probability", "number"),
    ),
    "impressions": (
        Field("decision_id", "category", id=True),
        CUSTOMER,
        OFFER,
        TIME,
        Field("placement", "category"),
        Field("channel", "category"),
    ),
    "outcomes": (
        Field("decision_id", "category", id=True),
        CUSTOMER,
        OFFER,
        Field("type", "category", required=True),
        TIME,
        Field("value", "number"),
    ),
    "streams": (CUSTOMER, TIME),
}
"""Columns that a table has whatever the workspace declares."""

_OWN_NAMES = {"day", "imported_at", "moment", "event_timestamp", "created", "event_id", "everyone_id", "received"}
"""Names that our own files use beside them, or will."""


def reserved(table: str) -> set[str]:
    """Names that a workspace cannot declare for a table; `streams` for any of the streams."""
    return _OWN_NAMES | {field.name for field in FIXED[table]}


def tables_of(workspace: Workspace) -> dict[str, Table]:
    """Return all canonical tables by name; streams as `streams.<name>`."""
    features = workspace.features
    attributes, of_offer, context = (
        tuple(Field(name, column.dtype) for name, column in declared.items() if name != OFFERS_CONSIDERED)
        for declared in (features.customer.attributes, features.offer, features.context)
    )
    tables = [
        Table(
            "customers", "valid_from", (*FIXED["customers"], *attributes), ("customer_id", "valid_from"), versioned=True
        ),
        Table("offers", None, (*FIXED["offers"], *of_offer), ("offer_id",), versioned=True),
        Table("decisions", "time", (*FIXED["decisions"], *context), ("decision_id", "offer_id")),
        Table("impressions", "time", FIXED["impressions"]),
        Table("outcomes", "time", FIXED["outcomes"]),
    ]
    for name, stream in features.streams.items():
        fields = (*(Field(n, "number") for n in stream.numbers), *(Field(n, "category") for n in stream.categories))
        tables.append(Table(f"streams.{name}", "time", (*FIXED["streams"], *fields)))
    return {table.name: table for table in tables}


def stream_table(name: str) -> str:
    """Return the canonical table that holds a stream."""
    return name if name in BUILT_IN_STREAMS else f"streams.{name}"
