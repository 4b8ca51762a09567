"""Tables of the lake that only events and journals fill, beside the canonical ones: what belongs to whom, what is allowed, what was seen.

Rows that came from events and journals carry `event_id` (of decisions: the decision's id) and `received` in every table.
"""

from __future__ import annotations

from features.tables import CUSTOMER, OFFER, TIME, Field, Table

LINKS = Table("links", "time", (Field("unit", "category", required=True), CUSTOMER, TIME))
"""`unit`, an anonymous one (`~` and its id), belongs to the customer. The first link that was received holds."""

CONSENTS = Table("consents", "time", (CUSTOMER, TIME, Field("purpose", "category"), Field("allowed", "boolean")))
"""A row a purpose; the latest counts."""

RECORDED = Table(
    "recorded",
    "time",
    (
        Field("decision_id", "category", required=True, id=True),
        CUSTOMER,
        TIME,
        Field("placement", "category"),
        OFFER,
        Field("bundle", "category"),
        Field("contract", "category"),
        Field("config", "category"),
        Field("position", "integer"),
        Field("considered", "integer"),
        Field("action_probability", "number"),
        Field("propensity", "number"),
        Field("score", "number"),
        Field("degraded", "texts"),
        Field("columns", "numbers"),
    ),
    ("decision_id", "placement", "offer_id"),
)
"""A row an offer that was shown. `position` counts from 0 within the answer, `considered` the offers scored; `columns` are what the model
saw, in the order of the bundle's columns, NaN where missing (see `features/recorded.py`)."""

UNCLAIMED = Table("unclaimed", "time", (CUSTOMER, TIME, Field("type", "category"), Field("body", "category")))
"""Events of streams that are no longer declared and have no table, whole, as JSON: nothing that was accepted is lost."""

EXPOSURES = Table(
    "exposures",
    "time",
    (
        CUSTOMER,
        Field("experiment", "category", required=True),
        Field("arm", "category", required=True),
        TIME,
        Field("probability", "number"),
        Field("covered", "number"),
        Field("reason", "category"),
        Field("decision_id", "category"),
    ),
)
"""A row an exposure: a decision that an arm changed, or could have, and an event `exposure` of a client. `customer_id` is the unit that was
randomized (`@` and its id for an account). Assignment alone is none. `reason` is the assignment's, or `client`."""

LOOP_TABLES = (LINKS, CONSENTS, RECORDED, UNCLAIMED, EXPOSURES)
